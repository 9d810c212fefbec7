"""The wall between a review and the settings: what a reviewer may not do is refused here.

Every change is judged on its own by code that does not trust it: unknown names, wrong types, NaN,
values out of range, steps too large, stop strings that would cut good text, settings that were
already measured. The one idea: refused with the reason, never clamped. Reading an answer is
``agent/review.py``'s work.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from agent.review_records import Applied, Change, Refused, Review
from agent.stops import stop_refusal
from pipeline.params import TUNABLE, GenParams, ParamValue, Tunable

_MARGINS: Final = frozenset({"critic.instruction_margin", "critic.pair_margin"})
_NO_FLOORS: Final[Mapping[str, float]] = {}
_TOLERANCE: Final = 1e-9


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
    tried: Sequence[GenParams] = (),
    margin_floors: Mapping[str, float] = _NO_FLOORS,
) -> Guarded:
    """Apply the changes of ``review`` that are allowed; refuse the others, each with its reason.

    A change that returns a parameter to its value in an earlier setting is not counted against
    ``max_changes``, so that a revert leaves room for a remedy; all uncounted ones return to the
    same setting.

    Args:
        review: The answer of a reviewer.
        params: The settings that it answers to.
        max_changes: Changes counted at most.
        tried: Settings already measured; none of them is measured again.
        margin_floors: For each critic margin that may be changed, the lowest value at which the
            controls' false accepts stay within bounds; a margin without one is locked.
    """
    judged = [(c, _refusal(c, review, params, margin_floors)) for c in review.changes]
    allowed = [change for change, why in judged if why is None]
    counted = _counted(allowed, (params, *tried))
    surplus = set(counted[max_changes:])
    late = f"more than {max_changes} changes in one round"
    refusals = {
        i: late for i, (c, why) in enumerate(judged) if why is None and c.parameter in surplus
    }
    refusals |= {i: why for i, (_, why) in enumerate(judged) if why is not None}
    values = {c.parameter: _value(c) for i, (c, _) in enumerate(judged) if i not in refusals}
    after = params.replace(values)
    if values and after in tried:
        again = f"these settings were already measured in round {tried.index(after) + 1}"
        refusals |= {i: again for i in range(len(judged)) if i not in refusals}
        after = params
    return _guarded(review.changes, refusals, params, after)


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
    change: Change, review: Review, params: GenParams, floors: Mapping[str, float]
) -> str | None:
    """Why ``change`` may not be applied, or None."""
    tunable = TUNABLE.get(change.parameter)
    if tunable is None:
        return "not in the closed list of parameters"
    if sum(c.parameter == change.parameter for c in review.changes) > 1:
        return "named more than once, so none of its values is taken"
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
            return _stops_refusal(change.value, current)
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
    if value == current:
        return "no change: it is the present value"
    if tunable.step and abs(value - current) > tunable.step + _TOLERANCE:
        return f"a larger step than {tunable.step:g} from {current:g}"
    if tunable.factor and not current / tunable.factor <= value <= current * tunable.factor:
        return f"more than a factor of {tunable.factor:g} from {current:g}"
    return None


def _stops_refusal(value: Any, current: Any) -> str | None:
    if not isinstance(value, list | tuple) or not all(isinstance(s, str) for s in value):
        return "expected a list of strings"
    if len(value) > 8:
        return f"{len(value)} stop strings; at most 8"
    if len(set(value)) < len(value):
        return "a stop string is named twice"
    if set(value) == set(current):
        return "no change: these are the present stop strings"
    fresh = (s for s in value if s not in current)
    return next((why for s in fresh if (why := stop_refusal(s)) is not None), None)


def _choice_refusal(value: Any, tunable: Tunable, current: Any) -> str | None:
    if not isinstance(value, str) or value not in tunable.choices:
        return "expected " + tunable.describe()
    return "no change: it is the present value" if value == current else None


def _counted(changes: Iterable[Change], bases: Sequence[GenParams]) -> list[str]:
    """The parameters that differ from the measured setting that is nearest to the outcome."""
    wanted = {change.parameter: _value(change) for change in changes}
    return min(
        ([name for name, value in wanted.items() if base.get(name) != value] for base in bases),
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
