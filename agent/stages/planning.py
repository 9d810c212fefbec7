"""Plans: what scale would do, yield and cost, computed from the round that passed.

A plan is a pure function of records and configuration, so that the command line can print one for
another number of rows without touching the run's graph.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable

from agent.errors import RunError
from agent.money.amounts import micro_to_usd, time_to_micro
from agent.money.approval import Interval, Plan
from agent.policy import Decision, Step
from agent.records import RoundRecord
from agent.session import Session, program_version
from agent.stages.pilot import Place, Show, op_id, samples
from pipeline.forecast import KeptForecast, forecast_kept
from pipeline.types import Sample

SPARE_SECONDS = 120.0
"""Set aside beside what was measured, for whatever a restart takes."""
SLOWER = 2.0
"""The maximum cost allows for scale being this many times slower than the pilot."""


def offer(session: Session, round_: int, show: Show) -> tuple[Decision, str]:
    """Release the engine, offer the plan of the configured size, and name it by its hash."""
    session.meter.release()
    plan = make_plan(session, session.config.scale.examples)
    session.approvals.offer(plan)
    show({"kind": "phase", "text": f"plan {plan.hash[:12]} waits for approval"})
    session.note("waiting", "every gate passes; the plan waits for a person's approval",
                 plan=plan.model_dump(mode="json") | {"hash": plan.hash})  # fmt: skip
    session.write_reports()
    return Decision(
        Step.CONTINUE, f"round {round_} passed; plan {plan.hash[:12]} offered"
    ), plan.hash


def accept(session: Session, answer: str) -> Decision:
    """What a person's answer means: an approval's id, or a rejection.

    Raises:
        ApprovalError: if there is no such approval; the run goes on waiting.
    """
    if answer.startswith("rejected:"):
        return Decision(Step.STOP_REJECTED, answer.removeprefix("rejected:").strip())
    plan = session.approvals.approved_plan(answer)
    return Decision(Step.CONTINUE, f"plan {plan.hash[:12]} is approved for {plan.examples} rows")


def make_plan(session: Session, examples: int) -> Plan:
    """The plan for ``examples`` rows with the setting that passed.

    Raises:
        RunError: if no round has passed.
    """
    run, passed = session.store.load_run(), passed_round(session)
    assert run.engine is not None and run.device_price_usd_per_hour is not None
    scale, rate = session.config.scale, run.device_price_usd_per_hour
    attempts = max(examples, round(examples * scale.max_attempts_factor))
    rows = round_samples(session, passed)
    kept = forecast(rows, attempts=attempts, target=examples)
    each = _seconds_per_attempt(session, passed, len(rows))
    loading = _loading_seconds(session)
    seconds = _duration(kept, each, loading)
    longest = (attempts * each + loading) * SLOWER + SPARE_SECONDS
    most = min(time_to_micro(longest, rate), session.ledger.totals().remaining)
    return Plan(
        run_id=run.run_id,
        version=program_version(),
        params=passed.params,
        model=str(run.engine["model"]),
        model_digest=str(run.engine["digest"]),
        prompts_digest=prompts_digest(),
        config_digest=run.config_digest,
        device=str(run.engine["device"]),
        dtype=str(run.engine["dtype"]),
        threads=session.config.engine.threads,
        seed=session.config.pilot.seed,
        examples=examples,
        max_attempts=attempts,
        micro_batch=scale.micro_batch,
        wave=scale.wave,
        shard_rows=scale.shard_rows,
        usd_per_hour=rate,
        max_cost_usd=micro_to_usd(most),
        cost_usd=_map(seconds, lambda s: s * rate / 3600),
        seconds=seconds,
        rows=Interval(expected=kept.expected, low=kept.low, high=kept.high),
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


def _loading_seconds(session: Session) -> float:
    """What opening the engine took in the preflight, by the ledger less the work itself."""
    rows = [r for r in session.ledger.rows() if r.stage == "preflight" and r.engine_seconds]
    return max(0.0, rows[-1].engine_seconds - float(session.paid("preflight")["seconds"]))


def _duration(kept: KeptForecast, each: float, loading: float) -> Interval:
    """Seconds until the target or the last attempt; fewer kept rows take longer."""

    def until(rows: float) -> float:
        share = min(1.0, kept.target / rows) if rows > 0 else 1.0
        return kept.attempts * share * each + loading

    expected = (kept.attempts_needed or kept.attempts) * each + loading
    return Interval(expected=expected, low=min(expected, until(kept.high)), high=until(kept.low))


def _map(interval: Interval, f: Callable[[float], float]) -> Interval:
    return Interval(expected=f(interval.expected), low=f(interval.low), high=f(interval.high))
