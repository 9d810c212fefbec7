"""The engine with its meter running: every second from its start to its release is paid for.

The engine computes, the journal remembers; this file only turns wall time into money. The one
idea: costs are due cumulatively since the engine's start, and each posting takes all that is due,
so that loading, pauses and clean-up cannot fall between two micro-batches.

To finish takes money for one thing only: the seconds between the last micro-batch and the engine's
release. They are reserved before it is opened and stay reserved until it is closed, under the cap,
the stage's own and the plan's, so that no review and no micro-batch can use them up. All else that
ends a run (measuring, merging, reports) happens without an engine, and costs nothing here.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

from agent.errors import BudgetError
from agent.money.amounts import show_usd, time_to_micro, time_within
from agent.money.caps import sub_cap
from agent.money.journal import Journal, Outcome
from agent.money.killed import CLOSING
from agent.money.statement import next_attempt
from pipeline.engine.base import Engine, Leased, Replan, Replanning, Stoppable
from pipeline.errors import EngineLost, EngineOutOfMemory, EngineTimeout


@dataclass(frozen=True, slots=True)
class Lease:
    """What an hour costs, and how long one micro-batch may take."""

    usd_per_hour: float
    """Rent of the engine's device."""
    seconds: float = 900.0
    """Longest a micro-batch may take; its price is reserved."""
    min_seconds: float = 60.0
    """A shorter lease than ``seconds`` is taken near the cap, but none shorter than this."""
    release_seconds: float = 5.0
    """What closing the engine may take; reserved as long as it is open."""
    pause_seconds: float = 0.0
    """The longest that it may stay open without working, such as while a review is awaited;
    reserved too, except within a plan, where nothing is awaited."""


@dataclass(frozen=True, slots=True)
class _Bill:
    micro: int
    seconds: float


_NOTHING: Final = _Bill(0, 0.0)
_GONE: Final = (EngineLost, EngineOutOfMemory, EngineTimeout)
"""Errors after which an engine is of no more use."""


