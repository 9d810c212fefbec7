"""What the scripted base model writes: instructions, answers, and what it runs on into.

Pure text from a random generator; how often each happens is decided in ``scripted.py``. The pool of
instructions is large, and drawn from with a bias towards its head, as a small base model draws.
"""

import random
import re
from typing import Final

OPENINGS: Final = (
    "What is", "Explain", "Describe", "Name one use of", "Give an example of", "How do people use",
    "Why do people like", "List two facts about", "Write a sentence about", "Tell me about",
    "What is the purpose of", "When should you use", "Compare two kinds of", "Who works with",
    "Where can you find", "Give a tip for buying", "Define", "Summarise the history of",
)  # fmt: skip
QUALITIES: Final = (
    "a simple", "a common", "a modern", "an old", "a small", "a large", "a useful", "a famous",
    "a wooden", "a local", "a healthy", "a quiet", "a bright", "a cheap", "a rare", "a traditional",
)  # fmt: skip
THINGS: Final = (
    "garden", "bridge", "engine", "violin", "market", "teacher", "harbour", "planet", "computer",
    "recipe", "museum", "bicycle", "forest", "library", "mountain", "camera", "painting", "village",
    "telescope", "battery", "calendar", "kitchen", "railway", "orchestra", "hospital", "island",
    "magnet", "novel", "passport", "pyramid", "river", "satellite", "sculpture", "theatre",
    "umbrella", "volcano", "windmill", "compass", "dictionary", "festival", "glacier", "lantern",
)  # fmt: skip
PLACES: Final = (
    "in a city", "at home", "in winter", "for a beginner", "in Europe", "by the sea", "at school",
    "for children", "in daily life", "in the past", "at night", "for a family", "in spring",
    "abroad",
)  # fmt: skip
_FACTS: Final = (
    "helps people every day", "has been known for many years", "can be found in most towns",
    "is made with care", "saves time and money", "brings people together", "needs regular care",
    "is easier to understand with an example", "changes a little from place to place",
)  # fmt: skip
_JUNK: Final = ("vor", "xel", "quint", "strab", "lomp", "drish", "fenk", "wob", "tarn", "glib")
_COMMON: Final = frozenset(
    "about after answer before describe every explain example find give have instruction into list"
    " more most name people purpose response should some sentence summarise tell text than that"
    " their them there these they this those used using what when where which with would write"
    " your".split()
)
POOL: Final = len(OPENINGS) * len(QUALITIES) * len(THINGS) * len(PLACES)


def instruction(rank: int) -> str:
    """The ``rank``-th instruction of the pool."""
    rank, thing = divmod(rank, len(THINGS))
    rank, opening = divmod(rank, len(OPENINGS))
    quality, place = divmod(rank, len(PLACES))
    asks = OPENINGS[opening].startswith(("What", "How", "Why", "When", "Who", "Where"))
    mark = "?" if asks else "."
    words = f"{OPENINGS[opening]} {QUALITIES[quality % len(QUALITIES)]} {THINGS[thing]}"
    return f"{words} {PLACES[place]}{mark}"


def statement(chance: random.Random) -> str:
    """A line that asks nothing."""
    return f"The {chance.choice(THINGS)} was closed {chance.choice(PLACES)} on Monday."


def junk(chance: random.Random, words: int) -> str:
    """Words that mean nothing."""
    return " ".join(chance.choice(_JUNK) + chance.choice(_JUNK) for _ in range(words))


def subject(text: str) -> str:
    """What an answer is about: the last of the rarer words of ``text``, or a pronoun."""
    words: list[str] = [w for w in re.findall(r"[^\W\d_]{4,}", text) if w.lower() not in _COMMON]
    known = [w for w in words if w.lower() in THINGS]
    return (known or words or ["It"])[-1]


def answer(text: str, chance: random.Random) -> str:
    """One to four sentences that name the subject of ``text``."""
    name = subject(text)
    first = f"A {name} {chance.choice(_FACTS)} and {chance.choice(_FACTS)}."
    more = [f"It {chance.choice(_FACTS)}." for _ in range(chance.choice((0, 0, 1, 1, 2, 3)))]
    return " ".join([first, *more])


def essay(text: str, chance: random.Random) -> str:
    """An answer far longer than it should be."""
    return " ".join(answer(text, chance) for _ in range(12))


def stems(text: str) -> frozenset[str]:
    """The beginnings of the rarer words of ``text``, for counting what two texts share."""
    words = re.findall(r"[^\W_]{3,}", text.lower())
    return frozenset(w[:5] for w in words if w not in _COMMON)
