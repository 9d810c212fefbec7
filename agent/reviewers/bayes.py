"""A reviewer that searches: Optuna's tree-structured Parzen estimator over the bounded space.

It knows nothing of causes: each bought round is a trial with one number, and the next setting is
drawn where better trials were denser. The one idea: the study is made anew from the records at
every review, so the answer is a function of them and of the seed, and nothing else is kept.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from agent.best import base, kept_share
from agent.guard import WIDEST
from agent.records import RoundRecord
from agent.review_records import Change, Prediction, Review
from agent.reviewers.base import Pay
from agent.reviewers.reach import Span, reach, refused, stop_sets
from pipeline.params import TUNABLE, GenParams, ParamValue, Tunable

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

_STARTUP: Final = 4
"""Rounds that are drawn at random before the estimator has something to estimate from."""
_TRIES: Final = 50
"""Draws before it gives up to find a setting that was not measured yet."""
_LEAST_KEPT: Final = 0.05
_MOST_KEPT: Final = 0.99


class BayesReviewer:
    """Reviews by search; ``max_changes`` and ``seed`` as in the configuration."""

    name: Final = "bayes"

    def __init__(self, *, max_changes: int, seed: int) -> None:
        self._max_changes = max_changes
        self._seed = seed

    def review(self, learnings: str, rounds: Sequence[RoundRecord], *, pay: Pay) -> Review:
        """A review from the records, free; the report says the same in words and is not read."""
        return propose(rounds, max_changes=self._max_changes, seed=self._seed)


def propose(rounds: Sequence[RoundRecord], *, max_changes: int, seed: int) -> Review:
    """The next setting, at most ``max_changes`` from the one that changes apply to."""
    now = base(rounds)
    spans = reach(now, stop_sets(rounds, now.params))
    for attempt in range(_TRIES):
        drawn = _draw(rounds, spans, seed=_seed(seed, rounds[-1].round, attempt))
        moved = _farthest(drawn, spans, max_changes)
        review = _review(rounds, now, moved)
        if moved and not refused(review, now, rounds, max_changes):
            return review
    return _review(rounds, now, {})


def objective(record: RoundRecord) -> float:
    """What is maximised: the share of rows kept, less how far each gate is beyond its limit.

    A gate's shortfall is 0 on the right side of its limit, and on the wrong side the distance to it
    as a share of the longest one possible; a gate that is not measured counts as 1. The forecast's
    gate is left out: its rows are in the share kept.
    """
    gates = (m for m in record.metrics if m["threshold"] and m["name"] != "yield")
    return (kept_share(record) or 0.0) - sum(_shortfall(m) for m in gates)


def _shortfall(metric: Mapping[str, Any]) -> float:
    sign, number = metric["threshold"].split()
    if metric["value"] is None:
        return 1.0
    value, limit = float(metric["value"]), float(number)
    if sign == "<":
        return max(0.0, value - limit) / (1 - limit)
    return max(0.0, limit - value) / limit


def _draw(
    rounds: Sequence[RoundRecord], spans: Mapping[str, Span], *, seed: int
) -> dict[str, ParamValue]:
    """One draw within ``spans`` by the estimator, from all rounds that were bought."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # Ranges move with the setting, so each parameter is drawn by itself.
    sampler = optuna.samplers.TPESampler(n_startup_trials=_STARTUP, multivariate=False, seed=seed)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials([_trial(r, spans) for r in rounds if not r.replayed])
    asked = study.ask({name: _distribution(span) for name, span in spans.items()}).params
    return {name: span.at(_value(asked[name], span)) for name, span in spans.items()}


def _trial(record: RoundRecord, spans: Mapping[str, Span]) -> "FrozenTrial":
    from optuna.trial import create_trial

    held = {name: record.params.get(name) for name in spans}
    known = {name: value for name, value in held.items() if value is not None}
    return create_trial(
        value=objective(record),
        params={name: _name(value) for name, value in known.items()},
        distributions={name: _whole(spans[name]) for name in known},
    )


def _whole(span: Span) -> "BaseDistribution":
    """The range of a parameter over all rounds, which holds every trial's value."""
    tunable = span.tunable
    return _numbers(tunable, tunable.low, tunable.high) or _distribution(span)


def _distribution(span: Span) -> "BaseDistribution":
    """What can be drawn in this round."""
    from optuna.distributions import CategoricalDistribution

    found = _numbers(span.tunable, span.low, span.high)
    return found or CategoricalDistribution([_name(choice) for choice in span.choices])


def _numbers(tunable: Tunable, low: float | None, high: float | None) -> "BaseDistribution | None":
    from optuna.distributions import FloatDistribution, IntDistribution

    if low is None or high is None or tunable.low is None:
        return None
    if tunable.kind == "int":
        return IntDistribution(int(low), int(high), log=tunable.factor is not None)
    return FloatDistribution(low, high)


def _name(value: ParamValue) -> Any:
    """A set of stop strings as one text, whatever their order; anything else as it is."""
    return json.dumps(sorted(value)) if isinstance(value, tuple) else value


def _value(asked: Any, span: Span) -> ParamValue:
    return next((choice for choice in span.choices if _name(choice) == asked), asked)


def _farthest(
    drawn: Mapping[str, ParamValue], spans: Mapping[str, Span], most: int
) -> dict[str, ParamValue]:
    """The ``most`` parameters that moved most, in the order of the closed list."""
    moved = {name: spans[name].moved(value) for name, value in drawn.items()}
    ranked = sorted((n for n in moved if moved[n] > 0), key=lambda n: -moved[n])[:most]
    return {name: drawn[name] for name in TUNABLE if name in ranked}


def _review(
    rounds: Sequence[RoundRecord], now: RoundRecord, moved: Mapping[str, ParamValue]
) -> Review:
    bought = [record for record in rounds if not record.replayed] or [now]
    best = max(bought, key=objective)
    share = max((kept_share(record) or 0.0 for record in bought), default=0.0)
    low = round(min(max(share, _LEAST_KEPT), _MOST_KEPT), 4)
    high = min(round(low + WIDEST, 4), 1.0)
    expected = Prediction(metric="raw_acceptance", low=low, high=high, probability=0.5)
    return Review(
        diagnosis=_diagnosis(bought, best, now),
        changes=tuple(_change(name, value, now.params) for name, value in moved.items()),
        predictions=(expected,) if moved else (),
        confidence=0.5,
    )


def _diagnosis(bought: Sequence[RoundRecord], best: RoundRecord, now: RoundRecord) -> str:
    how = "at random" if len(bought) < _STARTUP else "where better rounds are denser"
    return (
        f"{len(bought)} rounds measured; the best is round {best.round} with {objective(best):.3f} "
        f"(share of rows kept, less what gates are short of). Drawn {how}, within one step of the "
        f"setting of round {now.round}; causes are not looked at."
    )


def _change(name: str, value: ParamValue, now: GenParams) -> Change:
    before = now.get(name)
    reason = f"drawn by the estimator; it was {before!r}"
    return Change(
        parameter=name, value=list(value) if isinstance(value, tuple) else value, reason=reason
    )


def _seed(seed: int, round_: int, attempt: int) -> int:
    text = f"bayes|{seed}|{round_}|{attempt}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
