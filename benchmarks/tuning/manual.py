"""The way of a team that tuned by hand, as a list of moves, each with the symptom that called it.

They tightened the sampling first, which made things worse; took it back, and added stop strings
and a cap of 100; blamed the cap for cut answers and doubled it; went to moderate sampling; had a
critic margin of 1; and met repeats with other examples and topics. The one idea: the first move of
the list whose symptom is there and whose target is not reached yet is made, as far as one round's
steps reach.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from agent.best import base, kept_share
from agent.guard import WIDEST
from agent.records import RoundRecord
from agent.review_records import Change, Prediction, Review
from agent.reviewers.base import Pay
from agent.reviewers.markers import DEFAULT_STOPS
from agent.reviewers.reach import Span, reach, refused
from pipeline.params import GenParams, ParamValue

Targets = dict[str, Any]
_DRAWS: Final = ("instruction.temperature", "response.temperature", "instruction.top_p",
                 "response.top_p")  # fmt: skip
_MANY_DUPLICATES: Final = 0.2


@dataclass(frozen=True, slots=True)
class Move:
    """One entry of the list."""

    name: str
    """What they called it; a review says it, so that the next one knows how far the list is."""
    symptoms: frozenset[str]
    """Gates of which one must be in trouble."""
    targets: Callable[[GenParams, GenParams], Targets]
    """Values to go to, from the first round's setting and the present one."""
    once: bool = False
    """Whether it is made in one round only."""


def _tightened(first: GenParams, now: GenParams) -> Targets:
    """Cooler and narrower draws; their higher penalty would be two changes more than allowed."""
    less = {"temperature": 0.1, "top_p": 0.05}
    return {name: _number(now, name) - less[name.split(".")[1]] for name in _DRAWS}


def _stopped(first: GenParams, now: GenParams) -> Targets:
    back = {name: first.get(name) for name in _DRAWS}
    cap = max(100, now.response.max_new_tokens)
    return back | {"response.stop": DEFAULT_STOPS, "response.max_new_tokens": cap}


def _moderate(first: GenParams, now: GenParams) -> Targets:
    start = GenParams()
    names = ("temperature", "repetition_penalty", "top_p")
    return {f"{verb}.{n}": start.get(f"{verb}.{n}")
            for verb in ("response", "instruction") for n in names}  # fmt: skip


MOVES: Final = (
    Move("tighten the sampling", frozenset({"runaway", "token_limit", "truncated"}),
         _tightened, once=True),
    Move("take it back, add stop strings, cap 100", frozenset({"runaway", "token_limit"}),
         _stopped),
    Move("cap 200", frozenset({"token_limit", "truncated"}),
         lambda first, now: {"response.max_new_tokens": max(200, now.response.max_new_tokens)}),
    Move("moderate sampling",
         frozenset({"repetition", "truncated", "empty", "delimiter_leak", "runaway",
                    "instruction_acceptance", "pair_acceptance"}),
         _moderate),
    Move("critic margin 1", frozenset({"instruction_acceptance", "pair_acceptance"}),
         lambda first, now: {"critic.instruction_margin": 1.0, "critic.pair_margin": 1.0}),
    Move("other examples and topics", frozenset({"duplicates", "yield"}),
         lambda first, now: {"fewshot.rotation": "rotate", "topics": "hints", "fewshot.count": 7}),
)  # fmt: skip


class ManualReviewer:
    """Reviews by that list."""

    name: Final = "manual"

    def __init__(self, *, max_changes: int) -> None:
        self._max_changes = max_changes

    def review(self, learnings: str, rounds: Sequence[RoundRecord], *, pay: Pay) -> Review:
        """The next move; at the end of the list, stop."""
        now, found = base(rounds), troubles(rounds[-1])
        spans = reach(now, (DEFAULT_STOPS,))
        made = {r.review.review.diagnosis for r in rounds[:-1] if r.review is not None}
        for move in MOVES:
            if not move.symptoms & found or (move.once and move.name in made):
                continue
            wanted = move.targets(rounds[0].params, now.params)
            changes = _toward(spans, wanted)[: self._limit(move)]
            review = _review(move.name, rounds, changes)
            if changes and not refused(review, now, rounds, self._max_changes):
                return review
        return Review(
            diagnosis="the list is at its end", changes=(), predictions=(), confidence=0.5,
            stop=True,
        )  # fmt: skip

    def _limit(self, move: Move) -> int | None:
        """Values that go back to an earlier round's are not counted by the guard."""
        return None if move.targets is _stopped else self._max_changes


def troubles(record: RoundRecord) -> frozenset[str]:
    """Gates on the wrong side of their limit or unmeasured, and ``duplicates`` where many are."""
    found = {m["name"] for m in record.metrics if m["threshold"] and _in_trouble(m)}
    repeats = record.metric("duplicates")
    if repeats is not None and (repeats["value"] or 0.0) >= _MANY_DUPLICATES:
        found.add("duplicates")
    return frozenset(found)


def _in_trouble(metric: dict[str, Any]) -> bool:
    if metric["value"] is None:
        return bool(metric["name"] != "yield")
    sign, limit = metric["threshold"].split()
    wrong = metric["value"] >= float(limit) if sign == "<" else metric["value"] < float(limit)
    return bool(wrong or metric["verdict"] == "FAIL")


def _toward(spans: dict[str, Span], wanted: Targets) -> list[Change]:
    """As far toward the ``wanted`` values as this round's steps reach; what is there stays."""
    changes = []
    for name, target in wanted.items():
        span = spans.get(name)
        if span is None:
            continue
        value = _nearest(span, target)
        if span.moved(value):
            plain = list(value) if isinstance(value, tuple) else value
            changes.append(Change(parameter=name, value=plain, reason=f"toward {target!r}"))
    return changes


def _nearest(span: Span, target: ParamValue) -> ParamValue:
    if span.choices or isinstance(target, str | tuple):
        return target
    return span.at(min(max(target, span.low), span.high))


def _review(name: str, rounds: Sequence[RoundRecord], changes: Sequence[Change]) -> Review:
    share = max((kept_share(record) or 0.0 for record in rounds), default=0.0)
    low = round(min(max(share, 0.05), 0.99), 4)
    high = min(round(low + WIDEST, 4), 1.0)
    expected = Prediction(metric="raw_acceptance", low=low, high=high, probability=0.7)
    return Review(diagnosis=name, changes=tuple(changes), predictions=(expected,), confidence=0.7)


def _number(params: GenParams, name: str) -> float:
    value = params.get(name)
    assert isinstance(value, int | float)
    return value
