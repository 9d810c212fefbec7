"""Scale: waves of micro-batches under an approved plan, until it has its rows or may not go on.

Every wave draws on the approval's envelope. Rows that were paid for are kept whatever happens;
what stops scale early is said, and the rows so far are merged all the same.
"""

from dataclasses import replace
from typing import Any

from agent.committed import op_id
from agent.errors import ApprovalError, BudgetError
from agent.money.approval import Plan
from agent.policy import Decision, Step
from agent.session import Session, Show
from agent.stages.judges import calibration
from agent.stages.measuring import rules
from agent.stages.planning import check_unchanged
from pipeline.engine.base import Engine
from pipeline.generate import MicroBatch, drawn, run_micro_batch
from pipeline.metrics import measure
from pipeline.novelty import NoveltyIndex
from pipeline.types import EngineInfo

POOL = 2000
"""Latest kept rows that prompts may show as examples."""


def wave(session: Session, approval: str, number: int, show: Show) -> Decision:
    """Buy one wave, or find it bought, and say whether another follows.

    What the approval covers may change while scale runs; it then buys no more, and what was bought
    is merged.

    Raises:
        EngineError: if the engine fails.
    """
    plan = session.approvals.approved_plan(approval)
    if (envelope := session.ledger.envelope(approval)) is not None and envelope.state == "closed":
        session.read_committed(plan)
        return replace(decide(session, plan), step=Step.DONE)  # a lost checkpoint led back here
    session.draw_on(session.approvals.authorise(approval, session.ledger))
    session.read_committed(plan)
    for batch in range(number * plan.wave, (number + 1) * plan.wave):
        try:
            check_unchanged(session, plan)
            _buy(session, plan, batch, show)
        except ApprovalError as error:
            return Decision(Step.DONE, f"the approval is void: {error}")
        except BudgetError as error:
            return Decision(Step.DONE, f"another micro-batch does not fit the plan's cost: {error}")
        session.read_committed(plan)
    show(_event(session, plan, number))
    return decide(session, plan)


def _buy(session: Session, plan: Plan, number: int, show: Show) -> None:
    each = drawn(plan.micro_batch, plan.params)
    if number * each >= plan.max_attempts or session.committed.kept >= plan.examples:
        return
    committed = session.committed
    critics = calibration(session).deciding(plan.params.critic)
    batch = MicroBatch("scale", 0, number, number * each, plan.micro_batch, plan.seed)

    def work(engine: Engine) -> dict[str, Any]:
        _check_engine(engine.info, plan)
        seen = NoveltyIndex(beside=committed.seen)
        pool = committed.pool[-POOL:]
        result = run_micro_batch(engine, batch, plan.params, seen=seen, pool=pool, critics=critics)
        artifact = session.store.put_artifact(s.to_json() for s in result.samples)
        return {"artifact": artifact, "tokens": result.tokens}

    session.buy(op_id(number), work, show, stage="scale")


def _check_engine(info: EngineInfo, plan: Plan) -> None:
    """The engine must be the one that was approved."""
    found = {
        "model_digest": ("the model's weights", info.digest),
        "device": ("the device", info.device),
        "dtype": ("the number format", info.dtype),
    }
    for name, (what, value) in found.items():
        if value != getattr(plan, name):
            raise ApprovalError(
                f"{what} changed since plan {plan.hash[:12]} was approved: found {value[:40]!r}, "
                f"approved {getattr(plan, name)[:40]!r}"
            )


def decide(session: Session, plan: Plan) -> Decision:
    """What follows from the rows that scale has bought so far."""
    committed = session.committed
    kept, attempts = committed.kept, len(committed.samples)
    if kept >= plan.examples:
        return Decision(Step.DONE, f"{kept} rows kept of {attempts} attempts")
    if attempts >= plan.max_attempts:
        return Decision(Step.DONE, f"{kept} rows kept when all {attempts} attempts were used")
    stretch = committed.samples[committed.shard_start :]
    shard = kept // plan.shard_rows
    found = measure(stretch, rules(session, plan.params, round_=shard + 1), wanted=plan.examples)
    failed = [m for m in found.metrics if m.verdict == "FAIL"]
    if failed and len(stretch) >= session.config.pilot.fail_rows:
        names = ", ".join(f"{m.name} {m.value:.1%} of {m.n}" for m in failed)
        return Decision(Step.DONE, f"stopped in shard {shard + 1}, whose QC failed: {names}")
    return Decision(Step.CONTINUE, f"{kept} of {plan.examples} rows kept")


def _event(session: Session, plan: Plan, number: int) -> dict[str, Any]:
    committed = session.committed
    spent = session.ledger.by_stage()
    seconds = sum(s.engine_seconds for s in spent if s.stage == "scale")
    share = committed.kept / plan.examples
    return {
        "kind": "wave",
        "number": number,
        "kept": committed.kept,
        "target": plan.examples,
        "attempts": len(committed.samples),
        "seconds_left": seconds * (1 - share) / share if 0 < share <= 1 else None,
        **session.money(),
    }
