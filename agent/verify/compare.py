"""Two contents of one file set side by side: where they first differ, in words for people.

Which contents are compared is ``check.py``'s. The one idea: bytes decide whether they differ;
fields, lines and rows only say where.
"""

import hashlib
import json
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any, Final

from agent.verify.findings import Difference, exact, shown

_MOST: Final = 20
"""Differences of one file that are named."""
_NOTHING: Final = object()


def compare(name: str, expected: bytes, found: bytes | None) -> tuple[Difference, ...]:
    """How the file ``name`` differs from what it should hold; nothing if it does not."""
    if found is None:
        return (Difference("", f"{len(expected):,} bytes", "no such file"),)
    if expected == found:
        return ()
    named = _fields(expected, found) if name.endswith(".json") else _lines(name, expected, found)
    return named or (Difference("", _digest(expected), _digest(found)),)


def _digest(content: bytes) -> str:
    return f"{len(content):,} bytes with SHA-256 {hashlib.sha256(content).hexdigest()[:16]}"


def _fields(expected: bytes, found: bytes) -> tuple[Difference, ...]:
    try:
        stored = json.loads(found)
    except (ValueError, RecursionError) as error:
        return (Difference("", "JSON", f"none: {shown(str(error))}"),)
    every = list(_differing(json.loads(expected), stored, "", _MOST))
    return tuple(every) or (Difference("", "canonical JSON", "the same values in other bytes"),)


def _differing(expected: Any, found: Any, where: str, most: int) -> Iterator[Difference]:
    """The leaves that differ; a number and its equal of another type differ too."""
    left = most
    for name, one, other in _pairs(expected, found):
        inner = f"{where}.{name}".strip(".")
        if _both_nested(one, other):
            for difference in _differing(one, other, inner, left):
                yield difference
                left -= 1
        elif type(one) is not type(other) or one != other:
            yield Difference(inner or "top level", _leaf(one), _leaf(other))
            left -= 1
        if left <= 0:
            return


def _pairs(expected: Any, found: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in [*expected, *(k for k in found if k not in expected)]:
            yield shown(key), expected.get(key, _NOTHING), found.get(key, _NOTHING)
    elif isinstance(expected, list) and isinstance(found, list):
        both = zip_longest(expected, found, fillvalue=_NOTHING)
        yield from ((str(i), one, other) for i, (one, other) in enumerate(both))
    else:
        yield "", expected, found


def _both_nested(one: Any, other: Any) -> bool:
    return type(one) is type(other) and isinstance(one, dict | list)


def _leaf(value: Any) -> str:
    if value is _NOTHING:
        return "nothing"
    return shown(value) if not isinstance(value, str) else f"'{exact(value)}'"


def _lines(name: str, expected: bytes, found: bytes) -> tuple[Difference, ...]:
    """The first line of a text that differs; none for a file that is not text."""
    if not name.endswith((".md", ".txt", ".jsonl")):
        return ()
    both = zip_longest(expected.split(b"\n"), found.split(b"\n"))
    for number, (one, other) in enumerate(both, start=1):
        if one != other:
            return (Difference(f"line {number}", _line(one, other), _line(other, one)),)
    return ()


def _line(line: bytes | None, other: bytes | None) -> str:
    """A line from a little before the place where it and the other part."""
    if line is None:
        return "the end of the file"
    pairs = zip(line, other or b"", strict=False)
    apart = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(line), len(other or b"")))
    start = max(0, apart - 30)
    cut = line[start : apart + 90].decode("utf-8", errors="replace")
    return f"'{'...' if start else ''}{exact(cut)}'"
