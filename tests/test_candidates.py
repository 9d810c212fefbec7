"""agent/stages/candidates.py: what stored rows say of obvious settings and of stop strings."""

from pathlib import Path
from typing import Any

import pytest

from agent import runner
from agent.archive import open_archive
from agent.config_file import load_config
from agent.records import RoundRecord
from agent.reviewers.markers import proposed_stops
from agent.stages.candidates import candidates, dry_run, dry_runs
from agent.stages.replaying import measured
from agent.stages.stored import Found, Source, ask, sources
from agent.stops import cuts_too_much
from pipeline.metrics import Measurement
from pipeline.params import GenParams
from pipeline.types import Sample

OPEN = GenParams().replace({"critic.instruction": "label", "critic.pair": "lift"})


def row(index: int, raw: str, clean: str | None = None, *flags: str) -> Sample:
    return Sample(
        index, "x", f"Question {index}?", raw=raw, clean=raw if clean is None else clean,
        finish_reason="eos", flags=flags,
    )  # fmt: skip


def running(index: int, marker: str = "\nInstruction:") -> Sample:
    return row(index, f"Paris.\n{marker} Name a river.", "Paris.", "runaway")


def stored(*rows: Sample) -> tuple[Source, ...]:
    return (Source("round 1", rows, OPEN),)


def runs(*rows: Sample, params: GenParams = OPEN) -> dict[str, tuple[int, int, int, int]]:
    found = dry_runs(stored(*rows), params)
    return {r.stop: (r.ended, r.flagged, r.cut, r.good) for r in found}


def test_a_string_is_tried_on_every_row_that_was_answered():
    listed = row(9, "Steps:\n### First\nBoil water.\n### Second\nPour it.")
    unanswered = Sample(10, "x", "Question 10?", dropped="duplicate")
    found = runs(running(1), running(2), running(3, "\nQ:"), row(4, "Yes."), listed, unanswered)
    assert found["\nInstruction"] == (2, 3, 0, 2)
    assert found["\nQ:"] == (1, 3, 0, 2)
    assert found["\n###"] == (0, 3, 1, 2)
    assert next(iter(found)) == "\nInstruction", "what ends most stands first"


def test_what_the_cleaner_takes_anyway_is_no_loss():
    """A good row may end with a mark that was trimmed: ending there loses nothing."""
    trimmed = row(1, "Paris is a city.\n###", "Paris is a city.")
    cut = row(2, "Paris is\n### a city.", "Paris is\n### a city.")
    assert runs(trimmed)["\n###"] == (0, 0, 0, 1)
    assert runs(cut)["\n###"] == (0, 0, 1, 1)


def test_present_strings_and_those_that_hold_one_are_not_tried():
    found = runs(running(1), params=OPEN.replace({"response.stop": ["\nQ:", "###"]}))
    assert {"\nQ:", "\n###"}.isdisjoint(found) and "\nInstruction" in found


def test_a_string_that_cuts_good_rows_is_not_proposed():
    good = [row(i, "All is well.") for i in range(20)]
    held = [row(i, "Title\n### Part one of it.") for i in (30, 31)]
    found = dry_runs(stored(running(1), running(2, "\n###"), *good, *held), OPEN)
    cutting = next(r for r in found if r.stop == "\n###")
    assert (cutting.cut, cutting.good) == (2, 22) and cuts_too_much(cutting)
    assert "\n###" not in proposed_stops((), runs=found)
    assert "\nInstruction" in proposed_stops((), runs=found)


def test_strings_that_together_cut_too_many_good_rows_are_not_all_proposed():
    good = [row(i, "All is well.") for i in range(28)]
    held = [row(40, "Title\n### Part one."), row(41, "Title\nTask: read it.")]
    bad = [running(1, "\n###"), running(2, "\n###"), running(3, "\nTask:")]
    found = dry_runs(stored(*bad, *good, *held), OPEN)
    assert [(r.cut, r.good) for r in found if r.stop in ("\n###", "\nTask:")] == [(1, 30), (1, 30)]
    assert not any(map(cuts_too_much, found))
    chosen = proposed_stops((), runs=found)
    assert "\n###" in chosen and "\nTask:" not in chosen


def test_one_cut_row_in_many_is_worth_it_only_if_more_bad_ones_end():
    good = [row(i, "All is well.") for i in range(100)]
    held = [row(200, "Title\n### Part one of it.")]
    few = dry_runs(stored(*good, *held), OPEN)
    assert "\n###" not in proposed_stops((), runs=few), "it ends nothing"
    many = dry_runs(stored(*good, *held, running(1, "\n###"), running(2, "\n###")), OPEN)
    assert "\n###" in proposed_stops((), runs=many)


