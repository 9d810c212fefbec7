"""Plans: what scale would do, yield and cost, computed from the round that passed.

A plan is a pure function of records and configuration, so that the command line can print one for
another number of rows without touching the run's graph.
"""

import hashlib
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Literal

from agent.errors import ApprovalError, BudgetError, RunError
from agent.money.amounts import micro_to_usd, show_usd, time_to_micro, time_within
from agent.money.approval import Interval, Plan
from agent.money.metered import Lease
from agent.policy import Decision, Step
from agent.records import RoundRecord
from agent.session import Session, Show, program_version
from agent.stages.need import need_warning
from agent.stages.pilot import Place, op_id, samples
from pipeline.forecast import KeptForecast, forecast_kept
from pipeline.types import EngineInfo, Sample

SPARE_SECONDS = 120.0
"""Set aside beside what was measured, for whatever a restart takes."""
SMALLEST = 16
"""Rows of the smallest micro-batch that is chosen by itself."""
UNMEASURED = 96
"""Rows of a micro-batch where the engine does not say what is good."""
SLOWER = 2.0
"""The maximum cost allows for scale being this many times slower than the pilot."""


def offer(session: Session, round_: int, show: Show) -> tuple[Decision, str]:
    """Release the engine, offer the plan of the configured size, and name it by its hash.

    Where a plan is in use already, since checkpoints were lost, it is that one.
    """
    session.meter.release()
    if (approval := yes_given(session)) is not None:
        used = session.approvals.approved_plan(approval)
        return Decision(Step.CONTINUE, f"plan {used.hash[:12]} is in use"), used.hash
    plan = make_plan(session, session.config.scale.examples)
    session.approvals.offer(plan)
    show({"kind": "phase", "text": f"plan {plan.hash[:12]} waits for approval"})
    session.note("waiting", "every gate passes; the plan waits for a person's approval",
                 plan=plan.model_dump(mode="json")
                 | {"hash": plan.hash, "accept": list(plan.accept)})  # fmt: skip
    session.write_reports()
    return Decision(
        Step.CONTINUE, f"round {round_} passed; plan {plan.hash[:12]} offered"
    ), plan.hash


def yes_given(session: Session) -> str | None:
    """Id of the approval that the run works under or has worked under, whatever was lost since."""
    dataset = session.store.load_run().dataset
    return session.approvals.in_use() or (str(dataset["approval"]) if dataset else None)


def accept(session: Session, answer: str) -> Decision:
    """What a person's answer means: an approval's id, or a rejection.

    Raises:
        ApprovalError: if there is no such approval; the run goes on waiting.
    """
    if answer.startswith("rejected:"):
        return Decision(Step.STOP_REJECTED, answer.removeprefix("rejected:").strip())
    plan = session.approvals.approved_plan(answer)
    reason = f"plan {plan.hash[:12]} is approved for {plan.examples} rows"
    session.note("running", reason)
    return Decision(Step.CONTINUE, reason)


def make_plan(session: Session, examples: int) -> Plan:
    """The plan for ``examples`` rows with the setting that passed.

    Raises:
        RunError: if no round has passed.
    """
    run, passed = session.store.load_run(), passed_round(session)
    engine = EngineInfo(**(run.engine or session.paid("preflight")["engine"]))
    scale, lease = session.config.scale, session.meter.lease
    rows = round_samples(session, passed)
    each = _seconds_per_attempt(session, passed, len(rows))
    loading = _loading_seconds(session)
    wanted = max(examples, round(examples * scale.max_attempts_factor))
    longest = (wanted * each + loading) * SLOWER + SPARE_SECONDS
    most = min(time_to_micro(longest, lease.usd_per_hour), session.ledger.room("scale"))
    attempts = min(wanted, _affordable(most, lease, each=each, loading=loading))
    kept = forecast(rows, attempts=attempts, target=examples)
    seconds = _duration(kept, each, loading)
    promised = Interval(expected=kept.expected, low=kept.low, high=kept.high)
    cost = _map(seconds, lambda s: s * lease.usd_per_hour / 3600)
    return Plan(
        run_id=run.run_id,
        version=program_version(),
        params=passed.params,
        model=engine.model,
        model_digest=engine.digest,
        prompts_digest=prompts_digest(),
        config_digest=session.config.digest(),
        device=engine.device,
        dtype=engine.dtype,
        threads=session.config.engine.threads,
        seed=session.config.pilot.seed,
        examples=examples,
        attempts=kept.attempts_needed or attempts,
        max_attempts=attempts,
        micro_batch=_micro_batch(scale.micro_batch, engine.batch_size, examples=examples),
        batch_size=engine.batch_size,
        wave=scale.wave,
        shard_rows=scale.shard_rows,
        usd_per_hour=lease.usd_per_hour,
        max_cost_usd=micro_to_usd(most),
        cost_usd=cost,
        seconds=seconds,
        rows=promised,
        usd_per_row=_per_row(cost, promised, examples),
        validated=kept.within_validated_range,
        need=need_warning(session),
    )


