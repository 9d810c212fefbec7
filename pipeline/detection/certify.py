"""Certificates of detectors: what each shows on planted good and bad cases, in this run.

A detector is certified when the lower 95 % limits of its sensitivity and specificity on controls
reach a minimum. How plants are made is in ``plants.py``. The one idea: controls pass through the
same cleaning as rows, and a plant that the cleaner repaired is no longer a plant.
"""

from collections.abc import Sequence
from typing import cast

from pipeline.detection.clean import clean
from pipeline.detection.detectors import DETECTORS, Detector
from pipeline.detection.plants import PLANTS, GoodPair, Plant
from pipeline.good_pairs import good_pairs
from pipeline.types import Certificate, FinishReason, Sample
from pipeline.verdict import lower_limit, upper_limit


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
    return certificate(
        detector.name, (caught, len(positives)), (spared, len(negatives)), minimum=minimum
    )


def certificate(
    name: str, caught: tuple[int, int], spared: tuple[int, int], *, minimum: float
) -> Certificate:
    """A certificate from counts on controls, each with how many there were.

    Its limits are one-sided, 95 % each (Clopper-Pearson): the number of controls is fixed.
    """
    low, high = _limits(*caught)
    low_spared, high_spared = _limits(*spared)
    worst = min(low or 0.0, low_spared or 0.0)
    reason = (
        f"caught {caught[0]} of {caught[1]}, spared {spared[0]} of {spared[1]}; "
        f"lower limit {worst:.3f}, {minimum:g} needed"
    )
    return Certificate(
        name,
        caught[0] / caught[1] if caught[1] else None,
        spared[0] / spared[1] if spared[1] else None,
        caught[1], spared[1], worst >= minimum, reason, low, high, low_spared, high_spared,
    )  # fmt: skip


def _limits(count: int, n: int) -> tuple[float | None, float | None]:
    return (lower_limit(count, n), upper_limit(count, n)) if n else (None, None)


def positive_controls(
    detector: Detector, stop: Sequence[str] = (), *, pairs: Sequence[GoodPair] | None = None
) -> list[Sample]:
    """Planted faults, each once, cleaned; on cleaned text, without what the cleaner repaired.

    They are planted in the shipped good pairs, or in ``pairs``.
    """
    made = dict.fromkeys(PLANTS[detector.name](good_pairs() if pairs is None else pairs))
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