class EngineMeter:
    """Opens an engine at the first paid operation, and pays for it until it is released."""

    def __init__(
        self,
        journal: Journal,
        open_engine: Callable[[], Engine],
        *,
        lease: Lease,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.journal = journal
        self.lease = lease
        self._open_engine = open_engine
        self._clock = clock
        self._engine: Engine | None = None
        self._stopped = False
        self._started: float | None = None
        self._paid = _NOTHING
        self._offered = _NOTHING
        self._closing: str | None = None
        self.replans: tuple[Replan, ...] = ()
        """What running out of memory changed in the last operation, bought or looked up."""

    @property
    def engine(self) -> Engine | None:
        """The engine, if one is open."""
        return self._engine

    def run(
        self,
        op_id: str,
        work: Callable[[Engine], dict[str, Any]],
        *,
        stage: str,
        round: int | None = None,
    ) -> dict[str, Any]:
        """The journalled result of one micro-batch; ``work`` runs only if there is none yet.

        The engine's lease is the time that was reserved, loading included. What it re-planned when
        memory ran out stands in the result under ``replans``.

        Raises:
            BudgetError: if not even the shortest lease fits: a planned ending.
            EngineError: if the engine failed; one that is of no more use is released.
        """
        if (stored := self.journal.find(op_id)) is not None:
            self.replans = tuple(Replan(**r) for r in stored.result.get("replans", ()))
            return stored.result
        self.replans = ()
        end = self._lease_end(stage)
        self._keep_closing(stage, round)
        try:
            return self.journal.once(
                op_id,
                worst_case=end.micro - self._paid.micro,
                stage=stage,
                round=round,
                do=lambda: self._work(work, end),
                incurred=lambda _: self._offer({}, most=end),
            ).result
        except _GONE:
            if self._engine is not None:
                self._settled()
                self.release()
            raise
        finally:
            self._paid = self._offered
            if self._engine is None:
                self._post_closing(self._offer({}))  # opening one failed, after its lease perhaps
            self._settled()

    def stop(self) -> None:
        """End what the engine does, from any thread or signal handler; all operations fail.

        An engine that is being opened is closed as soon as it is open.
        """
        self._stopped = True
        if isinstance(self._engine, Stoppable):
            self._engine.stop()

    def release(self) -> None:
        """Close the engine and post what is due since the last micro-batch."""
        if self._engine is None:
            return
        try:
            self._engine.close()
        finally:
            self._engine = None
            self._post_closing(self._offer({}))
            self._settled()

    def _lease_end(self, stage: str) -> _Bill:
        """The bill since the engine's start at the end of a lease that begins now."""
        rate, now = self.lease.usd_per_hour, self._running()
        due = now.micro - self._paid.micro
        kept = self._closing_cost() if self._closing is None else 0
        room, where = self._free(stage)
        free = max(0, room - due - kept)
        seconds = min(self.lease.seconds, time_within(free, rate))
        shortest = min(self.lease.min_seconds, self.lease.seconds)
        if seconds < shortest:
            owed = f", less {show_usd(due + kept)} for engine time until its release,"
            raise BudgetError(
                f"{show_usd(room)} left under {where}{owed if due + kept else ''} pays for "
                f"{seconds:.0f} s of the engine at ${rate:g} an hour; a micro-batch needs at "
                f"least {shortest:.0f} s"
            )
        return _Bill(now.micro + min(free, time_to_micro(seconds, rate)), now.seconds + seconds)

    def _free(self, stage: str) -> tuple[int, str]:
        """What the next reservation may take, and the cap that sets it."""
        ledger = self.journal.ledger
        if self.journal.envelope is None:
            totals, own = ledger.totals(), sub_cap(ledger.database, stage)
            if own.remaining < totals.remaining:
                return own.remaining, own.title
            return totals.remaining, f"the cap of {show_usd(totals.limit)}"
        envelope = ledger.envelope(self.journal.envelope)
        if envelope is None:
            return 0, "an envelope that does not exist"
        return envelope.free, f"the approved {show_usd(envelope.maximum)}"

    def _work(self, work: Callable[[Engine], dict[str, Any]], end: _Bill) -> Outcome:
        self._check_stopped()
        if self._started is None:
            self._started = self._clock()
        if self._engine is None:
            self._engine = self._open_engine()
        self._check_stopped()
        engine = self._engine
        if isinstance(engine, Leased):
            engine.lease(max(0.0, end.seconds - self._running().seconds))
        before = len(_replans(engine))
        try:
            result = work(engine)
        finally:
            self.replans = _replans(engine)[before:]
        if self.replans:
            result = result | {"replans": [asdict(replan) for replan in self.replans]}
        return self._offer(result)

    def _check_stopped(self) -> None:
        if self._stopped:
            raise EngineLost("the engine was stopped")

    def _running(self) -> _Bill:
        """The bill since the engine's start, as of now."""
        if self._started is None:
            return _NOTHING
        seconds = self._clock() - self._started
        return _Bill(time_to_micro(seconds, self.lease.usd_per_hour), seconds)

    def _offer(self, result: dict[str, Any], *, most: _Bill | None = None) -> Outcome:
        """All that is due now; it stays due until :meth:`_settled`, in case booking it fails.

        What is beyond ``most``, such as the time that a killed engine takes to die, is left to be
        posted next.
        """
        now = self._running()
        if most is not None:
            now = _Bill(min(now.micro, most.micro), min(now.seconds, most.seconds))
        self._offered = now
        return Outcome(result, now.micro - self._paid.micro, now.seconds - self._paid.seconds)

    def _settled(self) -> None:
        """What was offered last is booked; an engine that is not open runs up no more."""
        self._paid = self._offered
        if self._engine is None:
            self._started = None
            self._paid = self._offered = _NOTHING

    def _closing_cost(self) -> int:
        pause = self.lease.pause_seconds if self.journal.envelope is None else 0.0
        return time_to_micro(self.lease.release_seconds + pause, self.lease.usd_per_hour)

    def _keep_closing(self, stage: str, round: int | None) -> None:
        """Set aside what the engine's release will cost, before it is opened."""
        if self._closing is not None:
            return
        ledger = self.journal.ledger
        name = next_attempt(ledger.database, CLOSING)
        envelope = self.journal.envelope
        ledger.reserve(name, self._closing_cost(), stage=stage, round=round, envelope=envelope)
        self._closing = name

    def _post_closing(self, tail: Outcome) -> None:
        """Post what is due since the last micro-batch; nothing if there was no engine to close."""
        if self._closing is None:
            return
        ledger, seconds = self.journal.ledger, tail.engine_seconds
        if seconds > 0:
            ledger.post(self._closing, tail.actual_micro, engine_seconds=seconds, overrun=True)
        else:
            ledger.void(self._closing, note="no engine was opened")
        self._closing = None


def _replans(engine: Engine) -> tuple[Replan, ...]:
    return engine.replans if isinstance(engine, Replanning) else ()
