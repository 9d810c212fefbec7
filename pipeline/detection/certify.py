"""Certificates of detectors: what each shows on planted good and bad cases, in this run.

A detector is certified when the lower 95 % limits of its sensitivity and specificity on controls
reach a minimum. How plants are made is in ``plants.py``. The one idea: controls pass through the
same cleaning as rows, and a plant that the cleaner repaired is no longer a plant.
"""

from collections.abc import Sequence
from typing import cast

from pipeline.detection.clean import clean
from pipeline.detection.detectors import DETECTORS, Detector
from pipeline.detection.plants import PLANTS, Plant
from pipeline.good_pairs import good_pairs
from pipeline.types import Certificate, FinishReason, Sample
from pipeline.verdict import lower_limit


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
