"""The whole loop on the scripted engine: pause, approve, scale, publish, kill, resume."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from agent import runner, screens
from agent.config_file import load_config
from agent.errors import ApprovalError, RunError, RunLocked
from agent.lock import RunLock
from agent.money.database import RunDatabase
from agent.policy import Step
from agent.session import open_session
from agent.stages import planning
from agent.store import RunStore
from pipeline.engine import scripted

QUIET: Callable[[Any], None] = lambda event: None  # noqa: E731


@pytest.fixture
def waiting(tmp_path: Path, scripted_yaml: Path) -> Path:
    """A reports folder with a run ``r`` that waits for approval."""
    reports = tmp_path / "reports"
    ending = runner.start(reports, load_config(scripted_yaml), "r", QUIET)
    assert (ending.status, ending.exit_code) == ("waiting", 3), ending.reason
    return reports


def approve(reports: Path, run_id: str, examples: int) -> runner.Ending:
    plan = runner.offer(reports, run_id, examples)
    return runner.approve(reports, run_id, plan.hash[:12], QUIET, accept_shortfall=True)


def test_a_run_fails_first_is_reviewed_and_then_passes(waiting: Path) -> None:
    rounds = RunStore.open(waiting, "r").load_rounds()
    assert len(rounds) >= 2
    assert rounds[0].step == Step.REVIEW
    assert rounds[0].review is not None and rounds[0].review.applied
    assert rounds[-1].step == Step.APPROVE
    gates = [m for m in rounds[-1].metrics if m["verdict"] and m["name"] != "yield"]
    assert {m["verdict"] for m in gates} == {"PASS"}


def test_the_first_round_is_the_unmodified_baseline(waiting: Path, scripted_yaml: Path) -> None:
    first = RunStore.open(waiting, "r").load_rounds()[0].params
    wanted = load_config(scripted_yaml).parameters
    margins = first.model_dump()["critic"]
    assert first.model_dump() | {"critic": None} == wanted.model_dump() | {"critic": None}
    assert margins["instruction_margin"] is not None and margins["pair_margin"] is not None


def test_predictions_are_scored_in_the_round_after(waiting: Path) -> None:
    review = RunStore.open(waiting, "r").load_rounds()[0].review
    assert review is not None
    assert len(review.outcomes) == len(review.review.predictions) > 0
    assert all(outcome.hit is not None for outcome in review.outcomes)


def test_reports_are_written_and_name_every_round(waiting: Path) -> None:
    folder = waiting / "r"
    text = (folder / "report.md").read_text(encoding="utf-8")
    for record in RunStore.open(waiting, "r").load_rounds():
        assert (folder / f"round-{record.round:02d}.md").is_file()
        assert f"round-{record.round:02d}.md" in text
    assert (folder / "plots" / "metrics.png").read_bytes().startswith(b"\x89PNG")


def test_while_scale_runs_nothing_waits(waiting: Path) -> None:
    seen: set[str] = set()

    def look(event: Any) -> None:
        if event["kind"] == "wave":
            run = RunStore.open(waiting, "r").load_run()
            seen.add(f"{run.status}: {run.reason}")

    plan = runner.offer(waiting, "r", 120)
    ending = runner.approve(waiting, "r", plan.hash, look, accept_shortfall=True)
    assert ending.status == "done"
    assert seen == {f"running: plan {plan.hash[:12]} is approved for 120 rows"}


def test_an_approved_plan_becomes_a_data_set_that_pyarrow_opens(waiting: Path) -> None:
    ending = approve(waiting, "r", 120)
    assert ending.exit_code == 0, ending.reason
    folder = waiting / "r" / "dataset"
    tables = [pq.read_table(path) for path in sorted((folder / "data").glob("*.parquet"))]
    assert [t.num_rows for t in tables] == [50, 50, 20]
    instructions = [i for t in tables for i in t["instruction"].to_pylist()]
    assert len({i.casefold() for i in instructions}) == 120
    lines = (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["instruction"] for line in lines] == instructions
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["rows"] == 120
    assert {f["path"] for f in manifest["files"]} >= {"README.md", "train.jsonl"}


def test_an_approval_is_for_one_plan_and_counts_once(waiting: Path) -> None:
    plan = runner.offer(waiting, "r", 120)
    with pytest.raises(ApprovalError, match="no plan of this run begins"):
        runner.approve(waiting, "r", "0" * 12, QUIET)
    runner.approve(waiting, "r", plan.hash, QUIET, accept_shortfall=True)
    for late in (
        lambda: runner.approve(waiting, "r", plan.hash, QUIET),
        lambda: runner.offer(waiting, "r", 50),
        lambda: runner.reject(waiting, "r", "too late", QUIET),
    ):
        with pytest.raises(RunError, match="does not wait"):
            late()


def test_a_refused_yes_leaves_the_run_waiting(
    waiting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = runner.offer(waiting, "r", 120)
    with monkeypatch.context() as patch:
        patch.setattr("agent.stages.planning.prompts_digest", lambda: "edited")
        with pytest.raises(ApprovalError, match="prompts_digest changed"):
            runner.approve(waiting, "r", old.hash, QUIET, accept_shortfall=True)
        renewed = runner.offer(waiting, "r", 120)
        assert renewed.hash != old.hash
        ending = runner.approve(waiting, "r", renewed.hash, QUIET, accept_shortfall=True)
    assert ending.exit_code == 0, ending.reason


def test_what_changes_during_scale_ends_it_and_keeps_its_rows(
    waiting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = runner.offer(waiting, "r", 120)
    asked = [0]

    def edited_later() -> str:
        asked[0] += 1
        return plan.prompts_digest if asked[0] < 4 else "edited"

    monkeypatch.setattr("agent.stages.planning.prompts_digest", edited_later)
    ending = runner.approve(waiting, "r", plan.hash, QUIET, accept_shortfall=True)
    assert ending.status == "done_short" and "prompts_digest changed" in ending.reason
    assert (waiting / "r" / "dataset" / "train.jsonl").stat().st_size > 0


@pytest.mark.parametrize(
    ("field", "what"),
    [("digest", "the model's weights"), ("device", "the device"), ("dtype", "the number format")],
)
def test_another_engine_than_the_approved_one_ends_scale(
    waiting: Path, monkeypatch: pytest.MonkeyPatch, field: str, what: str
) -> None:
    plan = runner.offer(waiting, "r", 120)
    changed = replace(scripted.INFO, **{field: "another"})
    monkeypatch.setattr("pipeline.engine.scripted.INFO", changed)
    ending = runner.approve(waiting, "r", plan.hash, QUIET, accept_shortfall=True)
    assert f"{what} changed since plan" in ending.reason and "found 'another'" in ending.reason


def test_a_run_that_was_stopped_where_it_waits_says_that_it_waits(waiting: Path) -> None:
    with open_session(waiting, "r") as session:
        session.note("drained", "stopped at a border; continue with: resume r")
    ending = runner.resume(waiting, "r", QUIET)
    assert (ending.status, ending.exit_code) == ("waiting", 3)
    assert RunStore.open(waiting, "r").load_run().status == "waiting"


def test_a_yes_that_a_dying_process_recorded_is_acted_on(waiting: Path) -> None:
    plan = runner.offer(waiting, "r", 120)
    with open_session(waiting, "r") as session:
        approval = session.approvals.approve(plan.hash)
        session.approvals.authorise(approval, session.ledger)
    with pytest.raises(RunError, match="approved"):
        runner.offer(waiting, "r", 50)
    assert runner.resume(waiting, "r", QUIET).status == "done"


def test_a_plan_that_promises_too_little_needs_an_explicit_yes(
    waiting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreseen = planning.forecast

    def poor(rows: Any, *, attempts: int, target: int) -> Any:
        found = foreseen(rows, attempts=attempts, target=target)
        return replace(found, expected=target - 1.0, attempts_needed=None)

    monkeypatch.setattr(planning, "forecast", poor)
    plan = runner.offer(waiting, "r", 120)
    assert plan.short and plan.attempts == plan.max_attempts
    with pytest.raises(ApprovalError, match="accept-shortfall"):
        runner.approve(waiting, "r", plan.hash, QUIET)


def test_rejecting_ends_the_run_and_keeps_everything(waiting: Path) -> None:
    ending = runner.reject(waiting, "r", "too dear", QUIET)
    assert (ending.status, ending.exit_code) == ("stop_rejected", 8)
    assert "too dear" in (waiting / "r" / "report.md").read_text(encoding="utf-8")


def test_a_second_process_is_refused(waiting: Path) -> None:
    with RunLock(waiting / "r" / "run.lock"), pytest.raises(RunLocked, match=str(os.getpid())):
        runner.resume(waiting, "r", QUIET)


def test_a_process_that_was_overtaken_can_write_nothing(waiting: Path) -> None:
    folder = waiting / "r"

    def everything() -> dict[Path, bytes]:
        files = [p for p in folder.rglob("*") if p.is_file() and "sqlite" not in p.name]
        return {path: path.read_bytes() for path in files}

    with open_session(waiting, "r") as session, RunDatabase(folder / "run.sqlite") as another:
        another.claim()
        before = everything()
        record = session.store.load_rounds()[0]
        writes: list[Callable[[], object]] = [
            lambda: session.note("done", "not so"),
            lambda: session.store.save_round(record.model_copy(update={"reason": "not so"})),
            lambda: session.store.put_artifact([{"not": "so"}]),
            session.write_reports,
        ]
        for write in writes:
            with pytest.raises(RunLocked):
                write()
        with pytest.raises(RunLocked), session.store.replacing_folder("dataset") as published:
            (published / "train.jsonl").write_text("not so", encoding="utf-8")
        assert everything() == before


def test_a_finished_run_stays_finished_without_its_checkpoints(waiting: Path) -> None:
    assert approve(waiting, "r", 120).status == "done"
    rows = (waiting / "r" / "dataset" / "train.jsonl").read_bytes()
    for path in (waiting / "r").glob("checkpoints.sqlite*"):
        path.unlink()
    ending = runner.resume(waiting, "r", QUIET)
    assert (ending.status, ending.exit_code) == ("done", 0)
    assert (waiting / "r" / "dataset" / "train.jsonl").read_bytes() == rows


def test_a_plan_in_use_outlives_the_checkpoints(tmp_path: Path, scripted_yaml: Path) -> None:
    """Its money is set aside, so that there is none left for planning again."""
    reports = tmp_path / "reports"
    config = load_config(scripted_yaml, limit_usd=0.0025)
    assert runner.start(reports, config, "r", QUIET).status == "waiting"
    plan = runner.offer(reports, "r", 120)
    with open_session(reports, "r") as session:
        session.approvals.authorise(session.approvals.approve(plan.hash), session.ledger)
    for path in (reports / "r").glob("checkpoints.sqlite*"):
        path.unlink()
    ending = runner.resume(reports, "r", QUIET)
    assert ending.status == "done", ending.reason


def test_the_ledger_holds_every_cent(waiting: Path) -> None:
    approve(waiting, "r", 120)
    with open_session(waiting, "r") as session:
        totals = session.ledger.totals()
        assert totals.pending == 0
        assert totals.confirmed == sum(s.confirmed for s in session.ledger.by_stage())
        assert {s.stage for s in session.ledger.by_stage()} >= {"preflight", "pilot", "scale"}


def test_a_tiny_budget_is_a_planned_ending(tmp_path: Path, scripted_yaml: Path) -> None:
    config = load_config(scripted_yaml, limit_usd=0.0001)
    ending = runner.start(tmp_path / "reports", config, "poor", QUIET)
    assert (ending.status, ending.exit_code) == ("stop_budget", 4)
    assert "$0.000100 left under the cap of $0.000100, less $0.0000" in ending.reason
    assert (
        "  0 rounds decided; $0.00 of $0.000100 spent;"
        in screens.status(tmp_path / "reports", "poor").text
    )


def test_a_checkpoint_is_small_and_holds_no_samples(waiting: Path) -> None:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(waiting / "r" / "checkpoints.sqlite")) as connection:
        rows = connection.execute("SELECT checkpoint FROM checkpoints").fetchall()
    assert rows and max(len(r[0]) for r in rows) < 4096
    instruction = RunStore.open(waiting, "r").load_rounds()[0].random_samples[0]["instruction"]
    assert not any(instruction.encode() in r[0] for r in rows)


def test_a_run_that_was_killed_while_it_was_made_can_be_resumed(
    tmp_path: Path, scripted_yaml: Path
) -> None:
    from agent.session import create_run

    reports = tmp_path / "reports"
    (reports / "r").mkdir(parents=True)
    create_run(reports, "r", load_config(scripted_yaml))
    assert not (reports / "r" / "run.sqlite").exists()
    assert runner.resume(reports, "r", QUIET).status == "waiting"
    with pytest.raises(RunError, match="exists already"):
        create_run(reports, "r", load_config(scripted_yaml))


@pytest.mark.parametrize("damage", [b"", b"not a database at all, whatever its name says" * 40])
def test_damaged_checkpoints_are_set_aside_and_nothing_is_paid_again(
    waiting: Path, damage: bytes
) -> None:
    with open_session(waiting, "r") as session:
        before = session.ledger.totals().confirmed
    for path in (waiting / "r").glob("checkpoints.sqlite*"):
        path.unlink()
    (waiting / "r" / "checkpoints.sqlite").write_bytes(damage)
    assert runner.resume(waiting, "r", QUIET).status == "waiting"
    with open_session(waiting, "r") as session:
        assert session.ledger.totals().confirmed == before


class TestKilled:
    """A process killed at any moment resumes to the same data set."""

    def start(self, reports: Path, config: Path, *command: str) -> subprocess.Popen[bytes]:
        arguments = [sys.executable, "-m", "agent", *command, "--reports", str(reports)]
        if command[0] == "run":
            arguments += ["--config", str(config)]
        return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill_when(self, process: subprocess.Popen[bytes], artifacts: Path, count: int) -> None:
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if artifacts.is_dir() and len(list(artifacts.glob("*.jsonl"))) >= count:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
        process.wait(60)

    def test_kill_9_in_pilot_and_scale_changes_nothing(
        self, tmp_path: Path, scripted_yaml: Path, waiting: Path
    ) -> None:
        reference = approve(waiting, "r", 120)
        reports = tmp_path / "killed"
        self.kill_when(
            self.start(reports, scripted_yaml, "run", "--run-id", "r"),
            reports / "r" / "artifacts", 4,
        )  # fmt: skip
        ending = runner.resume(reports, "r", QUIET)
        assert ending.status == "waiting"
        plan = runner.offer(reports, "r", 120)
        done = len(list((reports / "r" / "artifacts").glob("*.jsonl")))
        self.kill_when(
            self.start(reports, scripted_yaml, "approve", "r", "--plan", plan.hash,
                       "--accept-shortfall"),
            reports / "r" / "artifacts", done + 2,
        )  # fmt: skip
        ending = self.finish(reports, plan.hash)
        assert ending.status == reference.status
        same = [path / "r" / "dataset" / "train.jsonl" for path in (waiting, reports)]
        assert same[0].read_bytes() == same[1].read_bytes()
        with open_session(reports, "r") as session:
            assert session.ledger.totals().pending == 0

    def finish(self, reports: Path, plan: str) -> runner.Ending:
        ending = runner.resume(reports, "r", QUIET)
        if ending.status == "waiting":
            return runner.approve(reports, "r", plan, QUIET, accept_shortfall=True)
        return ending


@pytest.mark.parametrize(
    ("wish", "measured", "examples", "rows"),
    [
        (40, 256, 15_000, 40),
        ("auto", 256, 15_000, 256),
        ("auto", 256, 200, 100),
        ("auto", 256, 10, 16),
        ("auto", None, 15_000, 96),
    ],
)
def test_a_micro_batch_of_scale_is_what_was_measured_but_not_most_of_the_rows(
    wish: Any, measured: int | None, examples: int, rows: int
) -> None:
    assert planning._micro_batch(wish, measured, examples=examples) == rows
