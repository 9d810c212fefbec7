"""Starting, continuing and answering a run: one invocation of the graph, and how it ended.

Signals are ``signals.py``'s; every way an invocation can end is a value here, with its exit code,
and the error of a run that holds is recorded before it goes on to the caller.
"""

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.config import RunConfig
from agent.errors import AgentError, ApprovalError, RunError, RunLocked
from agent.money.approval import Plan
from agent.policy import EXIT_CODES, WAITS, Step
from agent.session import Session, create_run, open_session
from agent.signals import EXIT, Answers, Interruptible

if TYPE_CHECKING:
    from agent.graph import Machine

WAITING, HELD, DRAINED = 3, 9, EXIT
"""Exit codes of a run that can go on: it waits for approval, holds, or was interrupted."""

Show = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Ending:
    """How one invocation ended."""

    run_id: str
    """The run."""
    status: str
    """waiting, drained, or a :class:`~agent.policy.Step` in small letters."""
    reason: str
    """Why, in a sentence."""
    exit_code: int
    """The process's exit code."""


def make_run_id() -> str:
    """A name for a run: when it began, and four random characters."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def start(root: Path, config: RunConfig, run_id: str, show: Show) -> Ending:
    """Make a run and work on it until it pauses or ends."""
    create_run(root, run_id, config, show=show)
    return resume(root, run_id, show)


def resume(root: Path, run_id: str, show: Show) -> Ending:
    """Work on a run from its last border until it pauses or ends.

    A yes that was recorded by a process which died before it could act on it is acted on now. A
    run that is over stays so, whatever became of its checkpoints.

    Raises:
        AgentError: if the run holds; what was found is in its record.
    """
    with _opened(root, run_id) as (session, machine):
        if not machine.begun and _is_over(session):
            session.write_reports()
            return _ending(session, waiting=False, drained=False)
        return _work(session, machine, show, answer=None)


def _is_over(session: Session) -> bool:
    return session.store.load_run().status.upper() in {step.value for step in EXIT_CODES}


def offer(root: Path, run_id: str, examples: int | None) -> Plan:
    """Offer the plan for ``examples`` rows; None is the configured number.

    Raises:
        RunError: if the run does not wait for an approval.
        RunLocked: if another process works on it.
    """
    from agent.stages.planning import make_plan

    with _waiting(root, run_id) as (session, _):
        plan = make_plan(session, examples or session.config.scale.examples)
        session.approvals.offer(plan)
    return plan


def approve(
    root: Path, run_id: str, prefix: str, show: Show,
    *, accept_shortfall: bool = False, accept_need: bool = False,
) -> Ending:  # fmt: skip
    """Say yes to the offered plan that ``prefix`` names, and work on under it.

    The yes is checked, recorded and used, and its money set aside, before the graph hears of it, so
    that a yes which is refused leaves the run waiting as it was.

    Raises:
        ApprovalError: if the plan may not be approved, promises fewer rows than it is for,
            carries a warning that is not acknowledged, or covers something that has changed since.
        BudgetError: if its maximum no longer fits under the cap.
        RunError: if the run does not wait for an approval.
    """
    from agent.stages.planning import check_unchanged

    with _waiting(root, run_id) as (session, machine):
        plan = session.approvals.plan(prefix)
        if plan.short and not accept_shortfall:
            raise ApprovalError(
                f"the forecast for plan {plan.hash[:12]} is {plan.rows.expected:,.0f} rows "
                f"({plan.rows.low:,.0f} to {plan.rows.high:,.0f}), fewer than the "
                f"{plan.examples:,} it is for: plan fewer, or add --accept-shortfall"
            )
        if plan.need and not accept_need:
            raise ApprovalError(f"plan {plan.hash[:12]}: {plan.need}; to go on, add --accept-need")
        check_unchanged(session, plan)
        approval = session.approvals.approve(plan.hash)
        session.approvals.authorise(approval, session.ledger)
        return _work(session, machine, show, answer=approval)


def reject(root: Path, run_id: str, reason: str, show: Show) -> Ending:
    """Record a person's no, which ends the run.

    Raises:
        RunError: if the run does not wait for an approval.
    """
    with _waiting(root, run_id) as (session, machine):
        session.approvals.reject(reason)
        return _work(session, machine, show, answer=f"rejected: {reason}")


@contextmanager
def _opened(root: Path, run_id: str) -> Iterator[tuple[Session, "Machine"]]:
    from agent.graph import open_machine

    with open_session(root, run_id) as session, open_machine(session) as machine:
        yield session, machine


@contextmanager
def _waiting(root: Path, run_id: str) -> Iterator[tuple[Session, "Machine"]]:
    """A run that waits for a person's answer, and has none yet."""
    with _opened(root, run_id) as (session, machine):
        if not machine.waiting:
            raise RunError(
                f"run {run_id!r} does not wait for an approval; go on with: resume {run_id}, or "
                f"see: status {run_id}"
            )
        if session.approvals.in_use() is not None:
            raise RunError(
                f"run {run_id!r} has an approved plan already; go on with: resume {run_id}"
            )
        yield session, machine


def _work(session: Session, machine: "Machine", show: Show, *, answer: str | None) -> Ending:
    """Advance the graph to its next pause, and say how that ended."""
    from agent.stages.planning import yes_given

    answers = Answers(
        drain=machine.drain,
        stop=session.meter.stop,
        say=lambda text: show({"kind": "phase", "text": text}),
        last_words=f"stopped; {_how_to_resume(session)}",
    )
    with Interruptible(answers) as interruptible:
        try:
            pause = machine.advance(show) if answer is None else machine.answer(answer, show)
            if pause.waiting and answer is None and (given := yes_given(session)) is not None:
                pause = machine.answer(given, show)
        except RunLocked:
            raise  # nothing of the run is this process's to write
        except AgentError as error:
            session.meter.release()
            if interruptible.asked:
                return _ending(session, waiting=False, drained=True)
            session.note("held", str(error))
            session.write_reports()
            show({"kind": "phase", "text": f"the run holds; {_how_to_resume(session)}"})
            raise
        session.meter.release()
        ending = _ending(session, waiting=pause.waiting, drained=pause.drained)
    if ending.status == "waiting" and interruptible.asked:
        return replace(ending, status="drained", exit_code=DRAINED)  # nobody is to be asked now
    return ending


def _how_to_resume(session: Session) -> str:
    return f"continue with: python -m agent resume {session.run_id}"


def _ending(session: Session, *, waiting: bool, drained: bool) -> Ending:
    run_id = session.run_id
    if waiting:
        if session.store.load_run().status != "waiting":
            session.note("waiting", WAITS)
            session.write_reports()
        return Ending(run_id, "waiting", session.store.load_run().reason, WAITING)
    if drained:
        session.note("drained", f"stopped at a border; {_how_to_resume(session)}")
        session.write_reports()
        return Ending(run_id, "drained", session.store.load_run().reason, DRAINED)
    record = session.store.load_run()
    code = EXIT_CODES[Step(record.status.upper())]
    return Ending(run_id, record.status, record.reason, code)
