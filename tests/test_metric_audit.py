"""agent/stages/metric_audit.py: "this metric is wrong" is put to the test, and has consequences."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import round_record
from renders import Kept

from agent import runner
from agent.config import ThresholdsSection
from agent.config_file import load_config
from agent.policy import Step
from agent.records import RoundRecord
from agent.review_records import MetricAudit, Review
from agent.reviewers import choose_reviewer
from agent.reviewers.base import Pay
from agent.reviewers.rules import recommend
from agent.session import Session, open_session
from agent.stages import metric_audit
from agent.stages.metric_audit import audit_metrics
from agent.stages.preflight import certificates
from agent.store import RunStore
from agent.verify.check import verify
from pipeline.detection.detectors import DETECTORS, Detector
from pipeline.detection.own_plants import FEWEST, own_pairs
from pipeline.engine import scripted_text
from pipeline.metrics import METRICS
from pipeline.types import Sample

GATES = ThresholdsSection.model_fields.keys() - {"alpha", "token_limit"}
"""Metrics of gates that are judged, not counted: what can be withdrawn decides a pass."""
DISTRUSTED = ("runaway", "runaway", "pair_acceptance", "yield", "\x1b[31mnonsense" * 9)


class Distrusting:
    """Recommends what the rules do, and distrusts metrics after the first round."""

    name = "rules"

    def __init__(self, *distrusted: str) -> None:
        self.distrusted = distrusted

    def review(self, learnings: str, rounds: Sequence[RoundRecord], *, pay: Pay) -> Review:
        told = self.distrusted if len(rounds) == 1 else ()
        return recommend(rounds, max_changes=4).model_copy(update={"distrusted_metrics": told})


def blind_to_its_own() -> Detector:
    """A detector of run-ons that passes every shipped control, and misses most in own answers."""
    sound = DETECTORS["runaway"]

    def check(sample: Sample, stop: Sequence[str]) -> bool:
        own = any(fact in (sample.raw or "") for fact in scripted_text._FACTS)
        seen = "Instruction:" in (sample.raw or "") or not own
        return seen and sound.check(sample, stop)

    return replace(sound, check=check)


def worked(
    root: Path, config: Path, monkeypatch: pytest.MonkeyPatch, *distrusted: str
) -> tuple[runner.Ending, tuple[RoundRecord, ...], list[str]]:
    shown: list[str] = []
    _, why = choose_reviewer(load_config(config).reviewer, load_config(config).prices, {})
    chosen = (Distrusting(*distrusted), why)
    monkeypatch.setattr("agent.session.choose_reviewer", lambda *_: chosen)

    def show(event: Any) -> None:
        shown.append(str(event.get("text", "")))

    ending = runner.start(root, load_config(config), "r", show)
    return ending, RunStore.open(root, "r").load_rounds(), shown


def audits(record: RoundRecord) -> dict[str, MetricAudit]:
    assert record.review is not None
    return {audit.metric: audit for audit in record.review.audits}


def test_sound_metrics_stand_and_distrust_changes_no_verdict(
    tmp_path: Path, scripted_yaml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, trusted, _ = worked(tmp_path / "trusted", scripted_yaml, monkeypatch)
    ending, rounds, shown = worked(tmp_path / "not", scripted_yaml, monkeypatch, *DISTRUSTED)
    assert ending.status == "waiting", ending.reason
    found = audits(rounds[0])
    assert [a.outcome for a in found.values()] == [
        "stands", "stands", "not audited", "not audited",
    ]  # fmt: skip
    assert "faults planted in" in found["runaway"].found
    assert any(line.startswith("audit of runaway: stands: caught") for line in shown)
    assert all(len(name) <= 64 for name in found)
    assert [r.metrics for r in rounds] == [r.metrics for r in trusted]
    assert verify(tmp_path / "not", "r", renders=Kept(most=1)).differing == []
    with open_session(tmp_path / "not", "r") as session:
        every = audit_metrics(session, rounds[-1], METRICS)
        assert every == audit_metrics(session, rounds[-1], METRICS), "the same each time"
        audited_on_few_answers(session, rounds[-1], monkeypatch)
    assert [audit.metric for audit in every] == list(METRICS)
    assert {audit.metric for audit in every if audit.outcome == "stands"} == GATES == {
        "runaway", "repetition", "truncated", "delimiter_leak", "empty",
        "instruction_acceptance", "pair_acceptance",
    }  # fmt: skip


def audited_on_few_answers(
    session: Session, record: RoundRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One plant fewer than are needed says nothing; four answers hold 19, five 21."""

    def audited(most: int) -> MetricAudit:
        with monkeypatch.context() as patch:
            patch.setattr(metric_audit, "own_pairs", lambda *a, **k: own_pairs(*a, **k)[:most])
            return audit_metrics(session, record, ["empty"])[0]

    few, enough = audited(4), audited(5)
    assert (few.outcome, enough.outcome) == ("not audited", "stands")
    assert few.found.startswith(f"{FEWEST - 1} faults could be planted in 4 answers")
    assert f"of {FEWEST + 1} faults planted in 5 answers" in enough.found


def test_a_metric_that_misses_its_own_faults_is_withdrawn_and_never_passes(
    tmp_path: Path, scripted_yaml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DETECTORS, "runaway", blind_to_its_own())
    ending, rounds, _ = worked(tmp_path / "trusted", scripted_yaml, monkeypatch)
    assert ending.status == "waiting", "a certificate that nobody doubts goes on"
    ending, rounds, _ = worked(tmp_path / "not", scripted_yaml, monkeypatch, "runaway")
    assert audits(rounds[0])["runaway"].outcome == "withdrawn"
    assert "faults planted in" in audits(rounds[0])["runaway"].found
    (only,) = rounds
    assert only.step == Step.REVIEW and only.review is not None and only.review.applied
    assert ending.status == "stop_no_change", "a pilot that cannot pass is not bought"
    assert ending.reason.startswith("no pass can be certified any more")
    before = only.metric("runaway")
    assert before is not None and not before["reason"].startswith("uncertified")
    with open_session(tmp_path / "not", "r") as session:
        assert certificates(session, only.params, before=1)["runaway"].certified
        later = certificates(session, only.params)["runaway"]
    assert not later.certified
    assert later.reason.startswith("withdrawn by the audit after round 1: caught ")
    assert verify(tmp_path / "not", "r", renders=Kept(most=1)).differing == []
    done_again(tmp_path / "not" / "r")


def done_again(folder: Path) -> None:
    """A run that lost its checkpoints is judged again as it was, whatever was stored later."""
    with open_session(folder.parent, "r") as session:
        session.note("running", "about to be killed")
    before = {path.name: path.read_bytes() for path in (folder / "rounds").glob("*.json")}
    for path in folder.glob("checkpoints.sqlite*"):
        path.unlink()
    runner.resume(folder.parent, "r", lambda _: None)
    after = {path.name: path.read_bytes() for path in (folder / "rounds").glob("*.json")}
    assert after == before


def test_an_uncertified_metric_is_not_audited() -> None:
    record = round_record()
    table = tuple(m | {"reason": "uncertified: 3 of 9 caught"} for m in record.metrics)
    doubted = record.model_copy(update={"metrics": table})
    (audit,) = audit_metrics(None, doubted, ["runaway"])  # type: ignore[arg-type]
    assert audit.outcome == "not audited" and "already" in audit.found
