"""Replay inside the loop: what fails on stored rows is not bought, everything else is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from agent import runner
from agent.config_file import load_config
from agent.policy import EXIT_CODES, MOST_REPLAYED, Step, after_replay
from agent.records import RoundRecord, pilots
from agent.review_records import Change, Prediction, Review
from agent.reviewers.base import Pay
from agent.session import open_session
from agent.stages import replaying
from agent.stages.pilot import Place, keep_params
from agent.store import RunStore
from pipeline.types import Metric, Verdict

STOPS: Final = ["\nInstruction", "\nQ:", "\n###", "\nUser:"]
LOW: Final = {"response.stop": STOPS, "response.max_new_tokens": 20}
"""Stop strings that work, under a cap that most answers hit."""
HIGH: Final = {"response.max_new_tokens": 40, "response.temperature": 0.5}
"""What no stored rows can answer for."""
FORETOLD: Final = Prediction(metric="token_limit", low=0.0, high=0.1, probability=0.6)
Proposal = dict[str, Any]


class Proposing:
    """A reviewer that proposes one thing after the other, and then says stop."""

    name = "proposing"

    def __init__(self, proposals: Sequence[Proposal]) -> None:
        self.proposals = proposals

    def review(self, learnings: str, rounds: Sequence[RoundRecord], *, pay: Pay) -> Review:
        made = len(rounds) - 1
        left = made < len(self.proposals)
        wanted = self.proposals[made] if left else {}
        changes = tuple(Change(parameter=p, value=v, reason="why") for p, v in wanted.items())
        return Review(
            diagnosis="tried in order", changes=changes, predictions=(FORETOLD,) if left else (),
            confidence=0.5, stop=not left,
        )  # fmt: skip


def worked(
    root: Path, config: Path, monkeypatch: pytest.MonkeyPatch, *proposals: Proposal
) -> tuple[runner.Ending, tuple[RoundRecord, ...]]:
    with config.open("a", encoding="utf-8") as file:
        file.write("parameters: {response: {max_new_tokens: 40}}\n")
    reviewer = Proposing(proposals)
    monkeypatch.setattr("agent.session.choose_reviewer", lambda *_: (reviewer, "proposing"))
    ending = runner.start(root, load_config(config), "r", lambda _: None)
    return ending, RunStore.open(root, "r").load_rounds()


def test_a_proposal_that_fails_on_stored_rows_is_not_bought(
    tmp_path: Path, scripted_yaml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that does not is, with the alpha and the seeds of a run without the other."""
    ending, rounds = worked(tmp_path, scripted_yaml, monkeypatch, LOW, HIGH)
    first, second, third = rounds[:3]
    assert [r.replayed for r in rounds[:3]] == [False, True, False], ending.reason
    assert (second.micro_batches, second.tokens, second.step) == (0, 0, Step.REVIEW)
    assert second.spend.engine_seconds == 0 and second.spend.total_usd == 0
    assert "no pilot is bought" in second.reason
    caps = {c.changes.get("response.max_new_tokens") for c in second.candidates}
    assert {10, 25, 30, 40} <= caps, "a replayed round is told of other caps too"
    limit = second.metric("token_limit")
    assert limit is not None and limit["verdict"] == "FAIL" and limit["n"] > 20
    unmeasured = second.metric("yield")
    assert unmeasured is not None and unmeasured["value"] is None
    assert first.review is not None and first.review.replay is not None
    said = first.review.replay
    assert (said.bought, said.sources, said.failed) == (False, ("open probe", "round 1"), (
        "token_limit",
    ))  # fmt: skip
    assert second.review is not None and second.review.replay is not None
    assert second.review.replay.bought and third.micro_batches > 0
    assert pilots(rounds) == len(rounds) - 1
    told_in_reports(tmp_path / "r")


def told_in_reports(folder: Path) -> None:
    """People and the reviewer are told which round was replayed, and what a replay said."""
    report, first, second = (
        (folder / name).read_text(encoding="utf-8")
        for name in ("report.md", "round-01.md", "round-02.md")
    )
    said = first.partition("### What a replay said of what it proposes")[2]
    assert "token_limit" in said and "**no pilot was bought**" in said
    assert "Replayed: " in second and "replayed on stored rows" in second
    assert "Round 2 (replayed)" in report and "(1 replayed)" in report
    asked = (folder / "rounds" / "02-learnings.md").read_text(encoding="utf-8")
    assert "These settings were replayed, not tried" in asked
    assert "fails: token_limit" in asked and "no pilot was bought" in asked


