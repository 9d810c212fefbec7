"""What remedies are made of: one parameter's move within its step, and what it is expected to do.

A move that moves nothing is an empty tuple, so that remedies can name what they would do and keep
what is left. Which moves treat which trouble is ``agent/reviewers/remedies.py``'s knowledge.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from agent.guard import WIDEST
from agent.review_records import Change, Prediction
from agent.reviewers.evidence import Evidence
from pipeline.params import TUNABLE


@dataclass(frozen=True, slots=True)
class Remedy:
    """Changes against one trouble, with what they are expected to do."""

    changes: tuple[Change, ...]
    """What to change; never empty."""
    prediction: Prediction
    """What becomes of the metric."""
    pressing: bool = False
    """Whether it is taken though no round of late was better: rows or controls speak for it."""


def toward(
    e: Evidence, name: str, target: float, reason: str, *, up: bool | None = None
) -> tuple[Change, ...]:
    """One step of ``name`` toward ``target``, at most its largest; nothing if it is there.

    ``up`` allows one direction only.
    """
    tunable, current = TUNABLE[name], e.params.get(name)
    assert isinstance(current, int | float) and tunable.step is not None
    move = min(max(target - current, -tunable.step), tunable.step)
    if abs(move) < 1e-6 or (up is not None and up != (move > 0)):
        return ()
    value = round(current + move, 4)
    return (change(name, int(value) if tunable.kind == "int" else value, reason),)


def choice(e: Evidence, name: str, value: str | None, reason: str) -> tuple[Change, ...]:
    """``name`` set to ``value``; nothing if it is that already, or there is none."""
    if value is None or e.params.get(name) == value:
        return ()
    return (change(name, value, reason),)


def together_or_alone(
    moves: Sequence[tuple[Change, ...]], expected: Prediction
) -> Iterator[Remedy]:
    """All ``moves`` at once, then each by itself; those that move nothing are left out."""
    moving = [changes for changes in moves if changes]
    if len(moving) > 1:
        yield Remedy(tuple(change for changes in moving for change in changes), expected)
    for changes in moving:
        yield Remedy(changes, expected)


def change(name: str, value: Any, reason: str) -> Change:
    """One parameter set to one value."""
    return Change(parameter=name, value=value, reason=reason)


def prediction(metric: str, low: float, high: float, probability: float) -> Prediction:
    """A registered expectation, rounded, of a rate; no wider than one that can be held to."""
    low = round(low, 4)
    high = round(min(high, 1.0, low + WIDEST), 4)
    return Prediction(metric=metric, low=low, high=high, probability=probability)
