"""What a review may do to a setting, written down a second time, from the promise alone.

The program has one table of bounds; a proof that asked it would agree with whatever it says. Here
a step from one setting to the next is judged by figures of our own.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pipeline.params import GenParams

_STEPS: Final[dict[str, tuple[float, float, float]]] = {
    "instruction.temperature": (0.1, 2.0, 0.3),
    "instruction.top_p": (0.5, 1.0, 0.1),
    "instruction.repetition_penalty": (1.0, 1.5, 0.1),
    "response.temperature": (0.1, 2.0, 0.3),
    "response.top_p": (0.5, 1.0, 0.1),
    "response.repetition_penalty": (1.0, 1.5, 0.1),
    "fewshot.count": (3, 12, 3),
    "oversample": (1.0, 5.0, 1.0),
    "critic.instruction_margin": (-20.0, 20.0, 2.0),
    "critic.pair_margin": (-20.0, 20.0, 2.0),
}
"""Lowest, highest, largest step."""
_FACTORS: Final = {
    "instruction.max_new_tokens": (8, 1024, 2),
    "response.max_new_tokens": (8, 1024, 2),
}
"""Lowest, highest, largest factor."""
_CHOICES: Final = {
    "fewshot.set": {"core", "wide"},
    "fewshot.rotation": {"fixed", "rotate", "pool"},
    "topics": {"off", "hints"},
}
_INTEGERS: Final = {"fewshot.count", *_FACTORS}
_ROUNDING: Final = 2e-9
"""Decimal fractions have no exact difference."""


def leaves(tree: Mapping[str, Any], under: str = "") -> dict[str, Any]:
    """Every value of a setting by its dotted name."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{under}{key}"
        found |= leaves(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return found


def changed(before: GenParams, after: GenParams) -> list[str]:
    """Names of what differs."""
    old, new = leaves(before.model_dump()), leaves(after.model_dump())
    return [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]


def trespasses(
    before: GenParams,
    after: GenParams,
    *,
    most: int = 4,
    floors: Mapping[str, float] | None = None,
    tried: Sequence[GenParams] = (),
) -> list[str]:
    """What about the step from ``before`` to ``after`` was not allowed; nothing if all was."""
    names = changed(before, after)
    found = [said for name in names for said in _about(name, before, after, floors or {})]
    # What goes back to an earlier setting is not counted, so that a revert leaves room for more.
    counted = min(len({*names} & {*changed(base, after)}) for base in (before, *tried))
    if counted > most:
        found.append(f"{len(names)} changes at once")
    if names and after in tried:
        found.append("a setting that was measured already")
    return found


def _about(
    name: str, before: GenParams, after: GenParams, floors: Mapping[str, float]
) -> Iterator[str]:
    old, new = before.get(name), after.get(name)
    if name in _CHOICES:
        if new not in _CHOICES[name]:
            yield f"{name} is {new!r}"
    elif name == "response.stop":
        yield from _about_stops(new)
    elif name in _STEPS or name in _FACTORS:
        yield from _about_number(name, old, new, floors)
    else:
        yield f"{name} is nobody's to change"


def _about_stops(stops: Any) -> Iterator[str]:
    if not isinstance(stops, tuple) or len(stops) > 8 or len(set(stops)) < len(stops):
        yield f"stop strings {stops!r}"
        return
    for stop in stops:
        printable = isinstance(stop, str) and stop.replace("\n", "").isprintable()
        if not printable or not 1 <= len(stop) <= 32 or not stop.strip():
            yield f"stop string {stop!r}"


def _about_number(name: str, old: Any, new: Any, floors: Mapping[str, float]) -> Iterator[str]:
    low, high, reach = _STEPS.get(name) or _FACTORS[name]
    kind = int if name in _INTEGERS else float
    if type(new) is not kind or not math.isfinite(new) or not low <= new <= high:
        yield f"{name} is {new!r}"
        return
    if name.endswith("_margin"):
        if name not in floors or new < floors[name]:
            yield f"{name} is {new!r}, which no control certifies"
        old = floors.get(name, new) if old is None else old
    if name in _FACTORS and not old / reach <= new <= old * reach:
        yield f"{name} went from {old!r} to {new!r}"
    if name in _STEPS and abs(new - old) > reach + _ROUNDING:
        yield f"{name} went from {old!r} to {new!r}"
