"""Learnings: what each review expected of its changes, and what the round after it measured.

Every sentence is a fixed phrase around fields of records. The one idea: a lesson is what a
prediction, registered before its trial, was worth once it was measured; a closed table words it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from agent.records import RoundRecord
from agent.report.calibration import score
from agent.report.replays import round_title
from agent.report.reviews import SIGNS, advice_words
from agent.report.tables import metric_of, metrics_of
from agent.report.text import (
    UNMEASURED,
    arrow,
    escape,
    interval_of,
    overlap,
    percent,
    scaled,
    table,
    value_of,
)
from agent.review_records import Outcome, ReviewRecord
from pipeline.types import Metric

Result = Literal["hit", "idle", "overshot", "short", "chance", "opposite", "unmeasured", "unscored"]
LESSONS: Final[dict[Result, str]] = {
    "hit": "moved into the predicted interval: keep the change.",
    "idle": "lay in the predicted interval before the change too: the hit shows nothing about it.",
    "overshot": "moved as predicted and further: keep the change, and predict a larger effect.",
    "short": "moved as predicted but not far enough: keep the change, treat what is left by cause.",
    "chance": "missed, but before and after overlap: these rows cannot tell an effect from chance.",
    "opposite": "moved against the prediction: revert the change, and look for another cause.",
    "unmeasured": "was not measured before and after: nothing is learned about it.",
    "unscored": "could not miss, or was foretold twice: nothing is learned from it.",
}
"""The lesson for each result of a prediction; the report says that it comes from here."""


@dataclass(frozen=True, slots=True)
class Learning:
    """What one review's changes taught, once the round after it was measured."""

    number: int
    """1 for the first."""
    title: str
    """The changes."""
    before: int
    """The round that was reviewed."""
    after: str
    """The round that tried the changes, and whether it did on stored rows."""
    hypotheses: tuple[str, ...]
    """What was expected, and the reviewer's reason."""
    reality: str
    """Table of predicted metrics: expected and measured; empty if nothing was predicted."""
    moved: tuple[str, ...]
    """Other metrics that moved beyond chance."""
    causes: str
    """Bad rows by cause, before and after; empty if there was none."""
    lessons: tuple[str, ...]
    """A sentence for each prediction, from :data:`LESSONS`."""


def learnings(rounds: Sequence[RoundRecord]) -> list[Learning]:
    """One learning for each review whose changes have been tried."""
    tried = [
        (reviewed, after)
        for reviewed, after in zip(rounds, rounds[1:], strict=False)
        if reviewed.review and reviewed.review.applied
    ]
    return [
        _learning(i, reviewed, after, rounds) for i, (reviewed, after) in enumerate(tried, start=1)
    ]


def _learning(
    index: int, reviewed: RoundRecord, after: RoundRecord, rounds: Sequence[RoundRecord]
) -> Learning:
    """What was tried is compared with the round that it was applied to."""
    record = reviewed.review
    assert record is not None
    before = applied_to(rounds, reviewed)
    predicted = {o.prediction.metric for o in record.outcomes}
    return Learning(
        number=index,
        title=advice_words(record),
        before=reviewed.round,
        after=round_title(after).lower(),
        hypotheses=tuple(f"`{c.parameter}`: {escape(c.reason)}" for c in record.applied),
        reality=_reality(record.outcomes, before, after),
        moved=_moved(before, after, besides=predicted),
        causes=_causes(before, after),
        lessons=(*_lessons(record, before, after), *_undone(after)),
    )


def applied_to(rounds: Sequence[RoundRecord], reviewed: RoundRecord) -> RoundRecord:
    """The round whose setting the changes of a review apply to."""
    base = reviewed.review.base if reviewed.review else None
    return next((r for r in rounds if r.round == base), reviewed)


def _undone(after: RoundRecord) -> tuple[str, ...]:
    """That the whole trial was taken back, if it was."""
    base = after.review.base if after.review else None
    if base is None:
        return ()
    return (f"Round {after.round} was significantly worse than round {base} and was undone.",)


def _reality(outcomes: Sequence[Outcome], before: RoundRecord, after: RoundRecord) -> str:
    rows = []
    for outcome in outcomes:
        name, guess = outcome.prediction.metric, outcome.prediction
        was, now = metric_of(before, name), metric_of(after, name)
        rows.append(
            [
                name if was or now else escape(name, limit=40),
                value_of(was) if was else UNMEASURED,
                f"{scaled(name, guess.low)} to {scaled(name, guess.high)}",
                percent(guess.probability),
                value_of(now) if now else UNMEASURED,
                interval_of(now) if now else "–",
                SIGNS[outcome.hit],
                "–" if outcome.score is None else score(outcome.score),
            ]
        )
    header = ["Metric", f"Round {before.round}", "Predicted", "With probability"]
    header += [f"Round {after.round}", "Interval", "Prediction", "Brier score"]
    return table(header, rows, "lrrrrrlr") if rows else ""


def _moved(before: RoundRecord, after: RoundRecord, *, besides: set[str]) -> tuple[str, ...]:
    """Metrics that nobody predicted and that moved further than their intervals explain."""
    lines = []
    for now in metrics_of(after):
        was = metric_of(before, now.name)
        sign = arrow(was, now)
        if was and sign and not sign.startswith("(") and now.name not in besides:
            lines.append(f"{now.name} {value_of(was)} → {value_of(now)} {sign}")
    return tuple(lines)


def _causes(before: RoundRecord, after: RoundRecord) -> str:
    names = sorted({*before.causes, *after.causes}, key=lambda c: (-before.causes.get(c, 0), c))
    rows = [r.funnel["generated"] for r in (before, after)]
    return "; ".join(
        f"{escape(c)} {before.causes.get(c, 0)}/{rows[0]} → {after.causes.get(c, 0)}/{rows[1]}"
        for c in names
    )


def _lessons(record: ReviewRecord, before: RoundRecord, after: RoundRecord) -> tuple[str, ...]:
    if not record.review.predictions:
        return ("No prediction was registered, so there is nothing to score.",)
    if not record.outcomes:
        return ("The predictions have not been scored.",)
    lines = [
        f"{escape(o.prediction.metric, limit=40)} {LESSONS[result(o, before, after)]}"
        for o in record.outcomes
    ]
    if len(record.applied) > 1:
        count = len(record.applied)
        lines.append(f"{count} parameters changed at once: no effect can be laid to one of them.")
    return tuple(lines)


def result(outcome: Outcome, before: RoundRecord, after: RoundRecord) -> Result:
    """What became of a prediction, against the value and the interval before the change."""
    name, guess = outcome.prediction.metric, outcome.prediction
    was, now = metric_of(before, name), metric_of(after, name)
    if outcome.actual is None or was is None or was.value is None or now is None:
        return "hit" if outcome.hit else "unmeasured"
    if outcome.hit is None:
        return "unscored"
    if outcome.hit:
        return "idle" if guess.low <= was.value <= guess.high else "hit"
    newly_failing = now.verdict == "FAIL" and was.verdict != "FAIL"
    if overlap(was, now) and not newly_failing:
        return "chance"
    return _missed(was, now, aim=(guess.low + guess.high) / 2, actual=outcome.actual)


def _missed(was: Metric, now: Metric, *, aim: float, actual: float) -> Result:
    assert was.value is not None
    wanted, got = aim - was.value, actual - was.value
    if wanted * got <= 0:
        return "opposite"
    return "overshot" if abs(got) > abs(wanted) else "short"
