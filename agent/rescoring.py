"""Scoring again what replay changed: the quote, the purchase, and the scores once they are bought.

Paid for from the run's budget like everything else, under a name made of the texts, so that the
same texts are never scored twice. What the scores mean is the critics' business.
"""

import hashlib
import time
from dataclasses import dataclass, replace
from typing import Any

from agent.archive import Bought
from agent.engines import price_per_hour
from agent.report.text import dollars, plural
from agent.session import Session
from agent.stages.judges import CALIBRATION_OP, calibration
from agent.stages.stored import Found
from agent.store import canonical_json
from pipeline.critics.calibrate import Calibration
from pipeline.engine.base import Engine
from pipeline.params import GenParams
from pipeline.replay import rejudge, unscored
from pipeline.types import Sample

STAGE = "whatif"
"""What the ledger calls the stage."""


@dataclass(frozen=True, slots=True)
class Quote:
    """What scoring texts again is expected to take, loading the model not counted."""

    texts: int
    """How many."""
    seconds: float
    """At the speed of the run's calibration."""
    usd: float
    """At the price of the run's device."""

    def __str__(self) -> str:
        return (
            f"--score scores {plural(self.texts, 'text')} in about {self.seconds:.0f} s for about "
            f"{dollars(self.usd)}, the loading of the model apart"
        )

    def to_json(self) -> dict[str, float]:
        """A JSON object with every field."""
        return {"texts": self.texts, "seconds": self.seconds, "usd": self.usd}


def quote(bought: Bought, found: Found, wanted: GenParams) -> Quote | None:
    """What scoring the changed texts of ``found`` is expected to cost; None if there are none."""
    texts = len(unscored(found.rows.samples, wanted))
    if not texts:
        return None
    paid = bought.paid(CALIBRATION_OP)
    each = float(paid["seconds"]) / max(1, _scored(calibration(bought), controls=not paid["kept"]))
    seconds = texts * each
    return Quote(texts, seconds, seconds * price_per_hour(bought.config) / 3600)


def rescored(session: Session, found: Found, wanted: GenParams) -> None:
    """Buy every critic's scores of the changed texts, or find them bought.

    Raises:
        BudgetError: if they do not fit under the cap.
        EngineError: if the engine fails.
    """
    texts = unscored(found.rows.samples, wanted)
    panel = calibration(session).panel()

    def work(engine: Engine) -> dict[str, Any]:
        began = time.monotonic()
        cleaned = [s.clean or "" for s in texts]
        pairs = [(s.instruction, text) for s, text in zip(texts, cleaned, strict=True)]
        scores, tokens = panel.score_pairs(engine, pairs), engine.count_tokens(cleaned)
        rows = [
            {"pair": list(pair), "scores": found, "tokens": count}
            for pair, found, count in zip(pairs, scores, tokens, strict=True)
        ]
        seconds = round(time.monotonic() - began, 3)
        return {"artifact": session.store.put_artifact(rows), "seconds": seconds}

    session.buy(_name(texts), work, lambda _: None, stage=STAGE)
    run = session.store.load_run()
    session.meter.release()
    session.note(run.status, run.reason)


def with_stored_scores(bought: Bought, found: Found, wanted: GenParams) -> Found:
    """The same rows with the scores of their changed texts, where those were bought before."""
    texts = unscored(found.rows.samples, wanted)
    if not texts or not bought.has(_name(texts)):
        return found
    rows = bought.store.get_artifact(bought.paid(_name(texts))["artifact"])
    by_pair = {tuple(row["pair"]): row for row in rows}

    def scored(sample: Sample) -> Sample:
        row = by_pair.get((sample.instruction, sample.clean))
        if row is None or sample.pair_scores:
            return sample
        return replace(sample, pair_scores=row["scores"], clean_tokens=row["tokens"])

    return replace(found, rows=rejudge(found.rows, [scored(s) for s in found.rows.samples], wanted))


def _name(texts: list[Sample]) -> str:
    pairs = sorted({(s.instruction, s.clean) for s in texts})
    return f"{STAGE}/{hashlib.sha256(canonical_json(pairs).encode()).hexdigest()[:16]}"


def _scored(known: Calibration, *, controls: bool) -> int:
    """Texts that the calibration scored, with every critic."""
    groups = [known.own.get(subject, {}) for subject in known.controls.by_critic]
    if controls:
        groups += known.controls.by_critic.values()
    return sum(
        max((len(s.good) + sum(map(len, s.bad.values())) for s in by_critic.values()), default=0)
        for by_critic in groups
    )
