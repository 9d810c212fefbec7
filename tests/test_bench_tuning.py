"""benchmarks/tuning: cells on the scripted engine are run once, kept, resumed and reported."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import metrics, round_record, story

from agent import runner
from agent.best import base
from agent.config import RunConfig
from agent.errors import EngineError, ReviewerError
from agent.guard import guard
from agent.records import RoundRecord
from agent.reviewers.base import Reviewer
from benchmarks.tuning import cells, page
from benchmarks.tuning.__main__ import main
from benchmarks.tuning.cells import TUNERS, Cell, run_cell
from benchmarks.tuning.kept import PAGE, REPORTED, RESULTS, Bench, Kept, named
from benchmarks.tuning.manual import MOVES, ManualReviewer
from benchmarks.tuning.random_search import RandomReviewer
from benchmarks.tuning.starts import GOOD, LIMIT_ROWS, STARTS, config
from benchmarks.tuning.truth import Truth, rows_needed
from pipeline.params import TUNABLE, GenParams

PLAIN: Any = {"reviewer": {}}


def cell(start: str = "hot", tuner: str = "rules", seed: int = 101, **changes: Any) -> Cell:
    values: dict[str, Any] = {
        "passed": True, "ending": "waiting", "reason": "", "rounds": 2, "replayed": 0,
        "rows": 300, "tokens": 9000, "engine_seconds": 90.0, "usd": 0.00125,
        "preflight_seconds": 60.0, "wall_seconds": 150.0,
        "params": GenParams().model_dump(mode="json"), "version": "v", "machine": "m",
        "finished": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    return Cell(start, tuner, seed, **{**values, **changes})


def truth(start: str = "hot", seed: int = 101, **bad: int) -> Truth:
    names = ("runaway", "repetition", "token_limit", "truncated", "delimiter_leak", "empty")
    counts = {name: (bad.get(name, 0), 2000) for name in names}
    accepted = {"instruction_acceptance": (1900, 2000), "pair_acceptance": (1900, 2000)}
    return Truth(
        start, "rules", seed, GenParams().model_dump(mode="json"), 2000, 2000, counts | accepted,
        60_000, 240.0, version="v", machine="m", finished="2026-01-01T00:00:00+00:00",
    )  # fmt: skip


def kept(*found: Cell | Truth) -> Kept:
    return Kept(
        {named(c): c for c in found if isinstance(c, Cell)},
        {named(t): t for t in found if isinstance(t, Truth)},
    )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    (tmp_path / "page.md").write_text(f"a\n{page.BEGIN}\nold\n{page.END}\nb\n", encoding="utf-8")
    return Bench(
        tmp_path / "tuning.json", tmp_path / "scratch", tmp_path / "page.md",
        engine="scripted", truth_rows=100,
    )  # fmt: skip


def test_a_cell_runs_is_kept_is_not_run_again_and_the_page_is_written(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    only = ["--only", "rules", "--only", "truth", "--start", "no-stops", "--seed", "101"]
    assert main(only, bench=bench) == 0
    (found,) = Kept.read(bench.results).cells.values()
    assert (found.passed, found.ending) == (True, "waiting") and found.rounds >= 2
    assert 77 <= found.rows <= LIMIT_ROWS and found.tokens > found.rows and found.usd > 0
    assert found.params["response"]["stop"] and not STARTS["no-stops"][1].response.stop
    run = json.loads((bench.folder(named(found)) / "cell" / "run.json").read_text("utf-8"))
    assert run["status"] == "waiting" and run["config"]["scale"]["examples"] == 10
    (known,) = Kept.read(bench.results).truths.values()
    assert known.answered >= 100 and known.params == found.params
    text = bench.page.read_text(encoding="utf-8")
    assert text.startswith("a\n") and text.endswith("b\n") and "old" not in text
    assert "| no stop strings, cap 80 | rules | 1 of 1 |" in text
    assert "not measured yet (1 of 15)" in capsys.readouterr().out

    def never(*args: Any, **kwargs: Any) -> Cell:
        raise AssertionError("it is there")

    monkeypatch.setattr("benchmarks.tuning.__main__.run_cell", never)
    monkeypatch.setattr("benchmarks.tuning.__main__.measure_truth", never)
    assert main(only, bench=bench) == 0
    with pytest.raises(AssertionError, match="it is there"):
        main([*only, "--again"], bench=bench)


@pytest.mark.parametrize("tuner", ["bayes", "random"])
def test_every_tuner_takes_the_reviewers_seat_and_no_cell_passes_its_limit(
    tmp_path: Path, tuner: str
) -> None:
    folder = tmp_path / "runs"
    (folder / "cell").mkdir(parents=True)
    (folder / "cell" / "run.json").write_text("left by a killed try", encoding="utf-8")
    found = run_cell("no-stops", tuner, 5, folder=folder, engine="scripted", limit=140)
    assert (found.ending, found.passed) == ("limit", False)
    assert 44 < found.rows <= 140 and found.rounds >= 2
    first = json.loads((folder / "cell" / "rounds" / "01.json").read_text("utf-8"))
    assert first["review"]["reviewer"] == tuner and first["review"]["applied"]
    assert first["review"]["refused"] == []
    assert first["critics"]["used"]["pair"]["floor"] is not None, "margins are in reach"


def test_an_interrupted_cell_is_not_kept_and_a_failed_one_lets_the_next_one_run(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    drained = runner.Ending("cell", "drained", "stopped at a border", runner.DRAINED)
    begun: list[Any] = []
    monkeypatch.setattr(cells.runner, "start", lambda *args: begun.append(args) or drained)
    assert main(["--only", "rules", "--seed", "101"], bench=bench) == 130 and len(begun) == 1
    tried: list[str] = []

    def fails(start: str, *args: Any, **kwargs: Any) -> Cell:
        tried.append(start)
        raise EngineError("no memory")

    monkeypatch.setattr("benchmarks.tuning.__main__.run_cell", fails)
    assert main(["--only", "rules", "--seed", "101"], bench=bench) == 1
    assert tried == list(STARTS) and not bench.results.exists()


def test_a_reviewer_that_fails_is_an_ending_of_its_cell(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> runner.Ending:
        raise ReviewerError("no usable answer")

    monkeypatch.setattr(cells.runner, "start", fails)
    watch = cells._Watch(LIMIT_ROWS, 96)
    settings = config("hot", seed=1, engine="scripted", reviewer=PLAIN)
    assert cells._work(bench.scratch, settings, watch) == ("held", "no usable answer")


def test_cells_come_seed_by_seed_with_the_rules_first_and_what_may_not_fit_is_left(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def quick(start: str, tuner: str, seed: int, **_: Any) -> Cell:
        ran.append(f"{seed} {tuner}")
        return cell(start, tuner, seed, passed=tuner == "rules")

    def rates(*_: Any, start: str, **__: Any) -> Truth:
        ran.append("truth")
        return truth(start)

    monkeypatch.setattr("benchmarks.tuning.__main__.run_cell", quick)
    monkeypatch.setattr("benchmarks.tuning.__main__.measure_truth", rates)
    assert main([], bench=bench) == 0
    kinds = list(dict.fromkeys(ran[:25]))
    assert kinds == ["101 rules", "101 bayes", "101 random", "101 manual", "truth"]
    assert len([r for r in ran if r != "truth"]) == 60
    ran.clear()
    short = replace(bench, results=bench.scratch / "short.json")
    assert main(["--minutes", "1"], bench=short) == 0 and ran == []
    Kept().add(short.results, cell("no-stops", wall_seconds=50.0))
    assert main(["--minutes", "1", "--seed", "101"], bench=short) == 0
    assert ran == ["101 rules"], "50 s fit once into a minute, 150 s do not"


def test_other_seeds_than_the_reported_ones_are_not_reported(bench: Bench) -> None:
    Kept().add(bench.file(7), cell(seed=7))
    assert not bench.results.exists() and bench.file(101) == bench.results
    assert main(["--only", "llm"], bench=bench) == 0
    assert "Nothing is measured yet." in bench.page.read_text(encoding="utf-8")
    assert "Nothing is measured" in page.tables(kept(cell(seed=7)))


def test_a_cell_without_a_pass_counts_at_its_limit() -> None:
    stopped = cell(passed=False, ending="stop_reviewer", rows=500, tokens=10_000, usd=0.5)
    assert page.counted(stopped).rows == LIMIT_ROWS
    assert (page.counted(stopped).tokens, page.counted(stopped).usd) == (40_000, 2.0)
    at_limit = cell(passed=False, ending="limit", rows=1950, tokens=80_000)
    assert (page.counted(at_limit).rows, page.counted(at_limit).tokens) == (LIMIT_ROWS, 80_000)
    assert page.counted(cell()).rows == 300


def every(tuner: str, **changes: Any) -> list[Cell]:
    return [cell(start, tuner, seed, **changes) for start in STARTS for seed in REPORTED]


def truths(**bad: int) -> list[Truth]:
    return [truth(start, seed, **bad) for start in STARTS for seed in REPORTED]


def test_targets_are_printed_as_met_and_as_missed() -> None:
    good = kept(*every("rules"), *every("bayes", tokens=90_000), *truths())
    assert [t.met for t in page.targets(good)] == [True, True, True], page.tables(good)
    text = page.tables(good)
    assert "15 of 15 cells, from 5 starts | met |" in text and "0.10 of them over 15 pairs" in text
    bad = kept(
        *every("rules", passed=False, ending="stop_no_change"),
        *every("bayes", tokens=90_000),
    )
    assert [t.met for t in page.targets(bad)] == [False, False, False]
    text = page.tables(bad)
    assert text.count("**MISSED**") == 3 and "not from no-stops/rules/101" in text
    assert "inf times over 15 cells, from 5 starts; 15 without a pass count as infinite" in text
    slow = kept(*every("rules", rows=1500), *truths())
    assert [t.met for t in page.targets(slow)] == [True, None, False]


@pytest.mark.parametrize(("lost", "met"), [(7, True), (8, False)])
def test_a_cell_without_a_pass_uses_more_rows_than_any_need(lost: int, met: bool) -> None:
    cells_, known = every("rules"), truths()
    cells_[:lost] = [replace(c, passed=False, ending="stop_reviewer") for c in cells_[:lost]]
    assert page.targets(kept(*cells_, *known[lost:]))[2].met is met


def test_a_setting_that_would_mostly_not_pass_is_no_credit() -> None:
    lucky = kept(*every("rules"), *truths(truncated=400))
    assert page.targets(lucky)[2].met is False
    assert "| never | inf |" in page.tables(lucky)


def test_what_is_met_so_far_is_not_met_yet() -> None:
    some = kept(cell("hot"), cell("hot", "bayes", tokens=90_000), truth("hot"))
    assert [t.met for t in page.targets(some)] == [None, None, None]
    assert {t.verdict for t in page.targets(some)} == {"not measured yet (1 of 15)"}


def test_one_seed_of_every_start_meets_and_misses_no_median() -> None:
    rules, tpe = ([c for c in every(t, tokens=n) if c.seed == 101]
                  for t, n in (("rules", 9000), ("bayes", 90_000)))  # fmt: skip
    known = [t for t in truths() if t.seed == 101]
    found = page.targets(kept(*rules, *tpe, *known))
    assert [t.verdict for t in found] == ["not measured yet (5 of 15)"] * 3
    slow = [replace(c, tokens=80_000, rows=1500) for c in rules]
    assert [t.met for t in page.targets(kept(*slow, *tpe, *known))] == [None, None, None]
    failed = [replace(slow[0], passed=False), *slow[1:]]
    assert page.targets(kept(*failed, *tpe))[0].met is False, "one miss is enough"


def test_a_median_that_is_a_limit_says_so() -> None:
    lost = {"passed": False, "ending": "limit", "tokens": 70_000}
    found = kept(cell(seed=101), cell(seed=102, **lost), cell(seed=103, **lost))
    assert "| 1 of 3 | 2 | >= 2,000 | >= 70,000 |" in page.tables(found)
    found = kept(cell(seed=101), cell(seed=102), cell(seed=103, **lost))
    assert "| 2 of 3 | 2 | 300 | 9,000 |" in page.tables(found)


def test_rows_needed_are_those_of_the_gates_own_test() -> None:
    """With no bad row the strictest gate is 2 %: 196 rows in round 1, so the look at 224."""
    settings = config("hot", seed=1, engine="hf", reviewer={})
    assert rows_needed(truth(), settings, round_=1, paths=9) == 224
    assert rows_needed(truth(), settings, round_=2, paths=9) == 320
    some = rows_needed(truth(truncated=10), settings, round_=1, paths=60)
    assert 224 < some <= 1100
    assert rows_needed(truth(truncated=400), settings, round_=1, paths=9) == float("inf")


def test_the_starts_are_bad_settings_of_shipped_gates() -> None:
    settings = [config(s, seed=101, engine="hf", reviewer={}) for s in STARTS]
    shipped = RunConfig()
    assert len(settings) == 5
    for name in ("thresholds", "certificates", "critic", "prices", "budget"):
        assert all(getattr(s, name) == getattr(shipped, name) for s in settings)
    assert all(s.reviewer.max_changes == shipped.reviewer.max_changes for s in settings)
    assert all(s.parameters != GOOD and s.pilot.seed == 101 for s in settings)


ROUND = {"faults": [], "used": {"instruction": {"floor": 0.1}, "pair": {"floor": 0.1}}}


def measured(number: int, params: GenParams, kept: int = 20, **bad: int) -> RoundRecord:
    table = metrics(bad, n=60, generated=60, kept=kept, distinct=None)
    return round_record(number, params=params, metrics=table, critics=ROUND, review=None)


def reviewed(reviewer: Reviewer, rounds: list[RoundRecord]) -> tuple[RoundRecord, GenParams]:
    review = reviewer.review("", rounds, pay=pytest.fail)  # type: ignore[arg-type]
    now = base(rounds)
    floors = {"critic.instruction_margin": 0.1, "critic.pair_margin": 0.1}
    found = guard(review, now.params, max_changes=4, tried=rounds, margin_floors=floors)
    assert found.refused == ()
    last = rounds[-1].model_copy(
        update={"review": story()[0].review.model_copy(update={"review": review})}  # type: ignore[union-attr]
    )
    return last, found.params


def test_the_manual_way_tightens_takes_it_back_and_stops() -> None:
    start = STARTS["no-stops"][1]
    first, tight = reviewed(ManualReviewer(max_changes=4), [measured(1, start, runaway=40)])
    assert tight.response.temperature == pytest.approx(0.3)
    assert tight.instruction.top_p == pytest.approx(0.85)
    rounds = [first, measured(2, tight, runaway=50)]
    _, back = reviewed(ManualReviewer(max_changes=4), rounds)
    assert back == GOOD
    calm = [measured(1, GOOD, duplicates=0)]
    last = ManualReviewer(max_changes=4).review("", calm, pay=pytest.fail)  # type: ignore[arg-type]
    assert last.stop and not last.changes


@pytest.mark.parametrize(
    ("start", "bad", "moves"),
    [
        ("cold", {"repetition": 30}, {"response.temperature": 0.4,
                                      "response.repetition_penalty": 1.2}),
        ("hot", {"truncated": 30}, {"response.temperature": 1.5}),
        ("margin", {"instruction_acceptance": 0}, {"critic.instruction_margin": 7.0}),
    ],
)  # fmt: skip
def test_the_manual_way_treats_symptoms(
    start: str, bad: dict[str, int], moves: dict[str, Any]
) -> None:
    params = STARTS[start][1]
    if params.critic.instruction_margin is None:
        params = params.replace({"critic.instruction_margin": 1.0})
    _, after = reviewed(ManualReviewer(max_changes=4), [measured(1, params, **bad)])
    assert {name: after.get(name) for name in moves} == pytest.approx(moves)


def test_random_search_reaches_every_parameter_and_nothing_is_refused() -> None:
    params = STARTS["margin"][1].replace({"critic.pair_margin": 0.5})
    moved: set[str] = set()
    for seed in range(40):
        reviewer = RandomReviewer(max_changes=4, seed=seed)
        _, after = reviewed(reviewer, [measured(1, params, runaway=40)])
        now = {name for name in TUNABLE if after.get(name) != params.get(name)}
        assert 1 <= len(now) <= 4
        moved |= now
    assert moved == TUNABLE.keys()


def test_the_committed_page_is_what_was_measured() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert page.page(text, Kept.read(RESULTS)) == text, "run python -m benchmarks.tuning"


def test_every_move_is_named_once() -> None:
    assert len({move.name for move in MOVES}) == len(MOVES)
    assert set(TUNERS) == {"rules", "bayes", "random", "manual", "llm"}
