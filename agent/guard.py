"""The wall between a review and the settings: what a reviewer may not do is refused here.

Every change is judged on its own by code that does not trust it: unknown names, wrong types, NaN,
values out of range, steps too large, stop strings that would cut good text, settings that were
already measured, and what was tried and made things worse. Changes that foretell nothing are not
tried at all. The one idea: refused with the reason, never clamped. Reading an answer is
``agent/review.py``'s work, and what stop strings may be is ``agent/stops.py``'s.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from agent.review_records import Applied, Change, Prediction, Refused, Review
from agent.stops import Cuts, stops_refusal
from agent.tried import Tried, Worse, made_worse, measured_before, normal, same, setting
from pipeline.metrics import METRICS
from pipeline.params import TUNABLE, GenParams, ParamValue, Tunable

_MARGINS: Final = frozenset({"critic.instruction_margin", "critic.pair_margin"})
_NO_FLOORS: Final[Mapping[str, float]] = {}
_TOLERANCE: Final = 1e-9
_HIGHEST: Final[Mapping[str, float]] = dict.fromkeys(METRICS, 1.0) | {
    "yield": 1e9,  # of the most attempts that can be configured
    "median_tokens": TUNABLE["response.max_new_tokens"].high or math.inf,
}
"""The highest value that each metric can have; the lowest is 0."""
WIDEST: Final = 0.75
"""The longest interval of a rate: one that spans more of what is possible says next to nothing."""
_TIMES: Final = 10
"""What is counted is foretold within so many times its lowest value, or 1."""


@dataclass(frozen=True, slots=True)
class Guarded:
    """What is left of a review's changes."""

    params: GenParams
    """The settings with the applied changes; the old ones when nothing was applied."""
    applied: tuple[Applied, ...]
    """The changes that were applied, in the review's order."""
    refused: tuple[Refused, ...]
    """The others, each with its reason."""


def guard(
    review: Review,
    params: GenParams,
    *,
    max_changes: int,
    tried: Sequence[Tried] = (),
    margin_floors: Mapping[str, float] = _NO_FLOORS,
    cuts: Cuts | None = None,
) -> Guarded:
    """Apply the changes of ``review`` that are allowed; refuse the others, each with its reason.

    A change that returns a parameter to its value in an earlier setting is not counted against
    ``max_changes``, so that a revert leaves room for a remedy; all uncounted ones return to the
    same setting.

    Args:
        review: The answer of a reviewer.
        params: The settings that its changes apply to.
        max_changes: Changes counted at most.
        tried: Settings already measured, oldest first: none of them is measured again. Given as
            the records of their rounds, what made things worse by itself is refused too.
        margin_floors: For each critic margin that may be changed, the lowest value at which the
            controls' false accepts stay within bounds; a margin without one is locked.
        cuts: What stop strings would cut of stored rows; None asks no rows.
    """
    idle = _idle(review)
    worse = made_worse(tried, params)
    judged = [
        _refusal(c, review, params, margin_floors, cuts) or _seen_worse(c, params, worse) or idle
        for c in review.changes
    ]
    refusals = {i: why for i, why in enumerate(judged) if why is not None}
    allowed = [c for i, c in enumerate(review.changes) if i not in refusals]
    settings = [setting(t) for t in tried]
    surplus = set(_counted(allowed, (params, *settings))[max_changes:])
    late = f"more than {max_changes} changes in one round"
    refusals |= {
        i: late
        for i, c in enumerate(review.changes)
        if i not in refusals and c.parameter in surplus
    }
    values = {c.parameter: _value(c) for i, c in enumerate(review.changes) if i not in refusals}
    after = params.replace(values)
    known = [i for i, before in enumerate(settings) if values and same(after, before)]
    if known:
        again = measured_before(tried, known[0])
        refusals |= {i: again for i in range(len(judged)) if i not in refusals}
        after = params
    return _guarded(review.changes, refusals, params, after)


def usable(prediction: Prediction) -> str | None:
    """Why a prediction could not be held against anybody, or None if it can."""
    metric, low, high = prediction.metric, prediction.low, prediction.high
    most = _HIGHEST.get(metric)
    if most is None:
        return f"{metric[:64]!r} is not in the metric table"
    if not all(map(math.isfinite, (low, high, prediction.probability))):
        return f"{metric} is predicted with a number that is not finite"
    if low > high:
        return f"{metric} is predicted from {low:g} down to {high:g}"
    if low < 0 or high > most:
        return f"{metric} cannot be {low:g} to {high:g}: it is within 0 to {most:g}"
    if not 0 <= prediction.probability <= 1:
        return f"{metric} is predicted with probability {prediction.probability:g}"
    return _too_wide(metric, low, high)


