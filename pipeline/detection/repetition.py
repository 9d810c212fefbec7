"""Degenerate repetition: a response that loops over a token, a phrase, a line or a list.

Sampling at low temperature falls into loops of growing certainty (Holtzman et al. 2020, "The
curious case of neural text degeneration"); a poem's refrain, a drill or a table of products does
not. The one idea: in a loop the same three words return after the same distance over and over, so
the distances between returns name the period, and only those periods are checked. Linear time.
"""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import groupby

from pipeline.detection.said_again import said_again
from pipeline.detection.scaffold import PREAMBLE

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]+(?:['’][^\W_]+)*")
_ORDINAL = re.compile(r"^[ \t]*(?:\(?\d{1,4}[.):]|[-*•+]|[a-zA-Z][.)])[ \t]*", re.MULTILINE)
_DIGITS = re.compile(r"\d+")
_FENCED = re.compile(r"```.*?```", re.DOTALL)
_LONG_RUN = re.compile(r"\S{30,}")
_REFRAIN = re.compile(
    r"\b(poems?|songs?|lyrics?|chorus|chants?|raps?|rhymes?|nursery|refrain|hymn|mantra|lullaby"
    r"|verses?|haiku|ballad|limerick|spell|cheer|story|repeat\w*|tongue twister|binary"
    r"|matrix|array|drill)\b",
    re.IGNORECASE,
)
_TIMES = re.compile(
    r"\b(repeat\w*|(?<!how many )times|over and over|\d{2,} (?:words|copies))\b", re.IGNORECASE
)
_MOST_PERIODS = 4
"""Candidate periods that are checked in one text."""


def loops(text: str, *, instruction: str = "") -> bool:
    """Whether a text is, or runs into, a degenerate loop.

    Args:
        text: A raw response.
        instruction: What it responds to: one that asks for a poem or a drill gets more patience.
    """
    patience = 2 if _REFRAIN.search(instruction) else 1
    if _TIMES.search(instruction):
        patience = 4
    text = PREAMBLE.sub("", text) if "Below " in text else text
    prose = _FENCED.sub(" ", text)
    plain = _ORDINAL.sub("", prose)
    words = _WORD.findall(plain.lower())
    return (
        _word_loop(words, patience)
        or _counting_loop(prose, patience)
        or _line_loop(plain, patience)
        or _character_loop(text)
        or said_again(prose, patience)
        or (prose != text and _word_loop(_WORD.findall(text.lower()), 3 * patience))
    )


def _word_loop(words: Sequence[str], patience: int) -> bool:
    for period in _periods(words):
        for start, length in _runs(words, period):
            unit = words[start : start + period]
            if _degenerate(unit, length + period, len(words), patience):
                return True
    return False


def _periods(words: Sequence[str]) -> list[int]:
    """Distances at which three words return most often."""
    last: dict[tuple[str, str, str], int] = {}
    distances: Counter[int] = Counter()
    for place, three in enumerate(zip(words, words[1:], words[2:], strict=False)):
        before = last.get(three)
        if before is not None:
            distances[place - before] += 1
        last[three] = place
    return [d for d, count in distances.most_common(_MOST_PERIODS) if count >= 3]


def _runs(words: Sequence[str], period: int) -> list[tuple[int, int]]:
    """Stretches over which every word equals the one ``period`` earlier: start and length."""
    runs: list[tuple[int, int]] = []
    start = 0
    for place in range(period, len(words) + 1):
        if place < len(words) and words[place] == words[place - period]:
            continue
        if place - period > start:
            runs.append((start, place - period - start))
        start = place - period + 1
    return runs


def _degenerate(unit: Sequence[str], covered: int, total: int, patience: int) -> bool:
    """Whether ``unit``, over and over for ``covered`` of ``total`` words, is a loop."""
    if covered < 0.25 * total and covered < 40:
        return False
    letters = sum(any(c.isalpha() for c in word) for word in unit)
    repeats = covered / len(unit)
    if letters == 0:
        return repeats >= (16 if len(unit) < 5 else 4) * patience
    if len(unit) == 1:
        return repeats >= 8 * patience or (repeats >= 6 * patience and covered >= 0.6 * total)
    if len(unit) <= 3:
        return repeats >= 5 * patience or (repeats >= 4 * patience and covered >= 0.6 * total)
    if len(unit) <= 7:
        return repeats >= (3.5 if covered < 0.6 * total else 3) * patience
    return repeats >= 2.5 * patience


def _counting_loop(text: str, patience: int) -> bool:
    """The same sentence with another number each time, beyond what a table or plan needs."""
    if len(_DIGITS.findall(text)) < 4:
        return False
    words = _WORD.findall(_DIGITS.sub("0", text.lower()))
    for period in _periods(words):
        for start, length in _runs(words, period):
            unit = words[start : start + period]
            said = sum(len(w) > 1 for w in unit)
            repeats = (length + period) / period
            if said >= 5 and repeats >= (4 if said >= 8 else 5) * patience:
                return True
    return False


def _line_loop(text: str, patience: int) -> bool:
    """The same line over and over, or most lines said before in whatever order."""
    if text.count("\n") < 3:
        return False
    lines = [line.lower() for line in text.splitlines() if any(c.isalpha() for c in line)]
    # Equal lines begin with the same word, which is quick to see.
    first = [match and match.group() for match in map(_WORD.search, lines)]
    return _go_round(first, patience) and _go_round(
        [" ".join(_WORD.findall(line)) for line in lines], patience
    )


def _go_round(said: Sequence[str | None], patience: int) -> bool:
    if any(len(list(run)) >= 4 * patience for _, run in groupby(said)):
        return True
    return len(said) >= 6 * patience and len(set(said)) <= 0.5 * len(said) / patience**0.5


def _character_loop(text: str) -> bool:
    """A stretch without a space that repeats up to 16 characters."""
    for match in _LONG_RUN.finditer(text):
        run = match.group()
        for period in range(1, 17):
            same = _longest_same(run, period) + period
            unit = run[-period:] if same == len(run) else run[:period]
            sound = any(c.isalpha() for c in run[:256]) and any(c.isalpha() for c in unit)
            if sound and same >= max(30, 10 * period):
                return True
            if not sound and _senseless(unit, same, len(text)):
                return True
    return False


def _senseless(unit: str, same: int, total: int) -> bool:
    """Digits or marks over and over; rules, powers of ten and recurring decimals are not meant."""
    if any(c.isdigit() for c in unit):
        return same >= (40 if len(set(unit)) > 1 else 150)
    return same >= 60 and same > 0.5 * total and unit[0] not in "-=_*~"


def _longest_same(run: str, period: int) -> int:
    """Length of the longest stretch in which each character equals the one ``period`` earlier."""
    if len(run) > 4096:
        return _longest_same_fast(run, period)
    best = now = 0
    for one, other in zip(run, run[period:], strict=False):
        now = now + 1 if one == other else 0
        best = max(best, now)
    return best


def _longest_same_fast(run: str, period: int) -> int:
    import numpy as np

    codes = np.frombuffer(run.encode("utf-32-le"), dtype=np.uint32)
    differs = np.flatnonzero(codes[period:] != codes[:-period])
    edges = np.concatenate(([-1], differs, [len(codes) - period]))
    return int(np.diff(edges).max()) - 1
