"""Controls and certificates: what detectors and critics show on planted good and bad cases.

A detector is certified when the lower 95 % limits of its sensitivity and specificity on controls
reach a minimum; a critic's margin is set where the upper 95 % limit of what it falsely accepts
stays below a maximum. How plants are made is in ``plants.py``, the pairs are in
``prompts/controls``. The one idea: controls pass through the same cleaning as rows, and a plant
that the cleaner repaired is no longer a plant.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import cast

from pipeline.clean import clean
from pipeline.detectors import DETECTORS, Detector
from pipeline.plants import PLANTS, Plant
from pipeline.types import Certificate, FinishReason, Sample
from pipeline.verdict import clopper_pearson

_ONE_SIDED = 0.10
"""Passing it to a two-sided interval gives one-sided limits at 95 %."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One good instruction with one good answer."""

    id: str
    """Its name."""
    kind: str
    """What sort of answer: fact, explanation, code, list, table ..."""
    instruction: str
    """What is asked."""
    response: str
    """A good answer."""


@cache
def good_pairs() -> tuple[Pair, ...]:
    """The shipped good pairs."""
    text = (files("prompts") / "controls" / "good_pairs.jsonl").read_text(encoding="utf-8")
    return tuple(Pair(**json.loads(line)) for line in text.splitlines())


@cache
def vague_instructions() -> tuple[str, ...]:
    """Shipped instructions that nobody could follow."""
    path = files("prompts") / "controls" / "vague_instructions.txt"
    return tuple(path.read_text(encoding="utf-8").splitlines())


def certify_detectors(stop: Sequence[str] = (), *, minimum: float = 0.95) -> dict[str, Certificate]:
    """A certificate for every detector, from controls cleaned with these stop strings.

    Args:
        stop: The stop strings in force.
        minimum: What the lower 95 % limits of sensitivity and specificity must reach.
    """
    return {name: certify(detector, stop, minimum=minimum) for name, detector in DETECTORS.items()}


def certify(detector: Detector, stop: Sequence[str] = (), *, minimum: float = 0.95) -> Certificate:
    """The certificate of one detector; see :func:`certify_detectors`."""
    positives, negatives = positive_controls(detector, stop), negative_controls(stop)
    caught = sum(detector(s, stop) for s in positives)
    spared = sum(not detector(s, stop) for s in negatives)
    low = min(lower_limit(caught, len(positives)), lower_limit(spared, len(negatives)))
    certified = low >= minimum
    reason = (
        f"caught {caught} of {len(positives)}, spared {spared} of {len(negatives)}; "
        f"lower limit {low:.3f}, {minimum:g} needed"
    )
    return Certificate(
        detector.name,
        caught / len(positives) if positives else None,
        spared / len(negatives) if negatives else None,
        len(positives), len(negatives), certified, reason,
    )  # fmt: skip


def lower_limit(k: int, n: int) -> float:
    """One-sided lower 95 % limit of a share (Clopper-Pearson)."""
    return clopper_pearson(k, n, _ONE_SIDED)[0] if n else 0.0


def upper_limit(k: int, n: int) -> float:
    """One-sided upper 95 % limit of a share."""
    return clopper_pearson(k, n, _ONE_SIDED)[1] if n else 1.0


def positive_controls(detector: Detector, stop: Sequence[str] = ()) -> list[Sample]:
    """Planted faults, each once, cleaned; on cleaned text, without what the cleaner repaired."""
    made = dict.fromkeys(PLANTS[detector.name](good_pairs()))
    plants = [_planted(plant, stop) for plant in made]
    if detector.text != "clean" or detector.name == "empty":
        return plants
    return [s for s in plants if s.clean == (s.raw or "").strip()]


def negative_controls(stop: Sequence[str] = ()) -> list[Sample]:
    """Good answers, cleaned; one that holds a stop string would have been cut, and is left out."""
    return [
        _sample(pair.instruction, (f" {pair.response}", "eos"), stop)
        for pair in good_pairs()
        if not any(form in pair.response for form in stop)
    ]


def _planted(plant: Plant, stop: Sequence[str]) -> Sample:
    return _sample("", plant, stop)


def _sample(instruction: str, plant: Plant, stop: Sequence[str]) -> Sample:
    raw, reason = plant
    text = clean(raw, stop=stop)
    reason = cast(FinishReason, reason)
    return Sample(0, instruction, instruction, raw=raw, clean=text, finish_reason=reason)


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
