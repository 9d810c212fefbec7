"""What the check of the need does to a run: its record, its report, its approval."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent import runner, screens
from agent.config_file import load_config
from agent.errors import ApprovalError
from agent.session import open_session
from agent.stages.need import NEED_OP
from agent.store import RunStore
from pipeline.engine import scripted
from pipeline.types import Completion, GenRequest

QUIET: Callable[[Any], None] = lambda event: None  # noqa: E731


@pytest.fixture
def unneeded(tmp_path: Path, scripted_yaml: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run ``r`` that waits for approval, of a model that answers without examples."""
    complete = scripted._complete

    def able(request: GenRequest) -> Completion:
        return complete(request if request.prefix else replace(request, prefix="as after examples"))

    monkeypatch.setattr(scripted, "_complete", able)
    reports = tmp_path / "reports"
    ending = runner.start(reports, load_config(scripted_yaml), "r", QUIET)
    assert (ending.status, ending.exit_code) == ("waiting", 3), ending.reason
    return reports


def test_data_that_is_hardly_needed_takes_an_explicit_yes(unneeded: Path) -> None:
    plan = runner.offer(unneeded, "r", 120)
    with pytest.raises(ApprovalError, match="--accept-need"):
        runner.approve(unneeded, "r", plan.hash, QUIET, accept_shortfall=True)
    assert RunStore.open(unneeded, "r").load_run().status == "waiting"
    ending = runner.approve(
        unneeded, "r", plan.hash, QUIET, accept_shortfall=True, accept_need=True
    )
    assert ending.status == "done"


def test_the_warning_stands_in_plan_and_reports(unneeded: Path) -> None:
    shown = screens.plan(unneeded, "r", runner.offer(unneeded, "r", 120))
    assert "WARNING" in shown.text and "--accept-need" in shown.text
    run = RunStore.open(unneeded, "r").load_run()
    assert run.plan is not None and "--accept-need" in run.plan["accept"]
    yes = " ".join((f"approve r --plan {run.plan['hash'][:16]}", *run.plan["accept"]))
    assert yes in screens.status(unneeded, "r").text
    assert yes.replace(run.plan["hash"][:16], run.plan["hash"]) in (
        unneeded / "r" / "report.md"
    ).read_text(encoding="utf-8")
    assert "without examples" in shown.data["need"]
    for name in ("report.md", "round-01.md"):
        text = (unneeded / "r" / name).read_text(encoding="utf-8")
        assert "## Need" in text and "**Warning: without examples" in text


def test_a_model_that_needs_examples_is_not_warned_of(tmp_path: Path, scripted_yaml: Path) -> None:
    reports = tmp_path / "reports"
    runner.start(reports, load_config(scripted_yaml), "r", QUIET)
    need = RunStore.open(reports, "r").load_run().need
    assert need is not None and need["gap"] > 0.1 and need["warning"] == ""
    text = (reports / "r" / "report.md").read_text(encoding="utf-8")
    assert "## Need" in text and "--accept-need" not in text
    with open_session(reports, "r") as session:
        assert session.paid(NEED_OP)["need"]["gap"] == need["gap"]
        assert {row.stage for row in session.ledger.rows() if row.op_id == NEED_OP} == {"preflight"}


def test_without_a_certified_critic_nothing_is_bought(tmp_path: Path) -> None:
    path = tmp_path / "budget.yaml"
    path.write_text(
        "engine: {kind: scripted}\ncritic: {max_false_accept: 0.001}\npilot: {max_rounds: 1}\n",
        encoding="utf-8",
    )
    runner.start(tmp_path / "reports", load_config(path), "r", QUIET)
    with open_session(tmp_path / "reports", "r") as session:
        assert session.journal.find(NEED_OP) is None
        need = session.store.load_run().need
    assert need is not None and need["gap"] is None
    assert "uncertified" in need["reason"]
    assert need["warning"].startswith("the need was not measured: uncertified")
