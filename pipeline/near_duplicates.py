"""Instructions that say again what an earlier one said, in all but the same words.

Exact repeats are ``novelty.py``'s. MinHash over runs of four bytes (Broder 1997) and banding find
candidates; each is then compared exactly. The one idea: in short texts one word is a different
task, "capital of France" and "capital of Spain", so a pair in which each side has a word of its
own is no near-duplicate, however alike its letters are.

Written here rather than taken from datasketch 2.0 or rensa 0.5, because their buckets hold every
text of a template, so that a file of 100,000 rows from one template takes quadratic time; here a
bucket holds the latest few. Speed and memory are measured in ``tests/test_near_duplicates.py``.
"""

import hashlib
import re
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from pipeline.novelty import normalise

if TYPE_CHECKING:
    import numpy as np

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|[+#*/<>=%^&|~]|-(?=\d)")
"""A word, or a sign that makes another task: C++ and C#, 12 + 4 and 12 * 4, 5 and -5 degrees."""
_THRESHOLD: Final = 0.7
"""Least Jaccard similarity of two texts' runs of four bytes."""
_BANDS: Final = 8
_ROWS: Final = 4
"""Hashes in a band: a pair at the threshold shares one of the bands with probability 0.985."""
_BUCKET: Final = 4
"""Latest texts that a bucket remembers."""
_CANDIDATES: Final = 8
"""Texts that one is compared with at most, those first that share most bands."""
_LONG: Final = 30
"""Words from which on one exchanged word makes no other task."""
_READ: Final = 4000
"""Characters that are compared."""
_FILLERS: Final = frozenset(
    """
    a an the this that these those some any is are was were be do does did can could would should
    will please me us i you your my our it its there
    """.split()
)
"""Words without which a task is the same."""
_SMALL: Final = _FILLERS | frozenset(
    "of in on at for to from by with about as and or what's what who's who how's how".split()
)
"""Words whose exchange makes no other task where the letters are alike."""
_TURNS: Final = frozenset(
    """
    no not never without off out up down before after above below under over less more least most
    should could must may might
    """.split()
)
"""Words that turn a task into another one, wherever only one side has them."""


class NearDuplicates:
    """Instructions seen so far, in memory: about 1 KB each."""

    def __init__(self) -> None:
        """An index of nothing."""
        self._texts: list[str] = []
        self._buckets: dict[int, tuple[int, ...]] = {}

    def add(self, instruction: str) -> bool:
        """Whether an earlier instruction is a near-duplicate; if not, this one is remembered.

        An exact repeat counts too: callers that tell the two apart look for repeats first.
        """
        text = folded(instruction)
        keys = _bands(text)
        if said := _said(text.split()):
            digest = hashlib.blake2b(" ".join(said).encode(), digest_size=8).digest()
            keys.append(int.from_bytes(digest))
        shared = Counter(place for key in keys for place in self._buckets.get(key, ()))
        if any(alike(text, self._texts[place]) for place, _ in shared.most_common(_CANDIDATES)):
            return True
        place = len(self._texts)
        self._texts.append(text)
        for key in keys:
            self._buckets[key] = (*self._buckets.get(key, ())[1 - _BUCKET :], place)
        return False

    def __len__(self) -> int:
        return len(self._texts)


def folded(instruction: str) -> str:
    """The words and signs of an instruction, without case and other marks, cut to a length."""
    return " ".join(_WORD.findall(normalise(instruction[:_READ])))


def alike(one: str, other: str) -> bool:
    """Whether two folded texts are near-duplicates."""
    words, others = one.split(), other.split()
    if one == other:
        return True
    only, rest = _more(words, others), _more(others, words)
    if min(len(words), len(others)) < _LONG and _another_task(only, rest, words, others):
        return False
    if _said(words) == _said(others) != ():
        return True
    grams, their_grams = _grams(one), _grams(other)
    both = len(grams & their_grams)
    return bool(grams) and both >= _THRESHOLD * (len(grams) + len(their_grams) - both)


def _more(words: list[str], others: list[str]) -> set[str]:
    """Words that come more often on the one side; few texts say a word twice, so look first."""
    once = set(words)
    if len(once) == len(words):
        return once.difference(others)
    return set(Counter(words) - Counter(others))


def _another_task(only: set[str], rest: set[str], words: list[str], others: list[str]) -> bool:
    """Whether each side has a word of its own, but for small words and endings.

    One number, sign or turn is enough, and so are the same words in another order.
    """
    own = only | rest
    if any(word in _TURNS or word.isdigit() or not word[0].isalnum() for word in own):
        return True
    if {"to", "from"} <= own or (not own and _said(words) != _said(others)):
        return True
    return _own(only, others) and _own(rest, words)


def _own(only: set[str], others: list[str]) -> bool:
    """Whether one of the words that only one side has is on the other in no form."""
    left = only - _SMALL
    return bool(left) and not {_stem(w) for w in left} <= {_stem(w) for w in others}


def _said(words: list[str]) -> tuple[str, ...]:
    """What is said, in order and without fillers; nothing where that is less than two words."""
    left = tuple(_stem(w) for w in words if w not in _FILLERS)
    return left if len(left) >= 2 else ()


def _stem(word: str) -> str:
    return word.rstrip("s") if len(word) > 3 else word


def _grams(text: str) -> set[str]:
    padded = f" {text} "
    return {padded[i : i + 4] for i in range(len(padded) - 3)}


def _bands(text: str) -> list[int]:
    """A key for each band of the text's MinHash; none for a text without words."""
    import numpy as np

    data = np.frombuffer(f" {text} ".encode(), dtype=np.uint8).astype(np.uint64)
    if not text or len(data) < 4:
        return [hash(("short", len(data), *data.tolist()))] if text else []
    grams = data[:-3] | data[1:-2] << np.uint64(8) | data[2:-1] << np.uint64(16)
    grams = (grams | data[3:] << np.uint64(24)) * np.uint64(0x9E3779B97F4A7C15)
    grams ^= grams >> np.uint64(29)
    factors, offsets = _hashes()
    least = (grams[:, None] * factors + offsets >> np.uint64(32)).min(axis=0)
    rows = least.reshape(_BANDS, _ROWS).tolist()
    return [hash((band, *row)) for band, row in enumerate(rows)]


@cache
def _hashes() -> "tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]":
    """Odd factors and offsets of the hash functions, the same in every run."""
    import numpy as np

    chance = np.random.default_rng(20_261_122)
    factors = chance.integers(0, 2**63, _BANDS * _ROWS, dtype=np.uint64) * np.uint64(2)
    offsets = chance.integers(0, 2**63, _BANDS * _ROWS, dtype=np.uint64)
    return factors + np.uint64(1), offsets
