"""Stretches of text that go round among a few words, in whatever order.

Sentences and lists that come back are found in ``said_again.py`` and ``recurring.py``. The one
idea: who says something new takes new words, so that few words in a long stretch are a loop that
shuffles what it repeats.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

_POOR: Final = ((40, 0.2), (60, 0.25), (100, 0.22))
"""Words of a stretch, and the share of different ones that is too few for prose or a list."""
_LEAST_SAID_AGAIN: Final = 32
"""Words that were said before without which no stretch is so poor; quick to count."""


def few_words(words: Sequence[str], patience: int) -> bool:
    """Whether some stretch of a text goes round among a few words.

    Args:
        words: The text's words in order, small, without figures, code and tables.
        patience: 1, or more where the instruction asks for repetition.
    """
    if len(words) - len(set(words)) < _LEAST_SAID_AGAIN:
        return False
    return any(_poorest(words, span) <= share * span / patience for span, share in _POOR)


def _poorest(words: Sequence[str], span: int) -> int:
    """The fewest different words in a stretch of so many; ``span`` of a shorter text."""
    if len(words) < span:
        return span
    inside = Counter(words[:span])
    fewest = len(inside)
    for gone, come in zip(words, words[span:], strict=False):
        inside[come] += 1
        inside[gone] -= 1
        if not inside[gone]:
            del inside[gone]
        fewest = min(fewest, len(inside))
    return fewest
