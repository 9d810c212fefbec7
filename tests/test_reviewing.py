"""agent/stages/reviewing.py: what a harmful, an idle and a paid review do to a run."""

import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from renders import Kept

from agent import runner
from agent.config_file import load_config
from agent.policy import EXIT_CODES, Step
from agent.records import RoundRecord
from agent.review_records import Change, Prediction, Review
from agent.reviewers import choose_reviewer
from agent.reviewers.base import Pay
from agent.reviewers.rules import recommend
from agent.session import open_session
from agent.stages import reviewing
from agent.stages.pilot import Place
from agent.store import RunStore
from agent.verify.check import verify

STOPS = ["\nInstruction", "\nQ:", "\n###", "\nUser:"]
HARM = {"response.stop": [], "response.temperature": 0.5}
"""Run-ons again, with other draws, so that stored rows cannot say so beforehand."""
MILD = {"topics": "hints"}
WORST_CASE, COST = 12_300, 4_500


class Told:
    """Answers with one set of changes after the other, pays for each, then changes nothing."""

    name = "llm:gpt-5-mini"

    def __init__(self, *answers: dict[str, Any]) -> None:
        self.answers = answers

    def review(self, learnings: str, rounds: Sequence[RoundRecord], *, pay: Pay) -> Review:
        with pay(WORST_CASE) as bill:
            bill.cost_micro = COST
        wanted = dict(enumerate(self.answers)).get(len(rounds) - 1, {})
        foretold = Prediction(metric="runaway", low=0.0, high=0.5, probability=0.7)
        return Review(
            diagnosis="as told",
            changes=tuple(Change(parameter=p, value=v, reason="why") for p, v in wanted.items()),
            predictions=(foretold,),
            confidence=0.5,
        )


@pytest.fixture
def never_passing(tmp_path: Path) -> Path:
    """A run that begins well and can never pass: one gate asks for too much."""
    path = tmp_path / "budget.yaml"
    path.write_text(
        "engine: {kind: scripted}\n"
        "scale: {examples: 120, micro_batch: 32, shard_rows: 50}\n"
        "pilot: {max_rows: 64}\n"
        "thresholds: {pair_acceptance: {min: 0.9999}}\n"
        f"parameters: {{response: {{max_new_tokens: 100, stop: {STOPS!r}}}}}\n".replace("'", '"'),
        encoding="utf-8",
    )
    return path


def worked(
    root: Path, config: Path, monkeypatch: pytest.MonkeyPatch, reviewer: Any
) -> tuple[runner.Ending, tuple[RoundRecord, ...], list[str]]:
    shown: list[str] = []
    loaded = load_config(config)
    _, why = choose_reviewer(loaded.reviewer, loaded.prices, {})
    monkeypatch.setattr("agent.session.choose_reviewer", lambda *_: (reviewer, why))

    def show(event: Any) -> None:
        shown.append(str(event.get("text") or event.get("reason", "")))

    ending = runner.start(root, loaded, "r", show)
    return ending, RunStore.open(root, "r").load_rounds(), shown


