"""pipeline/detection/own_plants.py: controls again, in a run's own answers."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from pipeline.detection.certify import certificate
from pipeline.detection.detectors import DETECTORS, detect
from pipeline.detection.own_plants import OwnPair, certify_again, is_refuted, own_pairs
from pipeline.good_pairs import good_pairs
from pipeline.types import Sample

STOP = ("\nInstruction", "\nQ:")


def answered(index: int, instruction: str, raw: str, clean: str) -> Sample:
    sample = Sample(index, instruction, instruction, raw=raw, clean=clean, finish_reason="eos")
    return replace(sample, flags=detect(sample, stop=STOP))


def rows() -> list[Sample]:
    """Good answers, each second one of which runs on, and as many that are only loops."""
    ran = "\n\nInstruction: Name a river in Spain.\nResponse: The Ebro."
    found = [
        answered(i, p.instruction, f" {p.response}{ran if i % 2 else ''}", p.response)
        for i, p in enumerate(good_pairs())
    ]
    loops = [answered(len(found) + i, "Say it.", " the" * 40, "the the" * 40) for i in range(170)]
    return [*found, *loops]


def test_answers_are_drawn_by_seed_and_those_that_ran_on_are_whole_once_cleaned() -> None:
    samples = rows()
    assert any("runaway" in s.flags for s in samples)
    pairs = own_pairs(samples, seed=7)
    assert pairs == own_pairs(samples, seed=7) != own_pairs(samples, seed=8)
    assert len(pairs) == 60
    ran_on = {s.clean for s in samples if "runaway" in s.flags}
    assert any(pair.response in ran_on for pair in pairs)
    assert not any("the the" in pair.response for pair in pairs)


@pytest.mark.parametrize("name", [n for n in DETECTORS if n != "token_limit"])
def test_a_sound_detector_is_not_refuted(name: str) -> None:
    found = certify_again(name, own_pairs(rows(), seed=1), STOP, minimum=0.95)
    assert found.positives >= 20 and found.negatives > 100
    assert not is_refuted(found, minimum=0.95)


def test_a_detector_that_misses_what_is_planted_here_is_refuted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sound = DETECTORS["runaway"]

    def blind(sample: Sample, stop: Sequence[str]) -> bool:
        return "zebra" not in (sample.raw or "") and sound.check(sample, stop)

    monkeypatch.setitem(DETECTORS, "runaway", replace(sound, check=blind))
    pairs = [OwnPair(f"Tell me what zebra number {i} eats.", "A zebra eats.") for i in range(40)]
    found = certify_again("runaway", pairs, STOP, minimum=0.95)
    assert found.sensitivity == 0 and is_refuted(found, minimum=0.95)


@pytest.mark.parametrize(
    ("caught", "n", "refuted"),
    [(20, 20, False), (59, 60, False), (161, 169, False), (54, 60, False), (50, 60, True)],
    ids=["all of few", "one miss", "as the shipped example", "nine in ten", "five in six"],
)
def test_a_few_misses_are_no_proof(caught: int, n: int, refuted: bool) -> None:
    found = certificate("truncated", (caught, n), (100, 100), minimum=0.95)
    assert is_refuted(found, minimum=0.95) is refuted


def test_what_flags_good_answers_is_refuted() -> None:
    found = certificate("truncated", (60, 60), (80, 100), minimum=0.95)
    assert is_refuted(found, minimum=0.95)
