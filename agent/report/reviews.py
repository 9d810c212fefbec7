"""Reviews: what was recommended, what the guard let through, what came of it, what it cost.

A reviewer's words are a model's words: they are escaped, and cut where a cell holds them. The one
idea: what was foretold stands beside what was measured, and what the reviewer did beside what the
built-in rules would have done for nothing; an outcome is shown only when it was measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agent.best import compared
from agent.records import RoundRecord
from agent.report.baseline import change_words, refused_table, rules_cell, rules_table, rules_words
from agent.report.calibration import score
from agent.report.replays import round_title
from agent.report.steps import phase
from agent.report.text import (
    code,
    dollars,
    escape,
    percent,
    plural,
    scaled,
    sentence,
    setting,
    table,
)
from agent.review_records import Outcome, ReviewRecord

SIGNS: Final[dict[bool | None, str]] = {True: "✅ hit", False: "❌ miss", None: "not scored"}
"""How a scored prediction is shown."""
CONSEQUENCES: Final = {
    "stands": "it goes on deciding",
    "withdrawn": "it decides nothing from now on: it can neither pass nor fail a round",
    "not audited": "nothing changes for it",
}
"""What follows from the audit of a metric."""


@dataclass(frozen=True, slots=True)
class ReviewView:
    """One review, ready for the template; every text is escaped."""

    summary: str
    """Who, how sure, at what cost."""
    learnings_path: str
    """What it was sent."""
    left_out: str
    """Parts that what it was sent had no room for; empty if none."""
    diagnosis: str
    """The reviewer's words."""
    undone: str
    """Which round is undone, and whose setting the changes apply to; empty if none is."""
    changes: str
    """Table of what was applied; empty if nothing was."""
    refused: str
    """Table of what the guard refused; empty if nothing was."""
    predictions: str
    """Table of what was foretold, with what was measured; empty if nothing was foretold."""
    rules: str
    """What the rules would have done in its place; empty if they were the reviewer."""
    rules_table: str
    """Their changes beside the reviewer's; empty where they are the same."""
    audits: tuple[str, ...]
    """A line for each metric that the reviewer holds to be wrong."""
    stop: bool
    """It advises to end the run."""
    expected: tuple[str, ...]
    """A line for each prediction; none if the run ended before its trial."""


def review_view(rounds: Sequence[RoundRecord]) -> ReviewView | None:
    """The view of the review after the last of ``rounds``; None if there was none."""
    record = rounds[-1]
    review = record.review
    if review is None:
        return None
    header = ["Applied", "Before", "After", "Reason"]
    applied = [
        [f"`{c.parameter}`", setting(c.before), setting(c.after), escape(c.reason)]
        for c in review.applied
    ]
    return ReviewView(
        summary=_summary(review),
        learnings_path=review.learnings_path,
        left_out=escape(", ".join(review.left_out)),
        diagnosis=escape(review.review.diagnosis, limit=2000),
        undone=_undone(rounds),
        changes=table(header, applied) if applied else "",
        refused=refused_table(review.refused),
        predictions=_predictions(record, review),
        rules=rules_words(review),
        rules_table=rules_table(review),
        audits=_audits(review),
        stop=review.review.stop,
        expected=tuple(
            f"{escape(p.metric, limit=40)}: {_span(p.metric, p.low, p.high)}, with probability "
            f"{percent(p.probability)}"
            for p in review.review.predictions
            if phase(record) != "stopped"
        ),
    )


def _summary(review: ReviewRecord) -> str:
    cost = f"{dollars(review.cost_usd)} for {plural(review.requests, 'request')}"
    if review.at_most_usd is not None:
        cost += f" (the first could cost at most {dollars(review.at_most_usd)})"
    sure = percent(review.review.confidence)
    return f"**{escape(review.reviewer, limit=60)}**, confidence {sure}, {cost}"


def _undone(rounds: Sequence[RoundRecord]) -> str:
    now = rounds[-1]
    base = next((r for r in rounds if now.review and r.round == now.review.base), None)
    if base is None:
        return ""
    return (
        f"**Round {now.round} is undone.** {compared(now, base)}: significantly worse, so what "
        f"follows applies to the setting of round {base.round}."
    )


