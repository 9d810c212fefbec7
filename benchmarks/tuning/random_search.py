"""Random search: some parameters, each drawn evenly from all that one review can reach."""

import math
import random
from collections.abc import Sequence
from typing import Final

from agent.best import base, kept_share
from agent.guard import WIDEST
from agent.records import RoundRecord
from agent.review_records import Change, Prediction, Review
from agent.reviewers.base import Pay
from agent.reviewers.reach import Span, reach, refused, stop_sets
from pipeline.params import ParamValue

_TRIES: Final = 50


class RandomReviewer:
    """Reviews by chance, within the bounds and steps of every reviewer."""

    name: Final = "random"

    def __init__(self, *, max_changes: int, seed: int) -> None:
        self._max_changes = max_changes
        self._seed = seed

    def review(self, learnings: str, rounds: Sequence[RoundRecord], *, pay: Pay) -> Review:
        """As many changes as are allowed, to a setting that was not measured before."""
        chance = random.Random(f"random|{self._seed}|{rounds[-1].round}")
        now = base(rounds)
        spans = reach(now, stop_sets(rounds, now.params))
        for _ in range(_TRIES):
            names = chance.sample(sorted(spans), min(self._max_changes, len(spans)))
            drawn = {name: _draw(chance, spans[name]) for name in names}
            moved = {n: value for n, value in drawn.items() if spans[n].moved(value)}
            review = _review(rounds, moved)
            if moved and not refused(review, now, rounds, self._max_changes):
                return review
        return _review(rounds, {})


def _draw(chance: random.Random, span: Span) -> ParamValue:
    if span.choices:
        others = [choice for choice in span.choices if choice != span.before]
        return chance.choice(others or [span.before])
    if span.tunable.factor:
        return span.at(math.exp(chance.uniform(math.log(span.low), math.log(span.high))))
    return span.at(chance.uniform(span.low, span.high))


def _review(rounds: Sequence[RoundRecord], moved: dict[str, ParamValue]) -> Review:
    share = max((kept_share(record) or 0.0 for record in rounds), default=0.0)
    low = round(min(max(share, 0.05), 0.99), 4)
    high = min(round(low + WIDEST, 4), 1.0)
    expected = Prediction(metric="raw_acceptance", low=low, high=high, probability=0.5)
    return Review(
        diagnosis="drawn at random",
        changes=tuple(
            Change(parameter=n, value=list(v) if isinstance(v, tuple) else v, reason="by chance")
            for n, v in moved.items()
        ),
        predictions=(expected,) if moved else (),
        confidence=0.5,
    )
