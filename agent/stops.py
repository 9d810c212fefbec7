"""Which strings may end a response: only those that a good answer does not hold.

A stop string that matches ordinary text cuts good answers and hides it, so the rule looks at the
string alone, before any sample is at stake. It leaves finding candidates to the reviewers.
"""

import re
from typing import Final

_LONGEST: Final = 32
_MARKERS: Final = frozenset("#:<>|[]{}=*_~@%^\\")
_LISTS: Final = re.compile(r"[-*+•]+|\(?\d+[.):]?|[a-z][.)]", re.IGNORECASE)
_CODE: Final = re.compile(r"[`~]+\w*")


def stop_refusal(text: str) -> str | None:
    """Why ``text`` may not be a stop string, or None if it may."""
    if not 1 <= len(text) <= _LONGEST:
        return f"a stop string of {len(text)} characters; 1 to {_LONGEST}"
    if not text.replace("\n", "").isprintable():
        return f"stop string {text!r} holds a character that cannot be printed"
    core = text.strip()
    if not any(c.isalnum() or c in _MARKERS for c in core):
        return f"stop string {text!r} is only space or punctuation, which good answers hold"
    if len(core) < 2:
        return f"stop string {text!r} is one character, which good answers hold"
    if _LISTS.fullmatch(core) or _CODE.fullmatch(core):
        return f"stop string {text!r} starts a list item or code block of good answers"
    if "\n" not in text and not any(c in _MARKERS for c in core):
        return f"stop string {text!r} is ordinary words: it needs a line break or a marker"
    return None
