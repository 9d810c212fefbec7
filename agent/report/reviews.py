"""Reviews: what was recommended, what the guard let through, what came of it, what it cost.

A reviewer's words are a model's words: they are escaped, and cut where a cell holds them. The one
idea: an outcome is shown only when it was measured, and says so when it was not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agent.records import RoundRecord
from agent.report.replays import round_title
from agent.report.text import (
    UNMEASURED,
    code,
    dollars,
    escape,
    percent,
    plural,
    scaled,
    setting,
    table,
)
from agent.review_records import Applied, ReviewRecord

SIGNS: Final[dict[bool | None, str]] = {True: "✅ hit", False: "❌ miss", None: UNMEASURED}
"""How a scored prediction is shown."""


@dataclass(frozen=True, slots=True)
class ReviewView:
    """One review, ready for the template; every text is escaped."""

    summary: str
    """Who, how sure, at what cost."""
    learnings_path: str
    """What it was sent."""
    diagnosis: str
    """The reviewer's words."""
    changes: str
    """Table of what was applied; empty if nothing was."""
    refused: str
    """Table of what the guard refused; empty if nothing was."""
    distrusted: str
    """Metrics that the reviewer holds to be wrong; empty if none."""
    stop: bool
    """It advises to end the run."""
    expected: tuple[str, ...]
    """A line for each prediction."""


def review_view(record: ReviewRecord) -> ReviewView:
    """The view of a stored review."""
    applied = [
        [f"`{c.parameter}`", setting(c.before), setting(c.after), escape(c.reason)]
        for c in record.applied
    ]
    refused = [[code(r.parameter), code(r.value), escape(r.why)] for r in record.refused]
    return ReviewView(
        summary=(
            f"**{escape(record.reviewer, limit=60)}**, confidence "
            f"{percent(record.review.confidence)}, {dollars(record.cost_usd)} for "
            f"{plural(record.requests, 'request')}"
        ),
        learnings_path=record.learnings_path,
        diagnosis=escape(record.review.diagnosis, limit=2000),
        changes=table(["Applied", "Before", "After", "Reason"], applied) if applied else "",
        refused=table(["Refused", "Value", "Why"], refused) if refused else "",
        distrusted=", ".join(code(m, limit=40) for m in record.review.distrusted_metrics),
        stop=record.review.stop,
        expected=tuple(
            f"{escape(p.metric, limit=40)}: {scaled(p.metric, p.low)} to "
            f"{scaled(p.metric, p.high)}, with probability {percent(p.probability)}"
            for p in record.review.predictions
        ),
    )


def change_words(change: Applied) -> str:
    """A change as ``name`` before → after."""
    return f"`{change.parameter}` {setting(change.before)} → {setting(change.after)}"


def review_table(rounds: Sequence[RoundRecord]) -> str:
    """Every review with its recommendation, measured outcome and cost."""
    rows = []
    for record in rounds:
        if record.review is None:
            continue
        review = record.review
        advice = "; ".join(map(change_words, review.applied)) or "change nothing"
        rows.append(
            [
                round_title(record),
                escape(review.reviewer, limit=60),
                "stop" if review.review.stop else advice,
                _outcome_words(review),
                percent(review.review.confidence),
                dollars(review.cost_usd),
            ]
        )
    header = ["After", "Reviewer", "Recommendation", "Outcome (measured)", "Confidence", "Cost"]
    return table(header, rows, "llllrr") if rows else ""


def _outcome_words(review: ReviewRecord) -> str:
    if not review.review.predictions:
        return "no prediction registered"
    if not review.outcomes:
        return "awaits the next round"
    words = (
        f"{SIGNS[o.hit].split()[0] if o.hit is not None else '·'} "
        f"{escape(o.prediction.metric, limit=40)} {scaled(o.prediction.metric, o.actual)}"
        for o in review.outcomes
    )
    return "; ".join(words)
