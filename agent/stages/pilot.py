"""Buying a round's samples, one micro-batch at a time.

The first micro-batch is small: it is the smoke test. Rows live in artifacts, named by the journal;
everything here can be asked again after a crash and answers the same.
"""

import time
from dataclasses import dataclass
from typing import Any

from agent.archive import Bought
from agent.policy import Decision, Step
from agent.session import Session, Show
from agent.stages.judges import calibration
from pipeline.engine.base import Engine
from pipeline.generate import MicroBatch, drawn, run_micro_batch
from pipeline.novelty import NoveltyIndex
from pipeline.params import GenParams
from pipeline.types import Sample
from prompts.library import Example


@dataclass(frozen=True, slots=True)
class Place:
    """Where in its pilots a run is."""

    round: int
    """The round, from 1."""
    params: str
    """SHA-256 of the artifact with the round's setting."""
    micro_batches: int
    """Bought in the round so far."""


def load_params(session: Session, sha256: str) -> GenParams:
    """The setting kept under ``sha256``."""
    return GenParams.model_validate_json(session.store.get_artifact(sha256)[0]["params"])


def keep_params(session: Session, params: GenParams) -> str:
    """Keep a setting and return its name."""
    return session.store.put_artifact([{"params": params.model_dump_json()}])


def micro_batch(session: Session, place: Place, params: GenParams) -> MicroBatch:
    """The next micro-batch of a round: the smoke test, then larger ones."""
    pilot, number = session.config.pilot, place.micro_batches
    first = drawn(pilot.smoke_rows, params) + (number - 1) * drawn(pilot.micro_batch, params)
    return MicroBatch(
        stage="pilot",
        round=place.round,
        number=number,
        first_index=first if number else 0,
        rows=pilot.micro_batch if number else pilot.smoke_rows,
        seed=pilot.seed,
    )


def samples(session: Bought, place: Place) -> list[Sample]:
    """Every sample of the round so far, in draw order."""
    rows = [r for b in _bought(session, place) for r in session.store.get_artifact(b["artifact"])]
    return [Sample.from_json(row) for row in rows]


def tokens(session: Session, place: Place) -> int:
    """Tokens generated in the round so far."""
    return sum(b["tokens"] for b in _bought(session, place))


def replans(session: Session, place: Place) -> list[dict[str, Any]]:
    """Every :class:`~pipeline.engine.base.Replan` in the round so far, as JSON."""
    return [r for b in _bought(session, place) for r in b.get("replans", ())]


def _bought(session: Bought, place: Place) -> list[dict[str, Any]]:
    return [session.paid(op_id(place.round, number)) for number in range(place.micro_batches)]


def op_id(round_: int, number: int) -> str:
    """What the journal calls a micro-batch."""
    return f"r{round_:02d}/b{number:03d}"


def buy(session: Session, place: Place, show: Show) -> Decision:
    """Buy one micro-batch, or find it bought.

    Raises:
        BudgetError: if its worst case does not fit under the cap.
        EngineError: if the engine fails.
    """
    params = load_params(session, place.params)
    batch = micro_batch(session, place, params)
    before = samples(session, place)
    critics = calibration(session).panel()

    def work(engine: Engine) -> dict[str, Any]:
        seen = NoveltyIndex(s.instruction for s in before if s.instruction)
        pool = [Example("", s.instruction, s.clean or "") for s in before if s.kept]
        began = time.monotonic()
        result = run_micro_batch(engine, batch, params, seen=seen, pool=pool, critics=critics)
        rows = [s.to_json() for s in result.samples]
        seconds = time.monotonic() - began
        artifact = session.store.put_artifact(rows)
        return {"artifact": artifact, "tokens": result.tokens, "seconds": round(seconds, 3)}

    show({"kind": "phase", "text": f"round {place.round}: micro-batch {batch.number + 1}"})
    name = op_id(place.round, batch.number)
    session.buy(name, work, show, stage="pilot", round=place.round)
    return Decision(Step.CONTINUE, f"micro-batch {batch.number + 1} of round {place.round} bought")
