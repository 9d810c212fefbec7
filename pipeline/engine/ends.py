"""Where in a decoded text each of its tokens ends, so that a text can be cut without a tokenizer.

The end of a token is how much of the whole text is certain once it is drawn: half a character does
not count. The one idea: a token's text is looked up, and the join of all is held against the text;
only where they differ, as around characters of several tokens, is every beginning decoded.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate
from os.path import commonprefix
from typing import Final

_BROKEN: Final = "\ufffd"
_PIECES: Final = 65_536

Decode = Callable[[list[int]], str]


def pieces(decode: Decode, anchor: int) -> Callable[[int], str]:
    """The text that a token adds behind the token ``anchor``, remembered."""
    before = decode([anchor])

    @lru_cache(maxsize=_PIECES)
    def piece(token: int) -> str:
        text = decode([anchor, token])
        return text[len(before) :] if text.startswith(before) else _BROKEN

    return piece


def token_ends(
    decode: Decode, piece: Callable[[int], str], ids: Sequence[int], text: str
) -> tuple[int, ...] | None:
    """For each token of ``text``, how many characters are certain once it is drawn.

    None where a decoder shows a beginning in another way than as a beginning: what it then stands
    for cannot be told from the whole.
    """
    if not ids:
        return ()
    parts = [decode(list(ids[:1])), *map(piece, ids[1:])]
    if _BROKEN not in text and "".join(parts) == text:
        return tuple(accumulate(map(len, parts)))
    ends = []
    for k in range(1, len(ids) + 1):
        begun = decode(list(ids[:k]))
        certain = len(commonprefix((begun, text)))
        if begun[certain:].strip(_BROKEN):
            return None
        ends.append(certain)
    return tuple(ends)
