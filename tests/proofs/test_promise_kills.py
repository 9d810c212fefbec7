"""P6 and P9: kill -9 anywhere, and the run comes to the same result, with little done again."""

import json
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from bookkeeping import in_memory
from borders import ROOT, Death, Failpoint, Side
from forked import CONFIG, RUN, Forks, Life, Outcome, Trial, forks, without_pictures

from agent import runner
from agent.archive import open_archive
from agent.committed import Committed
from agent.config_file import check_config

Effort = Callable[..., int]
Figure = Callable[[str, str], None]
memory = pytest.fixture(in_memory)

READY_SECONDS = 5.0
"""From the start of a process that resumes 15,000 rows to its next purchase."""

KINDS = {"fsync", "replace", "unlink", "mkdir", "commit", "script"}
"""Every kind of border there is; each must be found, or the net has a hole."""
STAGES = ("_preflight", "_pilot", "_measure", "_review", "_apply", "_replay", "_plan", "_scale",
          "_merge", "_finish", "runner.offer", "runner.approve", "open_session")  # fmt: skip


@dataclass(frozen=True)
class Reference:
    """A run that nobody kills."""

    forks: Forks
    """Who carries out trials."""
    early: tuple[Failpoint, ...]
    """Its borders up to the approval."""
    late: tuple[Failpoint, ...]
    """Its borders from there on."""
    result: dict[str, Any]
    """What it came to."""
    seconds: float
    """What the second part took; the first takes about twice that."""


@pytest.fixture(scope="module")
def reference() -> Reference:
    server = forks()
    (whole,) = server.carry_out([Trial((), waiting=True)])
    assert whole.faults == () and whole.attempts == 0
    return Reference(server, server.early, whole.passed, whole.result, whole.seconds)


def prove(trials: Sequence[Trial], same: Reference) -> list[Outcome]:
    """Each trial's last life comes to the result of the run that nobody killed."""
    outcomes = same.forks.carry_out(trials)
    for trial, found in zip(trials, outcomes, strict=True):
        assert found.faults == (), (trial, found.faults)
        for what, value in same.result.items():
            assert found.result[what] == value, (trial, what)
    return outcomes


def said(outcomes: Sequence[Outcome]) -> str:
    died = sum(found.died for found in outcomes)
    again = sum(found.attempts for found in outcomes)
    most = max(found.attempts for found in outcomes)
    return (
        f"{died} kills, {len(outcomes)} of {len(outcomes)} runs equal, 0 rows lost or doubled, "
        f"0 posted twice; {again} micro-batches bought again, at most {most} a run"
    )


def test_every_stage_and_every_kind_of_border_is_found(reference: Reference) -> None:
    found = {*reference.early, *reference.late}
    assert {point.kind for point in found} == KINDS
    for stage in STAGES:
        assert any(stage in point.place for point in found), stage
    assert {"_Saver", "Ledger", "RunStore", "Approvals", "Journal"} <= {
        name.split(".")[1] for point in found for name in point.place.split(" < ")
    }


@pytest.mark.parametrize("side", ["before", "after"])
def test_killed_in_the_middle_of_a_purchase(reference: Reference, side: Side) -> None:
    """Its artifact is written, its result is not: it is paid for once more, and never twice."""
    inside = next(
        point for point in reference.late
        if point.kind == "replace" and "put_artifact < scaling._buy" in point.place
    )  # fmt: skip
    (found,) = prove([Trial((Life(Death(1, side, inside)),), waiting=True)], reference)
    assert (found.died, found.attempts) == (1, 1)
    assert found.charged > 0, "the attempt that died cost something"


