"""The text rule that ends a completion, shared by every engine and by replay.

The smallest number k of tokens whose decoded text holds a stop string ends the row; the text is cut
where that string begins. At the same k a stop string comes before the end token, and the end token
before the cap. Half a character that the cap leaves is cut off too. Decoding and sampling are left
to the engines: here a text is a function of k.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from pipeline.types import FinishReason

_BROKEN: Final = "\ufffd"
"""What a decoder shows for bytes that are not a character, or not yet."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a row ended."""

    tokens: int
    """Tokens kept: up to and including the one that completed the stop string; no end token."""
    text: str
    """Decoded text, cut before the stop string, and at the cap before half a character."""
    finish_reason: FinishReason
    """stop, eos or length."""
    stop: str | None = None
    """The stop string that fired."""
    trimmed: str = ""
    """The rest of the decoded text of its tokens."""


def stopped(tokens: int, text: str, hit: tuple[int, str]) -> Ending:
    """The ending of a row of ``tokens`` tokens at what :func:`first_stop` found in its text."""
    start, stop = hit
    return Ending(tokens, text[:start], "stop", stop, text[start:])


def first_stop(text: str, stops: Sequence[str]) -> tuple[int, str] | None:
    """Where the earliest stop string begins, and which it is; the longest of those that tie."""
    found = [(text.find(stop), -len(stop), stop) for stop in stops]
    hits = [hit for hit in found if hit[0] >= 0]
    if not hits:
        return None
    start, _, stop = min(hits)
    return start, stop


def settle(
    text_of: Callable[[int], str], tokens: int, *, stops: Sequence[str], cap: int, eos: bool
) -> Ending:
    """End a finished stream of ``tokens`` tokens by the text rule.

    Args:
        text_of: decoded text of the first k tokens.
        tokens: how many tokens the stream has, its end token not counted.
        stops: stop strings; an empty list never fires.
        cap: longest row, in tokens.
        eos: whether an end token follows the last token of the stream.

    Raises:
        ValueError: if the stream ends below the cap without an end token, so that what it would
            have gone on with is not known.
    """
    kept = min(tokens, cap)
    k = _first_count(text_of, kept, stops)
    if k is not None and (hit := first_stop(text := text_of(k), stops)) is not None:
        return stopped(k, text, hit)
    if eos and tokens < cap:
        return Ending(kept, text_of(kept), "eos")
    if tokens < cap:
        raise ValueError(f"a stream of {tokens} tokens without an end does not reach cap {cap}")
    text = text_of(kept)
    whole = text.rstrip(_BROKEN)
    return Ending(kept, whole, "length", trimmed=text[len(whole) :])


def _first_count(text_of: Callable[[int], str], tokens: int, stops: Sequence[str]) -> int | None:
    """Smallest k whose text holds a stop string; None where no k does.

    A longer text begins with every shorter one, but for characters that are not complete: where
    tokens are bytes, a decoder may show a whole run of them as U+FFFD until the run is text again.
    """

    def holds(k: int) -> bool:
        return first_stop(text_of(k), stops) is not None

    if not stops:
        return None
    if any(_BROKEN in text for text in (text_of(tokens), *stops)):
        return next(filter(holds, range(1, tokens + 1)), None)
    if not holds(tokens):
        return None
    first = bisect_left(range(1, tokens), True, key=holds) + 1
    for k in range(first - 1, 0, -1):
        if holds(k):
            first = k
        elif not text_of(k).endswith(_BROKEN):
            break
    return first
