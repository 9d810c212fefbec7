"""Critics within a run: bought once, used by every stage, shown in reports."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.config_file import load_config
from agent.learnings import Terms, learnings
from agent.records import RoundRecord
from agent.report.critics import critic_words, fault_table
from agent.report.render import round_report
from agent.session import Session, create_run, open_session
from agent.stages import measuring, pilot, preflight
from agent.stages.judges import calibration, probe
from agent.stages.pilot import Place
from agent.store import RunStore
from pipeline.engine.scripted import ScriptedEngine
from pipeline.types import Score, ScoreRequest

EVERY = {"label", "lift", "combined"}


def quiet(event: Any) -> None:
    """Nobody looks."""


class Blind(ScriptedEngine):
    """Scores every text alike."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[Score, ...]]:
        return [tuple(Score(-2.0, 1) for _ in r.continuations) for r in requests]


def first_round(session: Session) -> RoundRecord:
    """Preflight, the first micro-batch, and the record of the round that fails with it."""
    _, params = preflight.check(session, quiet)
    place = Place(1, params, 0)
    pilot.buy(session, place, quiet)
    measuring.judge(session, Place(1, params, 1), quiet)
    return session.store.load_rounds()[0]


@pytest.fixture
def reports(tmp_path: Path, scripted_yaml: Path) -> Path:
    create_run(tmp_path / "reports", "r", load_config(scripted_yaml))
    return tmp_path / "reports"


def test_critics_are_named_in_preflight_and_every_row_is_scored_by_all(reports: Path) -> None:
    with open_session(reports, "r", engine=lambda _: ScriptedEngine()) as session:
        record = first_round(session)
        rows = pilot.samples(session, Place(1, pilot.keep_params(session, record.params), 1))
        critic = record.params.critic
        assert calibration(session).deciding(critic).pair == (critic.pair,)
        stored = probe(session)
    assert "auto" not in {critic.instruction, critic.pair}
    assert all(set(s.instruction_scores) == EVERY for s in rows if s.instruction_score is not None)
    assert all(set(s.pair_scores) == EVERY for s in rows if s.clean)
    judged = [s for s in stored.samples if s.clean]
    assert len(judged) >= 30 and all(set(s.pair_scores) == EVERY for s in judged)
    assert critic.pair_margin is not None and record.critics is not None
    used = record.critics["used"]["pair"]
    assert used["source"] == "the run's own rows" and used["margin"] == critic.pair_margin
    certified = {c["name"]: c["certified"] for c in record.certificates}
    assert certified["pair_acceptance"] and certified["instruction_acceptance"]


def test_preflight_is_bought_once(reports: Path) -> None:
    with open_session(reports, "r", engine=lambda _: ScriptedEngine()) as session:
        before = preflight.check(session, quiet)
    never = ScriptedEngine(fail_after=0)
    with open_session(reports, "r", engine=lambda _: never) as session:
        assert preflight.check(session, quiet) == before


def test_acceptance_by_critics_that_see_nothing_never_passes(reports: Path) -> None:
    with open_session(reports, "r", engine=lambda _: Blind()) as session:
        record = first_round(session)
    for name in ("instruction_acceptance", "pair_acceptance"):
        metric = record.metric(name)
        assert metric is not None and metric["verdict"] == "INSUFFICIENT"
        assert metric["value"] is None and "uncertified" in metric["reason"]
    assert record.funnel["answered"] == record.funnel["distinct"], "it drops nothing either"
    assert all("acceptance is unmeasured" in words for words in critic_words(record))


def test_reports_say_what_critics_see_and_which_judge(reports: Path) -> None:
    with open_session(reports, "r", engine=lambda _: ScriptedEngine()) as session:
        record = first_round(session)
    store = RunStore.open(reports, "r")
    people = round_report((record,), store.load_run())
    reviewer = learnings((record,), Terms(1.0, 0.1, max_changes=4)).text
    for text in (people, reviewer):
        assert "Which faults the critics see" in text and fault_table(record) in text
        assert all(words in text for words in critic_words(record))
        assert "not whether it is correct" in text
    assert record.critics is not None
    shown = fault_table(record)
    for found in record.critics["faults"]:
        assert f"{found['area']:.2f} ({found['low']:.2f} to {found['high']:.2f})" in shown
    assert {"own shuffled", "own cut", "own hot", "off by one detail"} <= {
        line.split("|")[2].strip() for line in shown.splitlines()[2:]
    }


def test_a_record_without_critics_shows_none() -> None:
    from builders import story

    assert fault_table(story()[0]) == "" and critic_words(story()[0]) == []
