"""Detectors: each flags one kind of bad response, on the text that the metric table names.

Pure functions of one sample. What a mark, a loop or an early end looks like is decided in
``boundary.py``, ``repetition.py`` and ``endings.py``; duplicates are judged elsewhere. The one
idea: a detector is worth nothing until ``certify.py`` has shown it cases that it must flag and
cases that it must leave alone. Length is never evidence.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from pipeline.detection.body import CODE
from pipeline.detection.boundary import inline_task, next_task
from pipeline.detection.clean import delimiter_at_end
from pipeline.detection.endings import ends_early
from pipeline.detection.further import further_tasks
from pipeline.detection.repetition import loops
from pipeline.detection.scaffold import INLINE_ASK, SPECIAL_TOKEN
from pipeline.detection.unmarked import unanswered_task
from pipeline.types import Sample

Check = Callable[[Sample, Sequence[str]], bool]
"""(sample, stop strings in force) -> whether it is bad."""

_NOTHING = re.compile(r"[\s\u200b-\u200f\u2060\ufeff\x00-\x1f#*_`.…\"'“”‘’–—-]*")
_HASHES = re.compile(r"(?<=[^\s#])[ ]?#{3,}|(?<=[.!?\"')\]\s])#{1,2}\s*$")


_WIDE_BLANK = re.compile(r"\s{64,}")
_END: Final = 1_000_000
"""Characters at either end of a text that are judged; no answer is longer than both."""


@lru_cache(maxsize=2)
def _folded(text: str | None) -> str:
    """A text to be judged in seconds: megabytes are judged by their ends, wide blanks narrowed."""
    text = text or ""
    if len(text) > 2 * _END:
        text = f"{text[:_END]}\n{text[-_END:]}"
    return _WIDE_BLANK.sub(lambda m: "\n\n\n" if "\n" in m.group() else "  ", text)


@dataclass(frozen=True, slots=True)
class Detector:
    """A named check with what it looks at and where it comes from."""

    name: str
    """Its name in the metric table and in ``Sample.flags``."""
    text: Literal["raw", "clean", "finish_reason"]
    """What it looks at."""
    reason: str
    """What it flags, in one phrase."""
    source: str
    """Where the definition comes from."""
    check: Check
    """The function."""

    def __call__(self, sample: Sample, stop: Sequence[str] = ()) -> bool:
        """Whether an answered sample is bad; one without a response is not."""
        return sample.answered and self.check(sample, stop)


def _runaway(sample: Sample, stop: Sequence[str]) -> bool:
    raw = _folded(sample.raw)
    if next_task(raw, instruction=sample.instruction, stop=stop):
        return True
    if further_tasks(raw, sample.instruction):
        return True
    return inline_task(raw) or unanswered_task(raw, sample.stop)


def _repetition(sample: Sample, stop: Sequence[str]) -> bool:
    return loops(_folded(sample.raw), instruction=sample.instruction)


def _truncated(sample: Sample, stop: Sequence[str]) -> bool:
    text = _folded(sample.clean)
    # What runs on is another fault: an answer is as whole as it was before that.
    boundary = next_task(text, instruction=sample.instruction, stop=stop)
    if sample.finish_reason == "length" and not boundary:
        # The cap ended the answer, unless something else followed it.
        if not next_task(_folded(sample.raw), instruction=sample.instruction, stop=stop):
            return False
    answer = text[: boundary.start] if boundary else text
    return ends_early(answer, instruction=sample.instruction)


def _delimiter_leak(sample: Sample, stop: Sequence[str]) -> bool:
    text = _folded(sample.clean)
    if delimiter_at_end(text, stop=stop):
        return True
    boundary = next_task(text, instruction=sample.instruction, stop=stop)
    if boundary and boundary.kind != "echo":
        return True
    prose = CODE.sub(" ", text)
    if any(mark in prose for mark in "<[") and SPECIAL_TOKEN.search(prose):
        return True
    if "#" in prose and _HASHES.search(prose):
        return True
    asks = any(mark in prose for mark in ":：") and INLINE_ASK.search(prose)
    return bool(asks) or any(_holds(prose, form) for form in stop)


def _holds(text: str, stop: str) -> bool:
    """A stop string is left, or its visible part after the end of a sentence."""
    form = stop.strip()
    if not form:
        return False
    if stop in text:
        return True
    return bool(re.search(rf"(?<=[.!?\"')\]])[ \t]{{0,4}}{re.escape(form)}(?!\w)", text))


def _token_limit(sample: Sample, stop: Sequence[str]) -> bool:
    return sample.finish_reason == "length"


def _empty(sample: Sample, stop: Sequence[str]) -> bool:
    return _NOTHING.fullmatch(sample.clean or "") is not None


DETECTORS: Final[dict[str, Detector]] = {
    d.name: d
    for d in (
        Detector(
            "runaway", "raw", "goes on into another task, turn or document",
            "completions continue their prompt's scaffold; never a matter of length", _runaway,
        ),
        Detector(
            "repetition", "raw", "a degenerate loop of token, phrase, line or list",
            "Holtzman et al. 2020, section 3; Welleck et al. 2020", _repetition,
        ),
        Detector(
            "token_limit", "finish_reason", "ended by the token cap",
            "the engine's finish_reason", _token_limit,
        ),
        Detector(
            "truncated", "clean", "ends mid-sentence or before what it announces",
            "counted before any filter, on cleaned text, so that a cleaner's cuts show", _truncated,
        ),
        Detector(
            "delimiter_leak", "clean", "a stop string, a scaffold mark or a part of one is left",
            "a delimiter half removed, as ``###`` of ``###END###``, is still one", _delimiter_leak,
        ),
        Detector("empty", "clean", "no text", "an answer has words, figures or a sign", _empty),
    )
}  # fmt: skip
"""Every detector by name, in the order of the metric table."""


def detect(sample: Sample, *, stop: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of the detectors that fire on a sample, sorted.

    Args:
        sample: An answered sample; one without a response has no flags.
        stop: The stop strings in force.
    """
    return tuple(sorted(name for name, d in DETECTORS.items() if d(sample, stop)))
