"""Failures that a team met by hand at its gates, in scale and with its reviewer: each is caught.

One test for each, told in its docstring; those of measuring are in ``test_origin_measurement.py``.
"""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent import runner
from agent.config_file import load_config
from agent.errors import SentinelError
from agent.guard import guard
from agent.policy import Limits, RoundFacts, Step, next_step
from agent.review_records import Change, Prediction, Review
from agent.session import open_session
from agent.store import RunStore
from pipeline.engine import scripted
from pipeline.engine.scripted import ScriptedEngine
from pipeline.forecast import forecast_distinct, forecast_kept
from pipeline.generate import MicroBatch, run_micro_batch
from pipeline.metrics import yield_metric
from pipeline.novelty import NoveltyIndex
from pipeline.params import TUNABLE, FewshotParams, GenParams
from pipeline.prompting import choose_examples, instruction_prompts, topic_hints
from pipeline.types import Completion, GenRequest, Score, ScoreRequest

QUIET: Callable[[Any], None] = lambda event: None  # noqa: E731
PARAMS = GenParams().replace(
    {
        "critic.instruction": "label", "critic.instruction_margin": 0.0,
        "critic.pair": "lift", "critic.pair_margin": 0.0,
    }
)  # fmt: skip


@pytest.fixture
def waiting(tmp_path: Path, scripted_yaml: Path) -> Path:
    """A reports folder with a run ``r`` that waits for approval."""
    reports = tmp_path / "reports"
    ending = runner.start(reports, load_config(scripted_yaml), "r", QUIET)
    assert ending.status == "waiting", ending.reason
    return reports


def scaled(reports: Path, examples: int = 120) -> runner.Ending:
    plan = runner.offer(reports, "r", examples)
    return runner.approve(reports, "r", plan.hash, QUIET, accept_shortfall=True)


def test_seven_changes_at_once_are_refused() -> None:
    """Seven parameters moved in one round, so no effect could be told from another."""
    now = GenParams()
    values = {
        "instruction.temperature": 0.5, "instruction.top_p": 0.95, "response.temperature": 0.3,
        "response.top_p": 0.95, "response.repetition_penalty": 1.15, "response.max_new_tokens": 120,
        "fewshot.count": 8,
    }  # fmt: skip
    changes = tuple(Change(parameter=p, value=v, reason="better") for p, v in values.items())
    foretold = Prediction(metric="runaway", low=0.0, high=0.05, probability=0.8)
    review = Review(diagnosis="", changes=changes, predictions=(foretold,), confidence=0.5)
    outcome = guard(review, now, max_changes=4)
    assert len(outcome.applied) == 4 and len(outcome.refused) == 3
    assert all("more than 4 changes" in r.why for r in outcome.refused)


def test_duplicates_at_scale_are_foreseen_in_the_pilot() -> None:
    """Two rows in three were repeats, one question 273 times, and nobody had asked beforehand."""
    chance = random.Random(3)
    weights = [1 / rank for rank in range(1, 1501)]
    draws = [f"Question number {i}?" for i in chance.choices(range(1500), weights, k=3968)]
    truth = len(set(draws))
    found = forecast_distinct(draws[:200], len(draws))
    assert found.low <= truth <= found.high
    assert found.high < 0.6 * len(draws), "that most rows will repeat is plain from 200"


def test_a_repeated_instruction_is_not_answered() -> None:
    """Responses were paid for before anybody looked whether the instruction was new."""
    batch = MicroBatch("pilot", 1, 0, 0, 64, 1)
    low = PARAMS.replace({"instruction.temperature": 0.1})
    result = run_micro_batch(ScriptedEngine(), batch, low, seen=NoveltyIndex())
    repeats = [s for s in result.samples if s.dropped == "duplicate"]
    assert repeats and not any(s.answered for s in repeats)


def test_variety_comes_from_prompts_not_from_seeds() -> None:
    """Other seeds changed the draw and not the distribution; other examples and topics did."""
    fixed = [choose_examples(FewshotParams(), seed=s, place=("pilot", 1, 0)) for s in (1, 2)]
    assert fixed[0] == fixed[1]
    rotating = FewshotParams(rotation="rotate")
    rotated = [choose_examples(rotating, seed=1, place=("pilot", 1, n)) for n in (0, 1)]
    assert rotated[0] != rotated[1]
    hints = topic_hints(8, seed=1, place=("pilot", 1, 0))
    prompts = instruction_prompts(fixed[0], hints=hints)
    assert len({p.suffix for p in prompts}) > 1
    assert {"fewshot.rotation", "fewshot.set", "topics"} <= TUNABLE.keys()


