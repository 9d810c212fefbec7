"""What a reviewer's predictions were worth: claimed against held, in one run and over runs.

Counting is ``agent/tracks.py``'s. The one idea: a judgement in words is made only where there are
enough predictions, and says no more than a test of them does.
"""

from collections.abc import Sequence
from math import exp, lgamma, log
from typing import Final

from agent.records import RoundRecord, RunRecord
from agent.report.text import UNMEASURED, dollars, escape, percent, plural, share
from agent.review_records import Track
from agent.tracks import of_rounds

ENOUGH: Final = 20
"""Measured predictions before a reviewer is judged in words."""
INDEPENDENT: Final = "(if predictions of one round are taken as independent)"
"""What a judgement against a reviewer rests on."""
_TAIL: Final = 0.025


def calibration(rounds: Sequence[RoundRecord], run: RunRecord) -> list[str]:
    """A line for each reviewer of the run, with its record over earlier runs."""
    earlier = {track.reviewer: track for track in run.tracks}
    return [
        f"**Predictions of {escape(track.reviewer, limit=60)}:** {held(track)}. "
        f"{_before(earlier.get(track.reviewer))}"
        for track in of_rounds(rounds)
    ]


def held(track: Track) -> str:
    """How many predictions held, what was claimed, and the score."""
    if not track.predictions:
        return "none has been measured"
    return (
        f"{track.hits} of {track.predictions} held ({share(track.hits, track.predictions)}), "
        f"{percent(track.claimed)} claimed on average, Brier score {score(track.brier)}"
    )


def score(brier: float | None) -> str:
    """A Brier score with three decimals."""
    return UNMEASURED if brier is None else f"{brier:.3f}"


def _before(track: Track | None) -> str:
    if track is None:
        return "It reviewed no earlier run here."
    undone = f"{track.reverted} of {plural(track.reviews, 'review')} undone"
    return (
        f"In {plural(track.runs, 'earlier run')}: {held(track)}; {undone}, "
        f"{dollars(track.cost_usd)}: {judgement(track)}."
    )


def judgement(track: Track) -> str:
    """What the figures justify saying of a reviewer.

    *Claims too much* or *too little*: so many hits or fewer (or more) have a chance of at most
    2.5 % if every claim is right, taken as binomial at the mean claim, which errs on the careful
    side (Hoeffding, Annals of Mathematical Statistics 27, 1956). That takes predictions as
    independent, while those of one round share its rows and come true or fail together: of such,
    more than 2.5 % are this far off by chance, so the words say what they rest on. *Constant
    guess*: claiming one's own share of hits every time, the reference of a skill score (Murphy,
    Journal of Applied Meteorology 12, 1973).
    """
    hits, count = track.hits, track.predictions
    if count < ENOUGH or track.claimed is None or track.brier is None:
        return f"fewer than {ENOUGH} predictions measured, too few to judge"
    if _at_most(hits, count, track.claimed) <= _TAIL:
        words = f"claims too much {INDEPENDENT}"
    elif _at_most(count - hits, count, 1 - track.claimed) <= _TAIL:
        words = f"claims too little {INDEPENDENT}"
    else:
        words = "claims about what holds"
    constant = hits * (count - hits) / count**2
    if not constant:
        return words
    return f"{words}, {'better' if track.brier < constant else 'no better'} than a constant guess"


def _at_most(hits: int, count: int, chance: float) -> float:
    """The probability of so many hits or fewer."""
    if not 0 < chance < 1:
        return 1.0 if chance <= 0 or hits >= count else 0.0
    ways = (
        lgamma(count + 1) - lgamma(k + 1) - lgamma(count - k + 1)
        + k * log(chance) + (count - k) * log(1 - chance)
        for k in range(hits + 1)
    )  # fmt: skip
    return sum(map(exp, ways))