def _too_wide(metric: str, low: float, high: float) -> str | None:
    """Why an interval is so wide that it would hardly miss, or None if it is not."""
    counted = _HIGHEST[metric] != 1.0
    if counted and high > _TIMES * max(low, 1.0):
        return f"{metric} within {low:g} to {high:g} foretells nothing: over a factor of {_TIMES}"
    if not counted and high - low > WIDEST + _TOLERANCE:
        return f"{metric} within {low:g} to {high:g} is over {WIDEST:g} wide, and foretells nothing"
    return None


def _idle(review: Review) -> str | None:
    """Why none of a review's changes is tried, whatever they are; None if they may be."""
    if review.stop:
        return "contradictory: the review also says stop, and nothing is tried after that"
    found = [usable(p) for p in review.predictions]
    if None in found:
        return None
    why = found[0] if found else "there is none"
    return f"a change needs a prediction that it can be held to: {why}"


def _seen_worse(change: Change, params: GenParams, worse: Iterable[Worse]) -> str | None:
    """Why a change that was tried, or goes further the same way, is not tried again."""
    current = params.get(change.parameter)
    found = (w for w in worse if w.parameter == change.parameter)
    return next((w.describe() for w in found if w.as_far(_value(change), current)), None)


def _guarded(
    changes: Sequence[Change], refusals: Mapping[int, str], before: GenParams, after: GenParams
) -> Guarded:
    return Guarded(
        params=after,
        applied=tuple(
            Applied(
                parameter=c.parameter,
                before=_plain(before.get(c.parameter)),
                after=_plain(after.get(c.parameter)),
                reason=c.reason,
            )
            for i, c in enumerate(changes)
            if i not in refusals
        ),
        refused=tuple(
            Refused(parameter=c.parameter[:64], value=_shown(c.value), why=refusals[i])
            for i, c in enumerate(changes)
            if i in refusals
        ),
    )


def _refusal(
    change: Change,
    review: Review,
    params: GenParams,
    floors: Mapping[str, float],
    cuts: Cuts | None,
) -> str | None:
    """Why ``change`` may not be applied, or None."""
    tunable = TUNABLE.get(change.parameter)
    if tunable is None:
        return "not in the closed list of parameters"
    if sum(c.parameter == change.parameter for c in review.changes) > 1:
        return "contradictory: named more than once, so none of its values is taken"
    current = params.get(change.parameter)
    if change.parameter in _MARGINS:
        floor = floors.get(change.parameter)
        if floor is None:
            return "locked: it is set from controls, which certify no range for it"
        return _number_refusal(change.value, tunable, floor if current is None else current) or (
            f"below {floor:g}, where too many planted bad ones would be accepted"
            if change.value < floor
            else None
        )
    match tunable.kind:
        case "float" | "int":
            return _number_refusal(change.value, tunable, current)
        case "strings":
            return stops_refusal(change.value, params.response.stop, cuts)
        case "choice":
            return _choice_refusal(change.value, tunable, current)


def _number_refusal(value: Any, tunable: Tunable, current: Any) -> str | None:
    kinds = (int,) if tunable.kind == "int" else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds):
        return "expected a whole number" if tunable.kind == "int" else "expected a number"
    if isinstance(value, float) and not math.isfinite(value):
        return "not a finite number"
    assert tunable.low is not None and tunable.high is not None
    if not tunable.low <= value <= tunable.high:
        return f"outside {tunable.low:g} to {tunable.high:g}"
    if normal(value) == normal(current):
        return "no change: it is the present value"
    if tunable.step and abs(value - current) > tunable.step + _TOLERANCE:
        return f"a larger step than {tunable.step:g} from {current:g}"
    if tunable.factor and not current / tunable.factor <= value <= current * tunable.factor:
        return f"more than a factor of {tunable.factor:g} from {current:g}"
    return None


def _choice_refusal(value: Any, tunable: Tunable, current: Any) -> str | None:
    if not isinstance(value, str) or value not in tunable.choices:
        return "expected " + tunable.describe()
    return "no change: it is the present value" if value == current else None


def _counted(changes: Iterable[Change], bases: Sequence[GenParams]) -> list[str]:
    """The parameters that differ from the measured setting that is nearest to the outcome."""
    wanted = {change.parameter: normal(_value(change)) for change in changes}
    return min(
        ([n for n, value in wanted.items() if normal(base.get(n)) != value] for base in bases),
        key=len,
    )


def _value(change: Change) -> ParamValue:
    """An allowed change's value in the type of its parameter."""
    match TUNABLE[change.parameter].kind:
        case "float":
            return float(change.value)
        case "strings":
            return tuple(change.value)
        case _:
            return change.value  # type: ignore[no-any-return]


def _plain(value: ParamValue | None) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _shown(value: Any) -> str:
    try:
        return repr(value)[:64]
    except ValueError:  # an integer of more digits than Python prints
        return f"<{type(value).__name__} too long to show>"