def test_a_promise_that_the_forecast_contradicts_fails() -> None:
    """15,000 rows were promised of ten shards that were expected to give 450 each."""
    draws = [f"Question number {n % 40}?" for n in range(160)]
    kept = forecast_kept(draws, kept=20, distinct=40, attempts=75_000, target=15_000)
    metric = yield_metric(kept)
    assert metric.verdict == "FAIL"
    facts = RoundFacts(1, 3, 160, (metric,), True, "")
    assert next_step(facts, Limits(6, 1024, 48)).step is Step.REVIEW


def test_scale_stops_when_a_threshold_fails_in_a_shard(
    waiting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reviewer's "abort if a shard exceeds the thresholds" was a sentence, not a check."""
    spoil(monkeypatch)
    scaled(waiting, 1000)
    facts = RunStore.open(waiting, "r").load_run().dataset or {}
    assert "whose QC failed: runaway" in facts["stopped"]
    assert facts["attempts"] < 1000


def test_rows_of_a_failed_shard_are_kept(waiting: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard that failed QC exited with 1 and took its paid rows with it."""
    spoil(monkeypatch)
    scaled(waiting, 1000)
    with open_session(waiting, "r") as session:
        plan = session.approvals.plan(str((session.store.load_run().plan or {})["hash"]))
        paid = [s for s in session.read_committed(plan).samples if s.kept]
    written = (waiting / "r" / "dataset-unverified" / "train.jsonl").read_text(encoding="utf-8")
    assert len(written.splitlines()) == len(paid) > 0


def test_a_data_set_that_failed_is_not_published(
    waiting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next stage read "QC failed", logged "training anyway", and trained."""
    spoil(monkeypatch)
    ending = scaled(waiting, 1000)
    assert (ending.status, ending.exit_code) == ("done_unverified", 1)
    assert not (waiting / "r" / "dataset").exists()
    folder = waiting / "r" / "dataset-unverified"
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert "failed" in json.dumps(manifest)


def test_a_failed_sentinel_stops_the_run(
    tmp_path: Path, scripted_yaml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contamination sentinels were false on all 3,968 rows; it was a warning."""
    monkeypatch.setattr(ScriptedEngine, "generate", ends_at_once)
    with pytest.raises(SentinelError, match="instruction_tuned"):
        runner.start(tmp_path / "reports", load_config(scripted_yaml), "r", QUIET)
    store = RunStore.open(tmp_path / "reports", "r")
    assert not store.load_rounds() and store.load_run().status != "waiting"


def test_stored_verdicts_are_not_rewritten(waiting: Path) -> None:
    """Records of failed sentinels were later edited to say that they had passed."""
    folder = waiting / "r"
    before = {p: p.read_bytes() for p in sorted(folder.glob("rounds/*.json"))}
    assert before
    scaled(waiting)
    assert {p: p.read_bytes() for p in before} == before


def test_a_micro_batch_is_one_batch_of_each_kind() -> None:
    """One example at a time, a model of 32 billion parameters cost $2 for a pilot of 43 rows."""
    engine = Counting()
    run_micro_batch(engine, MicroBatch("pilot", 1, 0, 0, 96, 1), PARAMS, seen=NoveltyIndex())
    assert len(engine.generated) == 2, "instructions, then responses"
    assert engine.generated[0] == 96


def test_a_lease_is_longer_than_the_work_measured(waiting: Path) -> None:
    """A time-out of 600 seconds was wrapped around shards that took 40 minutes."""
    with open_session(waiting, "r") as session:
        plan = session.approvals.plan(str((session.store.load_run().plan or {})["hash"]))
        lease = session.meter.lease.seconds
    each = plan.seconds.high / plan.max_attempts
    assert lease > plan.micro_batch * each, "a micro-batch, not a shard, is what is timed"


def spoil(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on three responses in four go on into another task that no stop string ends."""
    whole = scripted._complete

    def spoilt(request: GenRequest) -> Completion:
        done = whole(request)
        if request.suffix.endswith("Instruction:") or request.seed % 4 == 0:
            return done
        text = (
            f"{done.text.rstrip()}\n\nInput: What is rain?\nOutput: Water that falls from clouds."
        )
        return Completion(text, done.token_ids, "eos")

    monkeypatch.setattr(scripted, "_complete", spoilt)


def ends_at_once(self: ScriptedEngine, requests: Sequence[GenRequest]) -> list[Completion]:
    return [Completion(" Yes.", (1, 2), "eos") for _ in requests]


class Counting(ScriptedEngine):
    """Remembers how many requests came at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.generated: list[int] = []

    def generate(self, requests: Sequence[GenRequest]) -> list[Completion]:
        self.generated.append(len(requests))
        return super().generate(requests)

    def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[Score, ...]]:
        return super().score(requests)
