"""JSON from outside, read by rules that leave nothing to chance.

``json.loads`` takes NaN, the last of two equal keys, and nests until the stack ends; here each of
these is a ValueError that says so, and size and depth are judged before parsing. What the value
means is its reader's business.
"""

import json
import math
from typing import Any, Final

_MAX_DEPTH: Final = 16
_MAX_DIGITS: Final = 32


def load_strict(text: str, *, max_bytes: int) -> Any:
    """The JSON value in ``text``.

    Raises:
        ValueError: if it is too large or too deep, is not JSON, or holds a key twice, a number
            that is not finite, an integer beyond 32 digits, or half a character.
    """
    size = len(text.encode())  # a lone surrogate is a ValueError here
    if size > max_bytes:
        raise ValueError(f"{size:,} bytes; at most {max_bytes:,}")
    _check_nesting(text)
    tree = json.loads(
        text,
        object_pairs_hook=_unique,
        parse_constant=_refuse_constant,
        parse_float=_finite,
        parse_int=_short,
    )
    json.dumps(tree, ensure_ascii=False).encode()  # and an escaped one here
    return tree


def _check_nesting(text: str) -> None:
    depth, quoted, escaped = 0, False, False
    for char in text:
        if quoted:
            quoted = escaped or char != '"'
            escaped = not escaped and char == "\\"
        elif char == '"':
            quoted = True
        elif char in "[{":
            depth += 1
        elif char in "]}":
            depth -= 1
        if depth > _MAX_DEPTH:
            raise ValueError(f"nested more than {_MAX_DEPTH} levels deep")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in pairs:
        if name in tree:
            raise ValueError(f"key {name[:64]!r} is there twice")
        tree[name] = value
    return tree


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:64]} is not a finite number")
    return value


def _short(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"an integer of {len(digits):,} digits; at most {_MAX_DIGITS}")
    return int(digits)