def test_of_two_proposed_strings_neither_holds_the_other():
    leak = row(1, "Paris.\n###END", "Paris.\n###END", "delimiter_leak")
    found = dry_runs(stored(leak), OPEN)
    assert [r.stop for r in found][:2] == ["\n###", "###"], "the longer one is met first"
    chosen = proposed_stops((), runs=found)
    assert "###" in chosen and "\n###" not in chosen
    assert "\n###" in proposed_stops(("\n###",), runs=found), "what is set now stays"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run ``r`` whose baseline was reviewed, and whose second round passes."""
    folder = tmp_path_factory.mktemp("candidates")
    config = folder / "budget.yaml"
    config.write_text("engine: {kind: scripted}\nscale: {examples: 120}\n", encoding="utf-8")
    runner.start(folder / "reports", load_config(config), "r", lambda _: None)
    return folder / "reports"


def rounds_of(run: Path) -> tuple[RoundRecord, ...]:
    with open_archive(run, "r") as archive:
        return archive.store.load_rounds()


def test_a_reviewed_round_says_what_stored_rows_know(run: Path):
    first, *others = rounds_of(run)
    assert first.step == "REVIEW" and others[-1].step == "APPROVE"
    assert 4 <= len(first.candidates) <= 8 and first.stop_candidates
    assert not others[-1].candidates and not others[-1].stop_candidates
    for known in first.candidates:
        assert known.rows > 0 and known.changes
        assert set(known.verdicts) < set(known.values)
        assert known.values["raw_acceptance"] is None or known.unscored == 0


def test_a_candidate_is_what_a_replay_of_its_setting_says(run: Path):
    """And so what the loop would find before it buys it."""
    first = rounds_of(run)[0]
    with open_archive(run, "r") as archive:
        for known in first.candidates:
            wanted = first.params.replace(known.changes)
            found = ask(sources(archive, before=2), wanted)
            said = measured(archive, found, wanted, alpha_round=2)
            assert (known.rows, known.changed) == (found.answered, found.rows.changed)
            assert known.values == {name: said[name].value for name in known.values}
            assert known.verdicts == {n: said.verdicts()[n] for n in known.verdicts}


def test_the_guard_asks_the_same_rows_as_the_record(run: Path):
    first = rounds_of(run)[0]
    with open_archive(run, "r") as archive:
        cuts = dry_run(archive, before=2)
        known = [(r.cut, r.good) for r in first.stop_candidates]
        assert [cuts((r.stop,)) for r in first.stop_candidates] == known
        assert dry_run(archive, before=1)(("\n###",))[1] < cuts(("\n###",))[1], "the probe alone"


def test_of_several_strings_the_first_one_met_ends_a_row(monkeypatch: pytest.MonkeyPatch):
    rows = stored(
        row(1, "One\n### two"), row(2, "One\n### two\nQ: three", "One\n### two"),
        row(3, "One\nQ: two"),
        row(4, "One."), running(5),
    )  # fmt: skip
    monkeypatch.setattr("agent.stages.candidates.sources", lambda *_, before: rows)
    cuts = dry_run(None, before=1)  # type: ignore[arg-type]
    asked = [("\n###",), ("\nQ:",), ("\n###", "\nQ:"), ("\nInstruction",)]
    assert [cuts(strings) for strings in asked] == [(2, 4), (1, 4), (3, 4), (0, 4)]


def test_what_nothing_stored_can_answer_is_left_out(run: Path):
    """Without the open probe no row says what a higher cap would do."""
    params = rounds_of(run)[0].params
    with open_archive(run, "r") as archive:
        probe, own = sources(archive, before=2)

        def judge(found: Found, wanted: GenParams) -> Measurement:
            return measured(archive, found, wanted, alpha_round=2)

        stops = dry_runs((probe, own), params)

        def asked(rows: tuple[Source, ...]) -> list[dict[str, Any]]:
            found = candidates(rows, params, stops=stops, floors={}, judge=judge)
            return [c.changes for c in found]

        both, alone = asked((probe, own)), asked((own,))
    now = params.response.max_new_tokens
    higher = [c for c in both if c.get("response.max_new_tokens", now) > now]
    assert len(higher) == 4 and alone == [c for c in both if c not in higher]


def test_candidates_move_each_margin_down_to_its_floor(run: Path):
    first = rounds_of(run)[0]
    for name in ("critic.instruction_margin", "critic.pair_margin"):
        now = first.params.get(name)
        found = [c.changes[name] for c in first.candidates if name in c.changes]
        assert len(found) == 1 and isinstance(now, float) and now - 2.0 <= found[0] < now
