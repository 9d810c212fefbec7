"""A detector's controls once more, planted in a run's own answers.

The shipped controls are people's texts; what a model writes may hide a fault from a detector that
finds it there. What plants look like is ``plants.py``, what is counted ``certify.py``. The one
idea: a certificate is refuted only by controls that surely fall short, since a few misses are no
proof against it. Nobody has judged a run's own answers, so what a detector must leave alone are
the shipped good ones.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

from pipeline.detection.certify import certificate, negative_controls, positive_controls
from pipeline.detection.detectors import DETECTORS, detect
from pipeline.types import Certificate, Sample

_ANSWERS: Final = 60
"""Own answers that faults are planted in, at most."""
FEWEST: Final = 20
"""Plants of one kind below which nothing can be said."""


@dataclass(frozen=True, slots=True)
class OwnPair:
    """An instruction of the run with its answer."""

    instruction: str
    """What was asked."""
    response: str
    """The answer as it was cleaned."""


def own_pairs(samples: Sequence[Sample], *, seed: int) -> tuple[OwnPair, ...]:
    """Answers whose cleaned text shows no fault, drawn by ``seed``, in their order.

    One that ran on is whole once the cleaner has taken away what followed it.
    """
    order = random.Random(seed).sample(range(len(samples)), len(samples))
    drawn = sorted(islice((i for i in order if _is_whole(samples[i])), _ANSWERS))
    return tuple(OwnPair(samples[i].instruction, samples[i].clean or "") for i in drawn)


def certify_again(
    name: str, pairs: Sequence[OwnPair], stop: Sequence[str] = (), *, minimum: float
) -> Certificate:
    """What a detector shows on faults planted in ``pairs``, and on the shipped good answers.

    Args:
        name: The detector's name.
        pairs: The run's own, from :func:`own_pairs`.
        stop: The stop strings in force.
        minimum: What the lower limits of its certificate had to reach.
    """
    detector = DETECTORS[name]
    planted = positive_controls(detector, stop, pairs=pairs)
    good = negative_controls(stop)
    caught = sum(detector(s, stop) for s in planted)
    spared = sum(not detector(s, stop) for s in good)
    return certificate(name, (caught, len(planted)), (spared, len(good)), minimum=minimum)


def _is_whole(sample: Sample) -> bool:
    if not sample.clean or not sample.instruction:
        return False
    alone = replace(sample, raw=sample.clean, finish_reason="eos", stop=None)
    return not sample.flags or not detect(alone)


def is_refuted(found: Certificate, *, minimum: float) -> bool:
    """Whether a share surely stays below ``minimum``: its upper 95 % limit does."""
    highs = (found.sensitivity_high, found.specificity_high)
    return any(high is not None and high < minimum for high in highs)
