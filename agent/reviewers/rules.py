"""The built-in reviewer: deterministic, free, and always at hand.

It takes the first remedy for each trouble that history does not forbid, and says stop when nothing
is left to try or nothing has helped for three rounds. A clearly worse round is undone by the loop,
for any reviewer: changes here apply to the setting that is left. What the remedies are is
``agent/reviewers/remedies.py``.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, product
from math import ceil
from typing import Final

from agent.best import compared, kept_share
from agent.records import RoundRecord
from agent.review_records import Change, Review
from agent.reviewers.base import Pay
from agent.reviewers.evidence import Evidence, gather
from agent.reviewers.moves import Remedy
from agent.reviewers.reach import refused
from agent.reviewers.remedies import REMEDIES, calmer_draws
from pipeline.critics.scores import SUBJECTS
from pipeline.params import TUNABLE, GenParams

_FRUITLESS: Final = 3
_COMBINATIONS: Final = 5000


class RulesReviewer:
    """Reviews by rule; ``max_changes`` as in the configuration."""

    name: Final = "rules"

    def __init__(self, *, max_changes: int) -> None:
        self._max_changes = max_changes

    def review(self, learnings: str, rounds: Sequence[RoundRecord], *, pay: Pay) -> Review:
        """A review from the records, free; the report says the same in words and is not read."""
        return recommend(rounds, max_changes=self._max_changes)


def recommend(rounds: Sequence[RoundRecord], *, max_changes: int) -> Review:
    """What the rules make of ``rounds``, oldest first; the guard refuses none of it."""
    evidence, fruitless = gather(rounds), _fruitless(rounds)
    plans = (_plans(gather(rounds, lenient=x), max_changes) for x in (False, True))
    for remedies in chain.from_iterable(plans):
        if fruitless and not any(remedy.pressing for remedy in remedies):
            continue
        review = _review(evidence, rounds, remedies)
        if review.changes and not refused(review, evidence.record, rounds, max_changes):
            return review
    if fruitless:
        return _stop(evidence, rounds, f"No round of the last {_FRUITLESS} kept more rows.")
    return _stop(evidence, rounds, "Every remedy known for this was tried or made things worse.")


def _plans(evidence: Evidence, max_changes: int) -> Iterator[tuple[Remedy, ...]]:
    """One remedy for each trouble that has one, the likeliest combination first.

    A hot draw is calmed whatever else is tried.
    """
    calmer = [r for r in calmer_draws(evidence) if not _forbidden(r, evidence)][:1]
    options = [
        [r for r in REMEDIES[name](evidence) if not _forbidden(r, evidence)]
        for name in evidence.troubles()
    ]
    for chosen in islice(product(*(choices for choices in options if choices)), _COMBINATIONS):
        yield tuple(_fit((*calmer, *chosen), max_changes))


def _review(
    evidence: Evidence, rounds: Sequence[RoundRecord], remedies: Sequence[Remedy]
) -> Review:
    ahead = (change for remedy in remedies for change in remedy.changes)
    predictions = tuple(remedy.prediction for remedy in remedies)
    return Review(
        diagnosis=_diagnosis(evidence, rounds),
        changes=_within_reach(evidence.params, {c.parameter: c for c in ahead}.values()),
        predictions=predictions,
        distrusted_metrics=evidence.uncertified(),
        confidence=min((p.probability for p in predictions), default=0.5),
    )


def _forbidden(remedy: Remedy, evidence: Evidence) -> bool:
    return any(evidence.bars(change.parameter, change.value) for change in remedy.changes)


def _fit(remedies: Iterable[Remedy], max_changes: int) -> Iterator[Remedy]:
    """The remedies that fit together within ``max_changes``, in order of priority."""
    values: dict[str, object] = {}
    for remedy in remedies:
        asked = {change.parameter: change.value for change in remedy.changes}
        agree = all(values.get(name, value) == value for name, value in asked.items())
        if agree and len(values | asked) <= max_changes:
            values |= asked
            yield remedy


def _within_reach(now: GenParams, changes: Iterable[Change]) -> tuple[Change, ...]:
    """The ``changes`` that move something, numbers as far as one round's step reaches."""
    moved = []
    for change in changes:
        current, value = now.get(change.parameter), change.value
        tunable = TUNABLE[change.parameter]
        if isinstance(current, int | float) and tunable.step:
            value = min(max(value, current - tunable.step), current + tunable.step)
        if isinstance(current, int) and tunable.factor:
            low, high = ceil(current / tunable.factor), int(current * tunable.factor)
            value = min(max(value, low), high)
        if isinstance(value, float) and value != change.value:
            value = round(value, 4)
        if value != current:
            moved.append(change.model_copy(update={"value": value}))
    return tuple(moved)


def _fruitless(rounds: Sequence[RoundRecord]) -> bool:
    """Whether the best round is three or more rounds ago; replayed ones keep no rows."""
    shares = [kept_share(record) or 0.0 for record in rounds if not record.replayed]
    if len(shares) <= _FRUITLESS:
        return False
    return max(shares[-_FRUITLESS:]) <= max(shares[:-_FRUITLESS])


def _stop(evidence: Evidence, rounds: Sequence[RoundRecord], why: str) -> Review:
    return Review(
        diagnosis=f"{_diagnosis(evidence, rounds)} {why}",
        changes=(),
        predictions=(),
        distrusted_metrics=evidence.uncertified(),
        confidence=0.6,
        stop=True,
    )


def _diagnosis(evidence: Evidence, rounds: Sequence[RoundRecord]) -> str:
    """The figures that the decision rests on, in sentences."""
    parts = []
    now, base = rounds[-1], evidence.record
    if base.round != now.round:
        parts.append(f"{compared(now, base)}: its changes made things worse and are undone.")
    named = [evidence.count(n) for n in evidence.troubles() if evidence.value(n) is not None]
    named += [evidence.rejection(s) for s in SUBJECTS if evidence.rejects_good(s)]
    parts.append("Treated: " + "; ".join(named) + "." if named else "Nothing to treat.")
    causes = sorted(base.causes.items(), key=lambda item: -item[1])[:3]
    if causes:
        parts.append("Bad rows by cause: " + ", ".join(f"{c} {n}" for c, n in causes) + ".")
    if evidence.uncertified():
        parts.append("Not certified, so ignored: " + ", ".join(evidence.uncertified()) + ".")
    return " ".join(parts)