def test_alpha_and_rounds_are_spent_on_pilots_alone(
    tmp_path: Path, scripted_yaml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted_yaml.write_text(
        scripted_yaml.read_text(encoding="utf-8") + "pilot: {max_rounds: 2}\n", encoding="utf-8"
    )
    seen: list[tuple[int, float]] = []
    measured = replaying.rules

    def watched(bought: Any, params: Any, *, round_: int, before: int | None) -> Any:
        found = measured(bought, params, round_=round_, before=before)
        seen.append((round_, found.alpha))
        return found

    monkeypatch.setattr("agent.stages.measuring.rules", watched)
    monkeypatch.setattr("agent.stages.replaying.rules", watched)
    ending, rounds = worked(tmp_path, scripted_yaml, monkeypatch, LOW, HIGH)
    assert [r.replayed for r in rounds] == [False, True, False]
    assert {index for index, _ in seen} == {1, 2}, "the third round is the second pilot"
    assert rounds[2].step in (Step.APPROVE, Step.STOP_ROUNDS), ending.reason


def test_a_proposal_that_replay_cannot_answer_is_bought(
    tmp_path: Path, scripted_yaml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, rounds = worked(tmp_path, scripted_yaml, monkeypatch, LOW | {"response.temperature": 0.5})
    assert not rounds[1].replayed and rounds[1].micro_batches > 0
    assert rounds[0].review is not None and rounds[0].review.replay is not None
    said = rounds[0].review.replay
    assert said.bought and said.sources == () and said.metrics == ()
    assert said.refused["open probe"] == ("response.temperature: it draws other tokens",)


def test_three_in_a_row_end_the_run(
    tmp_path: Path, scripted_yaml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending, rounds = worked(
        tmp_path, scripted_yaml, monkeypatch,
        LOW, {"response.max_new_tokens": 19}, {"response.max_new_tokens": 18}, HIGH,
    )  # fmt: skip
    assert [r.replayed for r in rounds] == [False, True, True, True]
    assert rounds[-1].step == Step.STOP_NO_CHANGE
    assert ending.exit_code == EXIT_CODES[Step.STOP_NO_CHANGE]
    assert "3 proposals in a row fail on stored rows" in ending.reason


def test_asked_again_it_says_the_same(
    tmp_path: Path, scripted_yaml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a kill at any instant: the node runs again on what is in the folder."""
    worked(tmp_path, scripted_yaml, monkeypatch, LOW)
    store = RunStore.open(tmp_path, "r")
    before = {p.name: p.read_bytes() for p in (store.path / "rounds").glob("*.json")}
    with open_session(tmp_path, "r") as session:
        second = store.load_rounds()[1]
        place = Place(2, keep_params(session, second.params), 0)
        decision = replaying.trial(session, place, lambda _: None)
    assert decision.step is Step.REVIEW and decision.reason == second.reason
    again = RunStore.open(tmp_path, "r").load_rounds()
    assert (
        again[0].model_dump_json()
        == RoundRecord.model_validate_json(before["01.json"]).model_dump_json()
    )
    assert again[1] == second.model_copy(update={"review": None})


def metric(verdict: Verdict | None) -> Metric:
    return Metric("runaway", 0.4, 40, 100, 0.3, 0.5, "< 0.05", verdict, "40 of 100")


@pytest.mark.parametrize(
    ("metrics", "in_a_row", "step"),
    [
        ((), 0, Step.CONTINUE),
        ((metric("INSUFFICIENT"),), 0, Step.CONTINUE),
        ((metric("PASS"),), 2, Step.CONTINUE),
        ((metric("PASS"), metric("FAIL")), 0, Step.REVIEW),
        ((metric("FAIL"),), MOST_REPLAYED - 2, Step.REVIEW),
        ((metric("FAIL"),), MOST_REPLAYED - 1, Step.STOP_NO_CHANGE),
    ],
    ids=["nothing to ask", "open", "passes", "fails", "twice", "three times"],
)
def test_after_replay(metrics: tuple[Metric, ...], in_a_row: int, step: Step) -> None:
    decision = after_replay(metrics, sources=("open probe",), rows=100, in_a_row=in_a_row)
    assert decision.step is step
    assert step is Step.CONTINUE or "runaway 40.0% of 100 (wanted < 0.05): fail" in decision.reason