def test_killed_before_and_after_every_failpoint(
    reference: Reference, effort: Effort, figure: Figure
) -> None:
    late = set(reference.late)
    points = sorted(late | set(reference.early), key=lambda p: (p.kind, p.place))
    trials = [
        Trial((Life(Death(1, side, point)),), waiting=point in late)
        for point in points
        for side in ("before", "after")
    ]
    many = effort(sample=3, proof=len(trials), soak=len(trials))
    chosen = random.Random(6).sample(trials, many)
    outcomes = prove(chosen, reference)
    assert [t for t, found in zip(chosen, outcomes, strict=True) if not found.died] == []
    figure("P6", f"{many} kills at {len(points)} failpoints: {said(outcomes)}")


def test_killed_at_random(reference: Reference, effort: Effort, figure: Figure) -> None:
    chance = random.Random(61)
    many = effort(sample=3, proof=70, soak=600)
    outcomes = prove([_somewhere(chance, reference, i) for i in range(many)], reference)
    died = sum(outcome.died for outcome in outcomes)
    assert died >= 0.8 * many - 1, f"only {died} of {many} lives were cut short"
    figure("P6", f"at random: {said(outcomes)}")
    again, cost = sum(o.attempts for o in outcomes), sum(o.charged for o in outcomes)
    figure("P9", f"{again} micro-batches redone after {died} kills, {cost} micro-dollars for them")


def _somewhere(chance: random.Random, run: Reference, number: int) -> Trial:
    """A border in two of three trials, an instant in the third; late in every other."""
    late = number % 2 == 0
    if number % 3 == 2:
        seconds = run.seconds * (1 if late else 3)
        return Trial((Life(seconds=chance.uniform(0.0, seconds)),), waiting=late)
    return Trial((Life(_any(chance, run.late if late else run.early)),), waiting=late)


def _any(chance: random.Random, passed: Sequence[Failpoint], *, first: int | None = None) -> Death:
    number = chance.randint(1, min(first or len(passed), len(passed)))
    return Death(number, chance.choice(("before", "after")))


def test_killed_again_while_it_resumes(
    reference: Reference, effort: Effort, figure: Figure
) -> None:
    chance = random.Random(62)
    many = effort(sample=1, proof=50, soak=400)
    trials = []
    for number in range(many):
        late = number % 2 == 0
        first = _any(chance, reference.late if late else reference.early)
        # Every other second death strikes while the books are opened and settled.
        second = _any(chance, reference.late, first=8 if number % 4 < 2 else None)
        trials.append(Trial((Life(first), Life(second)), waiting=late))
    outcomes = prove(trials, reference)
    twice = sum(outcome.died == 2 for outcome in outcomes)
    assert twice >= 0.6 * many, f"only {twice} of {many} were killed twice"
    figure("P6", f"{twice} double crashes: {said(outcomes)}")


class Enough(Exception):
    """Ends a run that has bought enough."""


def test_a_long_run_goes_on_at_once(
    memory: Path, monkeypatch: pytest.MonkeyPatch, effort: Effort, figure: Figure
) -> None:
    without_pictures(monkeypatch.setattr)
    rows = effort(sample=300, proof=15_000, soak=15_000)
    reports = memory / "reports"
    settings = CONFIG | {"scale": {"examples": rows + 3000, "micro_batch": 256}}
    runner.start(reports, check_config(settings, source="here"), RUN, lambda event: None)
    plan = runner.offer(reports, RUN, rows + 3000)

    def stop(event: Mapping[str, Any]) -> None:
        if event["kind"] == "wave" and event["kept"] >= rows:
            raise Enough

    with pytest.raises(Enough):
        runner.approve(reports, RUN, plan.hash, stop, accept_shortfall=True)
    # The machine may be busy with something else: of three, the fastest tells.
    ready = min(_resumed(reports) for _ in range(effort(sample=1, proof=3, soak=3)))
    assert ready < READY_SECONDS
    with open_archive(reports, RUN) as archive:
        committed = Committed()
        committed.read(archive.journal, archive.store, shard_rows=1500)
    figure("P9", f"a run of {committed.kept:,} rows bought the next {ready:.1f} s after resume")


