"""Ending a stored response elsewhere: by other stop strings and a lower cap, to the token.

The text rule is that of ``engine/stops.py``; here a text is known by where its tokens end in it.
When that may be asked is ``replay.py``'s work. The one idea: a response holds a stop string from
the first token on that ends at or behind the string.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from pipeline.engine.stops import Ending, first_stop, stopped
from pipeline.types import Sample

BROKEN: Final = "\ufffd"
"""What a decoder shows for bytes that are not a character, or not yet."""


def ended(sample: Sample, stops: Sequence[str], cap: int) -> Sample | None:
    """The sample as it ends at the first k that holds a stop string, at its end, or at the cap.

    None where that cannot be told: the ends of its tokens are not, and it is to be cut, or broken
    characters in it may have been a stop string before the tokens behind them broke it.
    """
    raw, tokens = sample.raw or "", len(sample.token_ids)
    whole = raw + sample.trimmed
    complete, ends = _first_complete(whole, stops), sample.token_ends
    told = ends is not None and len(ends) == tokens
    readable = told or not stops or BROKEN not in whole
    if tokens <= cap and readable and _ends_alike(sample, complete, tokens == cap):
        return sample
    if ends is None or not told:
        return None
    kept = min(tokens, cap)
    k = next((k for k in range(1, kept + 1) if complete is not None and ends[k - 1] >= complete), 0)
    text = whole[: ends[(k or kept) - 1]]
    hit = first_stop(text, stops) if k else None
    if hit is not None:
        return _with(sample, stopped(k, text, hit))
    shown = text.rstrip(BROKEN)
    return _with(sample, Ending(kept, shown, "length", trimmed=text[len(shown) :]))


def _ends_alike(sample: Sample, complete: int | None, full: bool) -> bool:
    """Whether a sample within the cap ends as it did: by its stop string, its end, or the cap."""
    if complete is not None:
        return False
    return sample.finish_reason == "length" if full else sample.finish_reason == "eos"


def _first_complete(text: str, stops: Sequence[str]) -> int | None:
    """Characters after which a text first holds a stop string."""
    found = ((text.find(stop), len(stop)) for stop in stops)
    return min((start + size for start, size in found if start >= 0), default=None)


def _with(sample: Sample, ending: Ending) -> Sample:
    k, ends = ending.tokens, sample.token_ends or ()
    return replace(
        sample,
        raw=ending.text,
        finish_reason=ending.finish_reason,
        stop=ending.stop,
        token_ids=sample.token_ids[:k],
        trimmed=ending.trimmed,
        token_ends=ends[:k],
    )