def _span(metric: str, low: float, high: float) -> str:
    return f"{scaled(metric, low)} to {scaled(metric, high)}"


def _predictions(record: RoundRecord, review: ReviewRecord) -> str:
    """Outcomes where they are known; before that, what was foretold."""
    outcomes = review.outcomes or tuple(
        Outcome(prediction=p, actual=None, hit=None) for p in review.review.predictions
    )
    waits = "" if review.outcomes else _waits(record)
    rows = [
        [
            escape(o.prediction.metric, limit=40),
            _span(o.prediction.metric, o.prediction.low, o.prediction.high),
            percent(o.prediction.probability),
            waits or scaled(o.prediction.metric, o.actual),
            "–" if waits else SIGNS[o.hit],
            "–" if o.score is None else score(o.score),
        ]
        for o in outcomes
    ]
    replayed = review.replay is not None and not review.replay.bought
    trial = f"Round {record.round + 1}" + (" (replayed)" if replayed else "")
    header = ["Metric", "Foretold", "With probability", trial, "Outcome", "Brier score"]
    return table(header, rows, "lrrrlr") if rows else ""


def _waits(record: RoundRecord) -> str:
    return "not tried" if phase(record) == "stopped" else "awaited"


def _audits(review: ReviewRecord) -> tuple[str, ...]:
    audited = {audit.metric for audit in review.audits}
    lines = [
        f"{code(a.metric, limit=40)}: **{a.outcome}**: {sentence(a.found)} "
        f"So {CONSEQUENCES[a.outcome]}."
        for a in review.audits
    ]
    rest = [m for m in dict.fromkeys(review.review.distrusted_metrics) if m not in audited]
    return (*lines, *(f"{code(m, limit=40)}: no audit was made of it." for m in rest))


def advice_words(review: ReviewRecord) -> str:
    """All that follows from a review: what is undone, and what is changed; empty if nothing is."""
    back = [f"back to round {review.base}"] if review.base is not None else []
    none = [f"nothing, {len(review.refused)} refused"] if review.refused else []
    return "; ".join([*back, *(map(change_words, review.applied) if review.applied else none)])


def review_table(rounds: Sequence[RoundRecord]) -> str:
    """Every review with its recommendation, measured outcome and cost."""
    reviewed = [(r, r.review) for r in rounds if r.review is not None]
    undone = {r.round - 1: review.base for r, review in reviewed if review.base is not None}
    beside = any(review.baseline for _, review in reviewed)
    header = ["After", "Reviewer", "Recommendation", "Outcome (measured)", "Brier score"]
    header += [*(["The rules"] if beside else []), "Confidence", "Cost"]
    rows = [
        [
            round_title(record),
            escape(review.reviewer, limit=60),
            "stop" if review.review.stop else advice_words(review) or "change nothing",
            _outcome_words(record, review, undone.get(record.round)),
            _mean_score(review),
            *([rules_cell(review)] if beside else []),
            percent(review.review.confidence),
            dollars(review.cost_usd),
        ]
        for record, review in reviewed
    ]
    return table(header, rows, "llllrlrr" if beside else "llllrrr") if rows else ""


def _mean_score(review: ReviewRecord) -> str:
    scores = [o.score for o in review.outcomes if o.score is not None]
    return score(sum(scores) / len(scores)) if scores else "–"


def _outcome_words(record: RoundRecord, review: ReviewRecord, undone: int | None) -> str:
    back = [] if undone is None else [f"**undone**: back to round {undone}"]
    if not review.review.predictions:
        return "; ".join(["no prediction registered", *back])
    if not review.outcomes:
        return "not tried" if phase(record) == "stopped" else "awaits the next round"
    words = (
        f"{SIGNS[o.hit].split()[0] if o.hit is not None else '·'} "
        f"{escape(o.prediction.metric, limit=40)} {scaled(o.prediction.metric, o.actual)}"
        for o in review.outcomes
    )
    return "; ".join([*words, *back])