def _resumed(reports: Path) -> float:
    """Seconds from the start of a process to its first purchase; it is killed there."""
    before, began = len(_purchases(reports)), time.time()
    resumed = _command(reports, "resume", RUN)
    while len(_purchases(reports)) == before:
        assert resumed.poll() is None and time.time() < began + 60
        time.sleep(0.02)
    resumed.kill()
    resumed.wait()
    return _purchases(reports)[before] - began


def _command(reports: Path, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "agent", *words, "--reports", str(reports)],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def _purchases(reports: Path) -> list[float]:
    """When every micro-batch of scale was reserved."""
    with closing(sqlite3.connect(reports / RUN / "run.sqlite", timeout=30)) as database:
        found = database.execute(
            "SELECT at FROM entries WHERE kind = 'reserve' AND op_id LIKE 'scale/%' ORDER BY seq"
        )
        return [at for (at,) in found.fetchall()]


@pytest.mark.model
@pytest.mark.slow
def test_killed_with_the_embedded_model(tmp_path: Path, figure: Figure) -> None:
    """On a CPU, in processes of the command line: killed in a pilot and in scale."""
    config = tmp_path / "budget.yaml"
    config.write_text(json.dumps(_REAL), encoding="utf-8")
    quiet: Callable[[Any], None] = lambda event: None  # noqa: E731
    for name in ("whole", "killed"):
        reports = tmp_path / name
        begin = ["run", "--config", str(config), "--run-id", RUN]
        if name == "killed":
            _kill_during(_command(reports, *begin), reports, "r01/b000")
            begin = ["resume", RUN]
        assert _command(reports, *begin).wait() == 3
        plan = runner.offer(reports, RUN, _REAL["scale"]["examples"])
        yes = ["approve", RUN, "--plan", plan.hash, "--accept-shortfall", "--accept-need"]
        if name == "killed":
            _kill_during(_command(reports, *yes), reports, "scale/b00001")
            assert runner.resume(reports, RUN, quiet).exit_code in (0, 1)
        else:
            assert _command(reports, *yes).wait() in (0, 1)
    rows = [_rows(tmp_path / name / RUN) for name in ("whole", "killed")]
    assert rows[0] == rows[1]
    figure("P6", f"embedded model, killed twice: {len(rows[0].splitlines())} rows equal")


_REAL: dict[str, Any] = {
    "engine": {"kind": "hf", "model": "embedded"},
    "parameters": {"response": {"max_new_tokens": 24, "stop": ["\n"]}},
    "pilot": {"smoke_rows": 24, "micro_batch": 24, "max_rows": 48, "max_rounds": 1},
    "thresholds": {
        **{name: {"max": 0.999} for name in ("runaway", "repetition", "token_limit", "truncated",
                                              "delimiter_leak", "empty")},
        "instruction_acceptance": {"min": 0.001}, "pair_acceptance": {"min": 0.001}, "alpha": 0.9,
    },
    "scale": {"examples": 20, "micro_batch": 16},
}  # fmt: skip
"""A setting that passes whatever the model writes: what is proved is that it is the same again."""


def _kill_during(process: subprocess.Popen[bytes], reports: Path, op_id: str) -> None:
    """Kill it once it has reserved ``op_id`` and had a moment to work on it."""
    ask = "SELECT count(*) FROM entries WHERE kind = 'reserve' AND op_id = ?"
    while process.poll() is None:
        with suppress(sqlite3.Error), closing(_read_only(reports)) as database:
            if database.execute(ask, (op_id,)).fetchone()[0]:
                time.sleep(0.5)
                process.kill()
                break
        time.sleep(0.05)
    assert process.wait() == -9, f"it ended before {op_id} was bought"


def _read_only(reports: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{reports / RUN / 'run.sqlite'}?mode=ro", uri=True)


def _rows(run: Path) -> str:
    folder = next(run / name for name in ("dataset", "dataset-unverified") if (run / name).is_dir())
    return (folder / "train.jsonl").read_text(encoding="utf-8")
