"""The text rule that ends a completion, shared by every engine and by replay.

The smallest number k of tokens whose decoded text holds a stop string ends the row; the text is cut
where that string begins. At the same k a stop string comes before the end token, and the end token
before the cap. Decoding and sampling are left to the engines: here a text is a function of k.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.types import FinishReason


@dataclass(frozen=True, slots=True)
class Ending:
    """How a row ended."""

    tokens: int
    """Tokens kept: up to and including the one that completed the stop string; no end token."""
    text: str
    """Decoded text, cut before the stop string."""
    finish_reason: FinishReason
    """stop, eos or length."""
    stop: str | None = None
    """The stop string that fired."""


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
    text = text_of(kept)
    if (hit := first_stop(text, stops)) is not None:
        k = _first_count(text_of, kept, stops)
        text = text_of(k)
        hit = first_stop(text, stops) or hit
        return Ending(k, text[: hit[0]], "stop", hit[1])
    if eos and tokens < cap:
        return Ending(kept, text, "eos")
    if tokens < cap:
        raise ValueError(f"a stream of {tokens} tokens without an end does not reach cap {cap}")
    return Ending(kept, text, "length")


def _first_count(text_of: Callable[[int], str], tokens: int, stops: Sequence[str]) -> int:
    """Smallest k whose text holds a stop string, given that ``tokens`` does."""
    low, high = 1, tokens
    while low < high:
        middle = (low + high) // 2
        if first_stop(text_of(middle), stops) is None:
            low = middle + 1
        else:
            high = middle
    return low