def _micro_batch(wish: int | Literal["auto"], batch_size: int | None, *, examples: int) -> int:
    """Rows of a micro-batch; by itself no more than half of the rows wanted."""
    if wish != "auto":
        return wish
    return max(SMALLEST, min(batch_size or UNMEASURED, examples // 2))


def check_unchanged(session: Session, plan: Plan) -> None:
    """An approval is void when anything that it covers has changed.

    Raises:
        ApprovalError: naming what changed.
    """
    now = {
        "version": program_version(),
        "prompts_digest": prompts_digest(),
        "config_digest": session.config.digest(),
        "usd_per_hour": session.meter.lease.usd_per_hour,
    }
    changed = [name for name, value in now.items() if getattr(plan, name) != value]
    if changed:
        raise ApprovalError(
            f"{', '.join(changed)} changed since plan {plan.hash[:12]} was approved, which makes "
            "the approval void: print the plan again, look at it, and approve that one"
        )


def passed_round(session: Session) -> RoundRecord:
    """The round whose setting passed.

    Raises:
        RunError: if none has.
    """
    rounds = session.store.load_rounds()
    if not rounds or rounds[-1].step != Step.APPROVE:
        raise RunError(
            f"no round of run {session.run_id!r} has passed, so there is nothing to plan"
        )
    return rounds[-1]


def round_samples(session: Session, record: RoundRecord) -> list[Sample]:
    """Every sample of a decided round."""
    return samples(session, Place(record.round, "", record.micro_batches))


def forecast(rows: Sequence[Sample], *, attempts: int, target: int) -> KeptForecast:
    """Forecast of kept rows from a pilot's samples, in draw order."""
    parsed = [s.instruction for s in rows if s.parsed]
    return forecast_kept(
        parsed,
        kept=sum(s.kept for s in rows),
        distinct=sum(s.dropped not in ("parser", "duplicate") for s in rows),
        attempts=attempts,
        target=target,
    )


def prompts_digest() -> str:
    """SHA-256 over every file of the prompts package, names and contents."""
    digest = hashlib.sha256()
    for name, content in sorted(_contents(files("prompts"), "")):
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _contents(folder: Traversable, name: str) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        path = f"{name}/{entry.name}"
        if entry.is_dir() and entry.name != "__pycache__":
            yield from _contents(entry, path)
        elif entry.is_file():
            yield path, entry.read_bytes()


def _seconds_per_attempt(session: Session, record: RoundRecord, drawn: int) -> float:
    """Working seconds of the round's micro-batches for each instruction drawn."""
    names = [op_id(record.round, number) for number in range(record.micro_batches)]
    return float(sum(session.paid(name)["seconds"] for name in names)) / max(1, drawn)


def _affordable(most: int, lease: Lease, *, each: float, loading: float) -> int:
    """Attempts that ``most`` micro-dollars pay for, a shortest lease and the engine's release kept.

    Raises:
        BudgetError: if they pay for none.
    """
    seconds = time_within(most, lease.usd_per_hour)
    if math.isinf(seconds):
        return sys.maxsize
    kept = min(lease.min_seconds, lease.seconds) + lease.release_seconds
    found = int((seconds - loading - kept) / max(each, 1e-9))
    if found < 1:
        raise BudgetError(
            f"{show_usd(most)} are left for scale, which at ${lease.usd_per_hour:g} an hour pay "
            f"for {seconds:.0f} s: not enough to load the model and lease it for one micro-batch"
        )
    return found


def _loading_seconds(session: Session) -> float:
    """What opening the engine took in the preflight, by the ledger less the work itself."""
    bought = session.journal.find("preflight")
    if bought is None:
        return 0.0
    seconds = {row.op_id: row.engine_seconds for row in session.ledger.rows()}
    return max(0.0, seconds[bought.attempt] - float(bought.result["seconds"]))


def _duration(kept: KeptForecast, each: float, loading: float) -> Interval:
    """Seconds until the target or the last attempt; fewer kept rows take longer."""

    def until(rows: float) -> float:
        share = min(1.0, kept.target / rows) if rows > 0 else 1.0
        return kept.attempts * share * each + loading

    expected = (kept.attempts_needed or kept.attempts) * each + loading
    return Interval(expected=expected, low=min(expected, until(kept.high)), high=until(kept.low))


def _per_row(cost: Interval, rows: Interval, wanted: int) -> Interval:
    """Cost of a row: the work ends at the rows wanted, and costs most where it yields least."""

    def each(usd: float, found: float) -> float:
        return usd / max(1.0, min(wanted, found))

    return Interval(
        expected=each(cost.expected, rows.expected),
        low=each(cost.low, rows.high),
        high=each(cost.high, rows.low),
    )


def _map(interval: Interval, f: Callable[[float], float]) -> Interval:
    return Interval(expected=f(interval.expected), low=f(interval.low), high=f(interval.high))
