"""benchmarks/engine: the arithmetic of floors and ratios, and a small comparison that is run."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.engine import random_model, report
from benchmarks.engine.child import PhaseResult, Report, Round, obey
from benchmarks.engine.contenders import Absent, Scoring, open_contender
from benchmarks.engine.floor import Pass, Rates, Weights, floor_seconds, read_weights
from benchmarks.engine.host import ROOT, Host
from benchmarks.engine.linear import Linear
from benchmarks.engine.results import Entry, figures, floors
from benchmarks.engine.setup import Setup
from benchmarks.engine.workload import GENERATION, SCORING, instruction, workload
from pipeline.critics.scores import instruction_scores, pair_scores

WEIGHTS = Weights(body=100, head=50, bytes_each=2)
RATES = Rates(bytes_per_second=1000.0, flops_per_second=10_000.0)


@pytest.mark.parametrize(
    ("made", "seconds"),
    [
        (Pass(rows=1, slots=1, kept=1), 0.3),  # 300 bytes; 300 products and sums
        (Pass(rows=1, slots=1, kept=0), 0.2),  # without logits the head is not read
        (Pass(rows=10, slots=4, kept=1), 0.9),  # 2 x (100 x 40 + 50 x 10) = 9,000
        (Pass(rows=10, slots=4, kept=4), 1.2),  # 2 x (100 x 40 + 50 x 40) = 12,000
    ],
    ids=["reads", "no logits", "multiplies", "all logits"],
)
def test_the_floor_of_a_pass_is_the_slower_of_reading_and_multiplying(made, seconds):
    assert floor_seconds(Counter({made: 3}), WEIGHTS, RATES) == pytest.approx(3 * seconds)


def test_every_round_has_other_prompts_and_every_contender_the_same():
    first, again, second = workload(8, number=0), workload(8, number=0), workload(8, number=1)
    assert first == again
    assert not set(first.texts) & set(second.texts)
    assert not {r.seed for r in first.answers} & {r.seed for r in second.answers}
    assert len({instruction(i) for i in range(960)}) == 960
    assert first.answers[0].sampling.stop == ("\n\nInstruction:", "\nInstruction:")
    assert (first.instructions[0].sampling.stop, len(first.pairs)) == (("\n",), 8)


def entry(key: str, *rounds: dict[str, float], passes: Counter[Pass] | None = None) -> Entry:
    """Rounds of 8 rows with these seconds, and two useful tokens a row where text is drawn."""
    reports = [
        Report(
            notes=(), seconds=0.0, peak_bytes=10**9, cuda_peak_bytes=None,
            phases=tuple(
                PhaseResult(name, 8, seconds, 16.0 if name in GENERATION else 0.0, passes)
                for name, seconds in each.items()
            ),
        )
        for each in rounds
    ]  # fmt: skip
    return Entry(key, None, tuple(reports))


ALL = {"instructions": 1.0, "answers": 1.0, "labels": 1.0, "lifts": 1.0}


def test_ratios_are_of_the_phases_that_both_do():
    ours = entry("f", ALL)
    scorer = figures(entry("b", {name: 2.0 for name in ALL}), ours)
    writer = figures(entry("c", {"instructions": 3.0, "answers": 5.0}), ours)
    assert (scorer.rows_ratio, scorer.tokens_ratio, scorer.rows_per_second) == (2.0, 2.0, 1.0)
    assert (writer.rows_ratio, writer.completions_per_second) == (4.0, 2.0)
    mine = figures(ours, ours)
    assert (mine.rows_ratio, mine.rows_per_second, mine.tokens_per_second) == (None, 2.0, 16.0)


def test_ratios_are_medians_of_rounds_so_that_a_slow_spell_does_not_show():
    slow = {name: 10.0 for name in ALL}
    ours = entry("f", ALL, slow, ALL)
    times = ((ALL, 3), (slow, 9), (ALL, 2))
    peer = entry("b", *({n: k * s for n, s in each.items()} for each, k in times))
    assert figures(peer, ours).rows_ratio == pytest.approx(3.0)
    assert figures(ours, ours).seconds["answers"] == 1.0


def test_a_contender_that_is_absent_has_a_reason_and_no_figures():
    found = figures(Entry("e", "not installed", ()), entry("f", ALL))
    assert (found.rows_per_second, found.rows_ratio, found.absent) == (None, None, "not installed")


def test_the_share_of_the_floor_is_by_phase_and_of_all():
    ours = entry("f", ALL, passes=Counter({Pass(1, 1, 1): 2}))
    by_phase = {floor.phase: floor for floor in floors(ours, WEIGHTS, RATES)}
    assert list(by_phase) == [*GENERATION, *SCORING, "all"]
    assert by_phase["answers"].share == pytest.approx(0.6)
    assert by_phase["all"].floor_seconds == pytest.approx(2.4)
    assert (by_phase["all"].share, by_phase["all"].passes) == (pytest.approx(0.6), 8)


def test_ten_times_the_rows_may_cost_ten_and_a_half_times_the_time():
    def of(many: float) -> Linear:
        return Linear(96, 1.0, None, None, many, None, None)

    assert of(10.5).passed and not of(10.6).passed


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    folder = random_model.make(
        "tiny", tmp_path_factory.mktemp("tiny"), device="cpu", dtype="float32"
    )
    return Setup(
        model=str(folder), folder=folder, device="cpu", dtype="float32", threads=1,
        rows=4, sequential_rows=2, peer_scores=False,
    )  # fmt: skip


def test_three_contenders_do_the_same_work_and_score_alike(setup, tmp_path):
    asked, entries, scores = workload(setup.rows, number=0), {}, {}
    for key in "abf":
        contender = open_contender(key, setup)
        entries[key] = Entry(key, None, (obey(contender, setup, Round(0)),))
        scores[key] = instruction_scores(Scoring(contender), asked.texts[:2])
        scores[key] += pair_scores(Scoring(contender), asked.pairs[:2], "lift")
    assert scores["a"] == pytest.approx(scores["f"], abs=1e-3)
    assert scores["b"] == pytest.approx(scores["f"], abs=1e-3)
    (one_by_one,), ours = entries["a"].reports, entries["f"]
    assert sum(p.seconds for p in one_by_one.phases) > one_by_one.seconds  # scaled: 2 rows of 4
    found = [figures(each, ours) for each in entries.values()]
    assert all(f.rows_per_second > 0 and f.tokens_per_second > 0 for f in found)
    assert [f.rows_ratio is None for f in found] == [False, False, True]
    assert found[0].notes == ("timed on 2 rows of 4 and scaled",)
    host = Host(
        name="A (R) Processor", cores=2, threads=1, torch="2", transformers="5", date="today",
        revision="", dtype="float32", model="tiny", rates=RATES,
        weights=read_weights(setup.folder, dtype="float32"),
    )  # fmt: skip
    least = floors(ours, host.weights, host.rates)
    assert all(floor.passes > 0 and floor.tokens >= 4 for floor in least)
    comparison = report.Comparison(
        host, setup.rows, 1, tuple(entries.values()), tuple(found), tuple(least), None
    )
    page, data = report.write(comparison, tmp_path)
    assert page.name == "engine-a-processor-2-cores.md"
    assert "| f | **this engine** |" in page.read_text(encoding="utf-8")
    assert json.loads(data.read_text(encoding="utf-8"))["measured"]["f"][0][0]["passes"]


def test_sizes_of_a_model_are_read_from_its_headers(setup):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(setup.folder, dtype=torch.float32)
    weights = read_weights(setup.folder, dtype="float32")
    head = model.lm_head.weight.numel()
    everything = sum(p.numel() for p in model.parameters())
    assert (weights.head, weights.body) == (head, everything - 2 * head)
    assert weights.bytes == 4 * (everything - head)


def test_a_contender_that_cannot_run_here_says_why(setup):
    with pytest.raises(Absent, match="not installed|none"):
        open_contender("d", setup)


@pytest.mark.slow
def test_the_command_compares_in_processes_and_writes_both_files(tmp_path: Path):
    subprocess.run(
        [sys.executable, "-m", "benchmarks.engine", "--quick", "--contenders", "b,e,f",
         "--linear", "--threads", "1", "--out", str(tmp_path)],
        cwd=ROOT, check=True, timeout=240,
        env={"PATH": "/usr/bin:/bin", "SFT_ASSAY_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    (page,), (data,) = tmp_path.glob("*.md"), tmp_path.glob("*.json")
    found = json.loads(data.read_text(encoding="utf-8"))
    static, vllm, ours = found["figures"]
    assert static["rows_ratio"] == pytest.approx(
        sum(static["seconds"].values()) / sum(ours["seconds"].values())
    )
    assert vllm["absent"] == "not installed" and "not measured: not installed" in page.read_text(
        "utf-8"
    )
    assert min(ours["peak_bytes"], static["peak_bytes"]) > 10**8
    everything = found["floors"][-1]
    assert everything["passes"] > 0
    assert everything["floor_seconds"] == pytest.approx(everything["share"] * everything["seconds"])
    assert found["linear"]["ratio"] > 1
