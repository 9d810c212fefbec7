"""Which round's setting is the best so far, and whether the last one is clearly worse.

After a clearly worse round the next changes apply to the best round's setting: that is all there is
to a revert. The yardstick is kept rows per generated instruction, since every gate's bad rows are
missing from it. The one idea: a revert needs a significant difference, by a test that is exact at
24 rows; why this one is ``docs/decisions/014-revert.md``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import exp, lgamma
from typing import Any, Final, Protocol, TypeVar

from agent.policy import Decision, Step
from agent.records import RoundRecord
from pipeline.verdict import lower_limit

_LEVEL: Final = 0.05
"""Chance at most that a round no worse than any before it is undone."""
_LEAST: Final = 0.02
"""Smaller differences in the share of kept rows are not worth a revert, however sure they are."""
_WITHOUT_A_PASS: Final = frozenset(
    {Step.STOP_BUDGET, Step.STOP_ROUNDS, Step.STOP_REVIEWER, Step.STOP_NO_CHANGE}
)
_Share = tuple[int, int]
"""Good rows, and of how many."""


class Measured(Protocol):
    """A round, as far as it is compared with others."""

    @property
    def round(self) -> int:
        """Its number."""
        ...

    @property
    def replayed(self) -> bool:
        """Whether it was measured on stored rows."""
        ...

    @property
    def funnel(self) -> Mapping[str, int]:
        """Rows by stage."""
        ...

    def metric(self, name: str) -> Mapping[str, Any] | None:
        """The metric called ``name``, or None."""
        ...


_Round = TypeVar("_Round", bound=Measured)


def kept_share(record: Measured) -> float | None:
    """Kept rows per generated instruction; None if that was not measured on rows of its own."""
    share = _kept(record)
    return None if share is None else share[0] / share[1]


def clearly_worse(record: Measured, other: Measured, *, among: int = 1) -> bool:
    """Whether ``record`` kept a significantly smaller share of its rows than ``other``.

    Fisher's exact test, one-sided, at 5 % divided by ``among``. It is exact where normal limits are
    not: at 24 rows, near 0 and 1, and between rounds of very different length. It is no sequential
    test: rounds stop by their gates, and an error here costs a round or two, never a verdict.

    Where a share of kept rows is missing, as after a replay, answered rows without a flag decide. A
    longer round repeats itself more at the same setting, so where ``record`` is the longer one
    repeats are left out of both.

    Args:
        record: The round that may be worse.
        other: The round that it is compared with.
        among: Rounds that ``other`` is the best of: the best of several is partly luck.
    """
    longer = record.funnel["generated"] > other.funnel["generated"]
    mine, theirs = _shares((record, other), but_repeats=longer)
    if mine is None or theirs is None:
        return False
    if theirs[0] / theirs[1] - mine[0] / mine[1] <= _LEAST:
        return False
    return _chance_of_so_few(mine, theirs) <= _LEVEL / among


def best(rounds: Sequence[_Round]) -> _Round:
    """The bought round that surely kept the largest share; of equal ones the last.

    By the lower 95 % limit of the share: a few lucky rows are no reason to go back to a round.
    """
    bought = [record for record in rounds if not record.replayed] or rounds
    surely = [-1.0 if share is None else lower_limit(*share) for share in _shares(bought)]
    return max(zip(surely, bought, strict=True), key=lambda pair: (pair[0], pair[1].round))[1]


def base(rounds: Sequence[_Round]) -> _Round:
    """The round whose setting the next changes apply to: the last one, unless it is undone.

    It is undone if it is clearly worse than the best one before it.
    """
    last, earlier = rounds[-1], rounds[:-1]
    bought = sum(not record.replayed for record in earlier)
    if bought and clearly_worse(last, best(earlier), among=bought):
        return best(earlier)
    return last


def with_best(decision: Decision, rounds: Sequence[RoundRecord]) -> Decision:
    """An ending without a pass says which of several settings was the best one."""
    bought = [record for record in rounds if not record.replayed]
    passed = bool(bought) and bought[-1].step == Step.APPROVE
    if decision.step not in _WITHOUT_A_PASS or passed or len(bought) < 2:
        return decision
    found = best(bought)
    (share,) = _shares([found])
    told = "" if share is None else f", with {share[0]} of {share[1]} rows"
    which = f"the best of {len(bought)} settings was round {found.round}'s{told}"
    return replace(decision, reason=f"{decision.reason}; {which}")


def compared(record: Measured, other: Measured) -> str:
    """What two rounds made of their rows: "Round 3 kept 52 of 128 rows, round 1 70 of 96".

    Replayed rows are not kept, so there answered rows without a flag are told.
    """
    mine, theirs = ("none" if s is None else f"{s[0]} of {s[1]}" for s in _shares((record, other)))
    told = "kept" if _kept(record) and _kept(other) else "has no flag in"
    return f"Round {record.round} {told} {mine} rows, round {other.round} {theirs}"


def _shares(records: Sequence[Measured], *, but_repeats: bool = False) -> Sequence[_Share | None]:
    """What each record kept of its rows, all by the same yardstick."""
    kept = [_kept(record, but_repeats=but_repeats) for record in records]
    return [_unflagged(record) for record in records] if None in kept else kept


def _kept(record: Measured, *, but_repeats: bool = False) -> _Share | None:
    metric, repeated = record.metric("raw_acceptance"), record.metric("duplicates")
    if record.replayed or metric is None or metric["count"] is None or not metric["n"]:
        return None
    repeats = (repeated["count"] or 0) if but_repeats and repeated is not None else 0
    return metric["count"], max(metric["n"] - repeats, metric["count"], 1)


def _unflagged(record: Measured) -> _Share | None:
    answered = record.funnel["answered"]
    return (record.funnel["unflagged"], answered) if answered else None


def _chance_of_so_few(mine: _Share, theirs: _Share) -> float:
    """Of as few good rows as ``mine`` has, or fewer, if both are the same: Fisher (1935)."""
    (good, n), (other_good, other_n) = mine, theirs
    together, fewest = good + other_good, max(0, good + other_good - other_n)

    def chance(k: int) -> float:
        ways = _log_ways(n, k) + _log_ways(other_n, together - k)
        return exp(ways - _log_ways(n + other_n, together))

    return min(1.0, sum(map(chance, range(fewest, good + 1))))


def _log_ways(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)
