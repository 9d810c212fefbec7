"""Sentences and blocks said again, wherever they stand: loops that drift or take turns.

Loops of one period are found in ``repetition.py``; here the same sentence comes back with others
between, as when a whole question and its answer repeat. The one idea: a good answer hardly ever
says one sentence three times, and hardly ever spends a third of its words on what it has said.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, groupby
from typing import Final

from pipeline.detection.recurring import marked_up, recurs
from pipeline.detection.vocabulary import few_words

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_SENTENCE_BREAK = re.compile(r"[.!?。！？]+(?:[\"'”’)\]]+)?(?=\s|$)|\n+")
_LABEL = re.compile(
    r"^[ \t]*(?:(?:\(?\d{1,4}[.):]|[-*•+])[ \t]*)?(?:\**[A-Z][a-z]{0,14}(?: \d{1,3})?:\**[ \t]*)?"
)
_SYMBOLS = re.compile(r"[|={}\\<>$]|;$")
"""A line with one of these is a table's, a formula's or a program's."""
_LEAST_WORDS: Final = 5
"""Words of a sentence whose return counts."""
_MOULDED: Final = 6
"""Sentences in a row out of one mould that no list with something to say has."""
_LONGEST: Final = 400
"""Characters of a sentence that are compared."""
_UNIT = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]+(?:['’][^\W_]+)*")
_SPAN: Final = 3
"""Words in a row whose return counts towards the share said before; as in Rae et al. 2021, A1."""
_UNSPACED: Final = 8
"""Characters instead, in a script that does not part words."""
_FEWEST: Final = 6
"""Runs of words from which a share can be told."""
_STRETCH: Final = 60
"""Runs of words of a stretch that is judged by itself, since a loop may follow a long answer."""


def said_again(text: str, patience: int) -> bool:
    """Whether a text keeps saying what it has said, in whatever order.

    Args:
        text: A raw response without its code blocks.
        patience: 1, or more where the instruction asks for repetition.
    """
    # Whoever is patient finds less, so that a verse is only looked for where there is something.
    return _returns(text, patience) and (not _verse(text) or _returns(text, 2 * patience))


def _returns(text: str, patience: int) -> bool:
    parts = [part for part in _SENTENCE_BREAK.split(text) if part]
    return (
        _same_sentence(parts, patience)
        or _mostly_said_before(text, patience)
        or _same_mould(parts, patience)
        or recurs(text, patience)
        or few_words(_plain_words(text), patience)
    )


def _plain_words(text: str) -> list[str]:
    plain = "\n".join(line for line in text.split("\n") if not _SYMBOLS.search(line))
    return [word for word in _WORD.findall(plain.lower()) if not word[0].isdigit()]


def _verse(text: str) -> bool:
    """Short lines, hardly one with a full stop, and most of them said once: a song or a poem."""
    plain = (line.strip() for line in text.split("\n"))
    lines = [line for line in plain if line and not line.endswith("**")]
    ended = sum(line.endswith((".", "?", ":", "|")) for line in lines)
    short = all(line.count(" ") < 12 and line[0].isalpha() for line in lines)
    fresh = 2 * len(set(lines)) >= len(lines)
    return len(lines) >= 4 and short and fresh and 2 * ended <= len(lines)


def _same_sentence(parts: Sequence[str], patience: int) -> bool:
    """One sentence three times, or two or more that come back again and again."""
    # Equal sentences end alike, which is cheap to see.
    tails = Counter(part.rstrip("\"'”’)*_ ").lower()[-8:] for part in parts)
    if max(tails.values(), default=0) < 3 * patience:
        return False
    counts = Counter(_sentences(parts))
    if not counts:
        return False
    most = max(counts.values())
    total = sum(counts.values())
    extra = total - len(counts)
    return most >= 3 * patience and (most * 8 >= total or extra >= 6 * patience)


def _sentences(parts: Iterable[str]) -> Iterator[str]:
    for part in parts:
        if not marked_up(part):
            words = _WORD.findall(_LABEL.sub("", part, count=1).lower())
            if len(words) >= _LEAST_WORDS:
                yield " ".join(words)


def _same_mould(parts: Sequence[str], patience: int) -> bool:
    """Sentence after sentence out of one mould, in which only a word or two change."""
    parts = [part for part in parts if part.strip()]
    least = _MOULDED * patience - 1
    pairs = list(zip(parts, parts[1:], strict=False))
    # So many pairs in a row hold one of every so many, which is quick to see.
    if not any(_one_mould(*pair) for pair in pairs[least - 1 :: least]):
        return False
    alike = (_one_mould(*pair) for pair in pairs)
    return any(same and len(list(run)) >= least for same, run in groupby(alike))


def _one_mould(part: str, follower: str) -> bool:
    said = [set(_WORD.findall(one.lower()[:_LONGEST])) for one in (part, follower)]
    most = max(map(len, said))
    return min(map(len, said)) >= _LEAST_WORDS and len(said[0] & said[1]) >= 0.6 * most


def _mostly_said_before(text: str, patience: int) -> bool:
    """Half of the runs of three words were said before, or a quarter of them twice or more.

    What was said before once may be a block of its own; what was said twice comes back and back.
    In a stretch, which may be the end of a long answer, four of ten must have been said twice.
    """
    lines = (line for line in text.split("\n") if not marked_up(line))
    words = _UNIT.findall("\n".join(lines).lower())
    if _mostly_new(words):
        return False
    span = _SPAN if sum(len(word) > 1 for word in words) > 0.5 * len(words) else _UNSPACED
    if len(said := _times_said(words, span)) < _FEWEST:
        return False
    before = list(accumulate((times >= 2 for times in said), initial=0))
    stretches = (late - early for early, late in zip(before, before[_STRETCH:], strict=False))
    return (
        sum(times >= 1 for times in said) >= min(0.5 * patience, 0.97) * len(said)
        or before[-1] >= 0.25 * patience * len(said)
        or max(stretches, default=0) >= 0.4 * patience * _STRETCH
    )


def _mostly_new(words: Sequence[str]) -> bool:
    """So few words in a row return that no share can be reached; quick, since most texts are."""
    pairs = max(len(words) - 1, 0)
    returned = pairs - len(set(zip(words, words[1:], strict=False)))
    return returned < min(0.2 * pairs, 0.3 * _STRETCH)


def _times_said(words: Sequence[str], span: int) -> list[int]:
    """For each run of words that is not all figures, how many times it was said before."""
    seen: Counter[int] = Counter()
    times = []
    for place in range(len(words) - span + 1):
        run = words[place : place + span]
        if sum(word.isdigit() for word in run) < 2:
            key = hash(tuple(run))
            times.append(seen[key])
            seen[key] += 1
    return times