def test_a_harmful_round_is_undone_and_the_next_changes_apply_to_the_best(
    tmp_path: Path, never_passing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reviewer = Told(HARM, MILD)
    ending, rounds, shown = worked(tmp_path, never_passing, monkeypatch, reviewer)
    first, harmed, third = rounds[:3]
    assert not harmed.replayed and harmed.params.response.stop == ()
    assert harmed.review is not None and harmed.review.base == 1
    assert [(c.parameter, c.before, c.after) for c in harmed.review.applied] == [
        ("topics", "off", "hints")
    ]
    assert third.params == first.params.replace(MILD)
    assert any("round 2 is undone" in line for line in shown), shown
    assert first.review is not None and first.review.base is None
    assert "round 2 is undone, and round 3 tries 1 change to the setting of round 1" in shown
    told_of_the_money(first, shown)
    told_of_the_rules(rounds, shown)
    assert ending.exit_code == EXIT_CODES[Step.STOP_NO_CHANGE]
    assert "the reviewer recommends no change" in ending.reason
    assert "the best of 3 settings was round" in ending.reason
    assert verify(tmp_path, "r", renders=Kept(most=1)).differing == []


def test_a_stop_string_that_cuts_good_rows_is_refused_with_counts(
    tmp_path: Path, never_passing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scripted model sets no marks in good answers, so here words may be stop strings."""
    monkeypatch.setattr("agent.stops.stop_refusal", lambda text: None)
    asked = {"response.stop": [*STOPS, " and "], "topics": "hints"}
    _, rounds, _ = worked(tmp_path, never_passing, monkeypatch, Told(asked))
    review = rounds[0].review
    assert review is not None and [c.parameter for c in review.applied] == ["topics"]
    (refused,) = review.refused
    found = re.fullmatch(r"stop string ' and ' would cut (\d+) of (\d+) good rows", refused.why)
    assert found is not None and 0 < 0.05 * int(found[2]) < int(found[1]) <= int(found[2])
    assert rounds[1].params.response.stop == tuple(STOPS)


class ToldTwice(Told):
    """Asks again, with a longer request, before it answers."""

    def review(self, learnings: str, rounds: Sequence[RoundRecord], *, pay: Pay) -> Review:
        first = super().review(learnings, rounds, pay=pay)
        with pay(2 * WORST_CASE) as bill:
            bill.cost_micro = COST
        return first


def test_the_most_that_is_recorded_is_that_of_the_first_request(
    tmp_path: Path, never_passing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, rounds, shown = worked(tmp_path, never_passing, monkeypatch, ToldTwice())
    review = rounds[0].review
    assert review is not None and (review.requests, review.cost_usd) == (2, 2 * COST / 1e6)
    assert review.at_most_usd == WORST_CASE / 1e6
    assert any(line.startswith("round 1: request 2, at most $0.0246") for line in shown)


def test_after_a_revert_stored_rows_are_asked_about_the_setting_that_changes_apply_to(
    tmp_path: Path, never_passing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, rounds, _ = worked(tmp_path, never_passing, monkeypatch, Told(HARM))
    first, harmed = rounds
    assert harmed.review is not None and harmed.review.base == 1
    changes = [known.changes for known in harmed.candidates]
    assert changes and all("response.stop" not in c or len(c["response.stop"]) > 4 for c in changes)
    tried = {run.stop for run in harmed.stop_candidates}
    assert tried.isdisjoint(first.params.response.stop), "the base has these already"
    assert all(first.params.replace(c) != first.params for c in changes)


def told_of_the_money(record: RoundRecord, shown: list[str]) -> None:
    assert record.review is not None
    assert record.review.at_most_usd == WORST_CASE / 1e6
    assert record.review.cost_usd == COST / 1e6
    assert any(line.startswith("round 1: request 1, at most $0.0123") for line in shown)


def told_of_the_rules(rounds: Sequence[RoundRecord], shown: list[str]) -> None:
    for number, record in enumerate(rounds, 1):
        if record.review is not None:
            assert record.review.baseline is not None
            alone = recommend(
                [*rounds[: number - 1], record.model_copy(update={"review": None})], max_changes=4
            )
            assert record.review.baseline.review == alone
    opinions = [line for line in shown if line.startswith("the rules would ")]
    assert len(opinions) == sum(record.review is not None for record in rounds)


def test_nothing_on_top_of_an_undone_round_buys_no_second_pilot_of_one_setting(
    tmp_path: Path, never_passing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending, rounds, _ = worked(tmp_path, never_passing, monkeypatch, Told(HARM))
    assert [record.round for record in rounds] == [1, 2]
    assert ending.exit_code == EXIT_CODES[Step.STOP_NO_CHANGE]
    assert "round 2 is undone, and round 1's setting was measured already" in ending.reason
    assert "the best of 2 settings was round 1's" in ending.reason
    assert verify(tmp_path, "r", renders=Kept(most=1)).differing == []


def test_killed_between_review_and_apply_the_same_is_applied(
    tmp_path: Path, never_passing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL with the review in the journal: no second request, the same record."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    worked(whole, never_passing, monkeypatch, Told(HARM, MILD))
    child = os.fork()
    if child == 0:
        applied = reviewing.apply

        def fatal(session: Any, place: Place, show: Any) -> Any:
            if place.round == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return applied(session, place, show)

        reviewing.apply = fatal
        try:
            worked(killed, never_passing, monkeypatch, Told(HARM, MILD))
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    with open_session(killed, "r") as session:
        assert session.has("r02/review")
        assert session.store.load_rounds()[1].review is None
    runner.resume(killed, "r", lambda _: None)
    one, other = (RunStore.open(root, "r").load_rounds() for root in (whole, killed))
    free = {"spend": None}
    assert [r.model_copy(update=free) for r in one] == [r.model_copy(update=free) for r in other]
