"""What a text opens and never closes: a code block, a bracket, a table row, a formula, a page.

How prose ends is read in ``endings.py``. The one idea: what is open at the end was cut off,
whatever its last words are, in code and tables as much as in prose.
"""

import re
from typing import Final

_FENCE = re.compile(r"^[ \t]*```", re.MULTILINE)
_FENCED = re.compile(r"```.*?```", re.DOTALL)
_STRINGS = re.compile(r"\"(?:[^\"\\\n]|\\.){0,300}\"|'(?:[^'\\\n]|\\.){0,80}'")
_ITEM = re.compile(r"^[ \t]*(?:\(?(?:\d{1,3}|[a-zA-Z]|[ivx]{1,4})\)|\[[ xX]?\])", re.MULTILINE)
_FACE = re.compile(r"[:;]['-]?[()]")
_CLOSING: Final = {")": "(", "]": "[", "}": "{"}
_NEAR: Final = 2000
"""Characters at the end of a text in which what is open is looked for."""


def left_open(text: str) -> bool:
    """Whether a text ends within something that it opened."""
    if "```" not in text:
        plain = text[-_NEAR:]
    elif len(_FENCE.findall(text)) % 2 == 1:
        return True
    else:
        plain = _FENCED.sub(" ", text)[-_NEAR:]
    last = plain.rstrip().rpartition("\n")[2].strip()
    return (
        _open_row(plain, last)
        or _open_bracket(plain)
        or last.count("$$") % 2 == 1 == plain.count("$$") % 2
        or (last.count("**") % 2 == 1 and last.startswith(("**", "- **", "* **")))
        or _open_page(text)
    )


def _open_row(plain: str, last: str) -> bool:
    """A row of a table without its last bar, where the row before has one."""
    rows = [line.strip() for line in plain.rstrip().split("\n")]
    before = rows[-2] if len(rows) > 1 else ""
    framed = before.startswith("|") and before.endswith("|")
    return framed and last.startswith("|") and (not last.endswith("|") or len(last) == 1)


def _open_bracket(plain: str) -> bool:
    """A bracket in the last paragraph, or a brace anywhere near, that nothing closes."""
    if not any(mark in plain for mark in "([{"):
        return False
    bare = _FACE.sub(" ", _STRINGS.sub('""', _ITEM.sub(" ", plain)))
    paragraph = bare.rstrip().rpartition("\n\n")[2]
    return _depth(bare, "{}") > 0 or _depth(paragraph, "([") > 0


def _depth(text: str, kinds: str) -> int:
    """Brackets of these kinds that are open at the end; those that close nothing do not count."""
    opened: list[str] = []
    for mark in re.findall(r"[()\[\]{}]", text):
        if mark in kinds and mark not in _CLOSING:
            opened.append(mark)
        elif opened and _CLOSING.get(mark) == opened[-1]:
            opened.pop()
    return len(opened)


def _open_page(text: str) -> bool:
    begins = text.lstrip()[:15].lower()
    return begins.startswith(("<!doctype html", "<html")) and "</html>" not in text[-_NEAR:].lower()
