"""What the built-in rules do about a critic's margin that rejects too much: one step down.

A margin is moved toward its floor, the lowest one at which the controls' false accepts stay within
bounds, and no further. The one idea: it goes first where good controls are rejected or a round's
own rows say that it decides, and otherwise last, since a lower margin makes no row better.
"""

from collections.abc import Iterator
from math import ceil
from typing import Final

from agent.review_records import Candidate, Prediction
from agent.reviewers.evidence import Evidence
from agent.reviewers.moves import Remedy, change, prediction
from pipeline.params import TUNABLE

_LEAST: Final = 0.05
_FEW: Final = 0.2
"""Accepted share that is foretold where stored rows say that a step is not enough."""


def margin_at_fault(e: Evidence, subject: str) -> Iterator[Remedy]:
    """One step down from a margin that rejects good controls, or that alone fails the gate.

    The latter is known where a round's own rows were asked, as those of pairs are.
    """
    name, metric, value = f"critic.{subject}_margin", f"{subject}_acceptance", _one_step(e, subject)
    if value is None:
        return
    known = _known(e, name, value)
    if e.rejects_good(subject):
        yield Remedy(
            (change(name, value, e.rejection(subject)),), _foretold(metric, known), pressing=True
        )
    elif known is not None and _decides(e, metric, known):
        reason = f"of {known.rows} stored rows {known.values[metric]:.0%} are accepted with this"
        yield Remedy((change(name, value, reason),), _foretold(metric, known), pressing=True)


def lower_margin(e: Evidence, subject: str) -> Iterator[Remedy]:
    """One step down for want of anything better: it accepts no fewer rows."""
    name, value = f"critic.{subject}_margin", _one_step(e, subject)
    if value is not None:
        low = max(e.value(f"{subject}_acceptance") or 0.0, _LEAST)
        reason = "controls allow a lower margin, and nothing better is left"
        expected = prediction(f"{subject}_acceptance", low, 1.0, 0.65)
        yield Remedy((change(name, value, reason),), expected)


def _one_step(e: Evidence, subject: str) -> float | None:
    """The margin one step nearer to its floor; None where controls certify none below it."""
    name = f"critic.{subject}_margin"
    now, floor = e.params.get(name), e.judged(subject).get("floor")
    step = TUNABLE[name].step
    if not isinstance(now, int | float) or floor is None or step is None:
        return None
    value = ceil(max(float(floor), now - step) * 1e6) / 1e6
    return value if value < now else None


def _known(e: Evidence, name: str, value: float) -> Candidate | None:
    return next((c for c in e.record.candidates if c.changes.get(name) == value), None)


def _decides(e: Evidence, metric: str, known: Candidate) -> bool:
    """Whether a gate that is not passed now would be, on at least the rows of this round."""
    said, gate = known.values[metric], e.record.metric(metric)
    if said is None or gate is None or not gate["threshold"]:
        return False
    return said >= e.limit(metric) and known.rows >= max(e.record.funnel["answered"], 1)


def _foretold(metric: str, known: Candidate | None) -> Prediction:
    """What stored rows say of a step, if any can."""
    if known is not None and not known.rows:
        return prediction(metric, 0.0, _FEW, 0.8)
    said = None if known is None else known.values[metric]
    return prediction(metric, _FEW if said is None else 0.8 * said, 1.0, 0.7)
