"""Controls for critics: good pairs and instructions, and the same ones spoilt, fault by fault.

What critics make of them is in ``calibrate.py``. Most are made from the shipped good pairs by
rule, the rest is shipped beside them: vague texts, and answers in which one detail is wrong. The
one idea: the same in every run, so that a certificate can be kept.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final, Generic, TypeVar

from pipeline.critics.scores import Pair
from pipeline.good_pairs import Pair as GoodPair
from pipeline.good_pairs import good_pairs, vague_instructions

Item = TypeVar("Item")
REQUIRED: Final = {"instruction": "statement", "pair": "shuffled"}
"""The fault that a critic must see before its acceptance counts."""
_PAIRS: Final = 60
"""Good pairs, and pairs of one fault, at most: scoring them is half of what preflight takes."""
_INSTRUCTIONS: Final = 80
"""Good instructions at most; half as many of one fault."""
CUTTABLE: Final = 6
"""Words from which a text can be cut or shuffled."""
_STATING: Final = frozenset({"fact", "explanation", "refusal", "rewrite"})
"""Kinds of answers whose first sentence states something."""


@dataclass(frozen=True, slots=True)
class Controls(Generic[Item]):
    """What a critic is shown before its scores count."""

    good: tuple[Item, ...]
    """Good ones."""
    bad: Mapping[str, tuple[Item, ...]]
    """Bad ones by kind of fault."""

    @property
    def items(self) -> tuple[Item, ...]:
        """Good ones, then bad ones, in the order of the faults."""
        return (*self.good, *(item for items in self.bad.values() for item in items))


def pair_controls(most: int = _PAIRS) -> Controls[Pair]:
    """Good pairs, and pairs whose answer is another's, cut, vague or wrong in one detail."""
    chosen = _spread(good_pairs(), most)
    good = tuple((p.instruction, p.response) for p in chosen)
    # Pairs are grouped by kind, so half a turn gives each instruction an answer of another kind.
    turned = _turned([response for _, response in good], len(good) // 2)
    vague = _vague_responses()
    asked = _spread([i for i, _ in good], len(vague))
    return Controls(
        good,
        {
            "shuffled": tuple((i, r) for (i, _), r in zip(good, turned, strict=True)),
            "cut": tuple((i, cut_text(r)) for i, r in good if len(r.split()) >= CUTTABLE),
            "vague": tuple(zip(asked, vague, strict=False)),
            "off_by_one_detail": tuple(_spread(list(_wrong_details()), most)),
        },
    )


def instruction_controls(most: int = _INSTRUCTIONS) -> Controls[str]:
    """Good instructions, and statements, shuffled words, cut halves and vague ones."""
    every = good_pairs()
    long = [words for p in every if len(words := p.instruction.split()) >= CUTTABLE]
    half = most // 2
    return Controls(
        tuple(p.instruction for p in _spread(every, most)),
        {
            "statement": tuple(_spread(list(_statements(every)), half)),
            "shuffled": tuple(" ".join(_stirred(words)) for words in _spread(long[0::2], half)),
            "cut": tuple(" ".join(words[: len(words) // 2]) for words in _spread(long[1::2], half)),
            "vague": tuple(_spread(vague_instructions(), half)),
        },
    )


def _spread(items: Sequence[Item], most: int) -> list[Item]:
    """Up to ``most`` of them, evenly from the whole."""
    count = min(most, len(items))
    return [items[place * len(items) // count] for place in range(count)]


def _turned(items: Sequence[Item], by: int) -> list[Item]:
    return [*items[by:], *items[:by]]


def cut_text(response: str) -> str:
    """Its first half, which ends within a sentence."""
    ends = [word.end() for word in re.finditer(r"\S+", response)]
    return response[: ends[len(ends) // 2 - 1]].rstrip(".,:;")


def _statements(pairs: Iterable[GoodPair]) -> Iterable[str]:
    """First sentences that state something and ask nothing."""
    for pair in pairs:
        first, stop, _ = pair.response.replace("\n", " ").partition(". ")
        sentence = f"{first}." if stop else first
        if pair.kind in _STATING and sentence.endswith(".") and len(sentence) <= 120:
            yield sentence


def _stirred(words: Sequence[str]) -> list[str]:
    """Words in an order that is no sentence: every third one, from the last."""
    turned = list(reversed(words))
    return turned[0::3] + turned[1::3] + turned[2::3]


def _wrong_details() -> Iterable[Pair]:
    by_id = {p.id: p for p in good_pairs()}
    for line in _lines("off_by_one.jsonl"):
        told = json.loads(line)
        pair = by_id[told["id"]]
        yield pair.instruction, pair.response.replace(told["right"], told["wrong"], 1)


def _vague_responses() -> tuple[str, ...]:
    """Shipped answers that fit anything and say nothing."""
    return _lines("vague_responses.txt")


@cache
def _lines(name: str) -> tuple[str, ...]:
    text = (files("prompts") / "controls" / name).read_text(encoding="utf-8")
    return tuple(text.splitlines())
