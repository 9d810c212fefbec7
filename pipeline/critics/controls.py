"""Controls for critics: good pairs and instructions, and the same ones spoilt.

What critics make of them is in ``calibrate.py``. The one idea: every control is made from the
shipped good pairs by rule, so it is the same in every run.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.good_pairs import Pair, good_pairs, vague_instructions


@dataclass(frozen=True, slots=True)
class CriticControls:
    """What critics are shown before their scores count."""

    good: tuple[tuple[str, str], ...]
    """Good pairs, instruction and response."""
    shuffled: tuple[tuple[str, str], ...]
    """The same instructions, each with another one's response."""
    good_instructions: tuple[str, ...]
    """Instructions of the good pairs."""
    bad_instructions: tuple[str, ...]
    """Statements, shuffled words, cut halves and vague ones, in this order."""
    bad_kinds: tuple[str, ...]
    """Kind of each bad instruction: statement, shuffled, cut or vague."""


def critic_controls(most: int = 60) -> CriticControls:
    """Controls for critics, from up to ``most`` of the shipped pairs, the same in every run."""
    every = good_pairs()
    count = min(most, len(every))
    pairs = [every[place * len(every) // count] for place in range(count)]
    responses = [p.response for p in pairs]
    # Pairs are grouped by kind, so half a turn gives each instruction an answer of another kind.
    turned = responses[count // 2 :] + responses[: count // 2]
    instructions = tuple(p.instruction for p in pairs)
    bad = [(kind, text) for kind, texts in _bad_instructions(pairs) for text in texts]
    return CriticControls(
        good=tuple((p.instruction, p.response) for p in pairs),
        shuffled=tuple(zip(instructions, turned, strict=True)),
        good_instructions=instructions,
        bad_instructions=tuple(text for _, text in bad),
        bad_kinds=tuple(kind for kind, _ in bad),
    )


def _bad_instructions(pairs: Sequence[Pair]) -> Iterable[tuple[str, list[str]]]:
    quarter = len(pairs) // 4 + 1
    statements = [p.response for p in pairs if p.kind in {"fact", "refusal", "rewrite"}]
    yield "statement", [s for s in statements if s.endswith(".")][:quarter]
    long = [p.instruction.split() for p in pairs if len(p.instruction.split()) >= 6]
    yield "shuffled", [" ".join(_stirred(words)) for words in long[0::2]][:quarter]
    yield "cut", [" ".join(words[: len(words) // 2]) for words in long[1::2]][:quarter]
    yield "vague", list(vague_instructions())[:quarter]


def _stirred(words: Sequence[str]) -> list[str]:
    """Words in an order that is no sentence: every third one, from the last."""
    turned = list(reversed(words))
    return turned[0::3] + turned[1::3] + turned[2::3]
