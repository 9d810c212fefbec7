"""Certificates: every detector earns one, and one that cannot fire does not."""

from collections import Counter
from dataclasses import replace

import pytest

from pipeline.detection.certify import (
    certificate,
    certify,
    certify_detectors,
    negative_controls,
    positive_controls,
)
from pipeline.detection.detectors import DETECTORS
from pipeline.good_pairs import good_pairs
from pipeline.novelty import normalise
from pipeline.verdict import lower_limit, upper_limit

STOPS = ("\nInstruction", "\nQ:", "\n###", "\nUser:", "\nResponse:")


@pytest.mark.parametrize("stop", [(), STOPS, ("###END###",)], ids=["none", "usual", "end"])
def test_every_detector_is_certified(stop):
    found = certify_detectors(stop)
    assert list(found) == list(DETECTORS)
    for one in found.values():
        assert one.certified, one
        assert one.positives >= 59 and one.negatives >= 59


def test_a_detector_that_cannot_fire_is_not_certified():
    """A hand-run pilot's repaired one looked for what the cleaner had removed."""
    blind = replace(DETECTORS["runaway"], check=lambda sample, stop: "\nQ:" in (sample.clean or ""))
    found = certify(blind)
    assert not found.certified and found.sensitivity is not None and found.sensitivity < 0.1
    assert "caught" in found.reason


def test_a_detector_of_length_is_not_certified():
    """A hand-run pilot's first one, word for word in its rule."""
    long = replace(
        DETECTORS["runaway"],
        check=lambda s, stop: len(s.clean or "") > 200 or (s.clean or "").count(".") > 3,
    )
    found = certify(long)
    assert not found.certified and found.specificity is not None and found.specificity < 0.9


def test_a_detector_that_always_fires_is_not_certified():
    assert not certify(replace(DETECTORS["empty"], check=lambda s, stop: True)).certified


def test_the_minimum_is_what_decides():
    assert certify(DETECTORS["runaway"], minimum=0.5).certified
    assert not certify(DETECTORS["runaway"], minimum=0.999).certified


@pytest.mark.parametrize("name", DETECTORS)
def test_controls_are_distinct_and_went_through_the_cleaner(name):
    plants = positive_controls(DETECTORS[name], STOPS)
    assert len({(s.raw, s.finish_reason) for s in plants}) == len(plants)
    assert all(s.clean is not None for s in plants)


def test_plants_that_the_cleaner_repaired_are_no_plants():
    plants = positive_controls(DETECTORS["delimiter_leak"])
    assert all(s.clean == (s.raw or "").strip() for s in plants)


def test_a_good_answer_that_a_stop_string_would_cut_is_no_negative():
    assert len(negative_controls(("\n\n",))) < len(negative_controls()) == len(good_pairs())


def test_good_pairs_hold_long_answers():
    lengths = sorted(len(p.response) for p in good_pairs() if p.kind == "explanation")
    assert {279, 471} <= set(lengths)
    assert len({p.id for p in good_pairs()}) == len(good_pairs()) >= 150
    assert len({normalise(p.instruction) for p in good_pairs()}) == len(good_pairs())
    assert {"fact", "explanation", "code", "list", "table", "creative", "refusal", "word",
            "paragraphs",
            "language"} <= {p.kind for p in good_pairs()}  # fmt: skip


def test_a_certificate_tells_its_limits():
    found = certify(DETECTORS["truncated"])
    assert found.sensitivity is not None and found.specificity is not None
    caught = round(found.sensitivity * found.positives)
    assert found.sensitivity_low == lower_limit(caught, found.positives)
    assert found.sensitivity_high == upper_limit(caught, found.positives)
    assert found.specificity_low is not None and found.specificity_high == 1.0
    assert found.specificity_low < 1.0


@pytest.mark.parametrize(
    ("caught", "spared", "certified"),
    [((59, 59), (59, 59), True), ((58, 59), (59, 59), False), ((59, 59), (58, 59), False),
     ((58, 58), (99, 99), False), ((0, 0), (99, 99), False), ((99, 99), (0, 0), False)],
)  # fmt: skip
def test_both_lower_limits_must_reach_the_minimum(caught, spared, certified):
    found = certificate("runaway", caught, spared, minimum=0.95)
    assert found.certified is certified
    assert (found.sensitivity_low is None) == (caught[1] == 0) == (found.sensitivity is None)


@pytest.mark.parametrize("name", ["runaway", "repetition", "truncated", "delimiter_leak"])
def test_no_single_pattern_catches_the_plants(name):
    """Plants vary: no ten characters are common to most of them, but for their answers."""
    pairs = [p.response for p in good_pairs()] + [p.instruction for p in good_pairs()]
    known = {text[i : i + 10] for text in pairs for i in range(len(text) - 9)}
    plants = [s.raw or "" for s in positive_controls(DETECTORS[name])]
    grams = [{raw[i : i + 10] for i in range(len(raw) - 9)} - known for raw in plants]
    common = Counter(gram for found in grams for gram in found)
    assert max(common.values()) < 0.34 * len(plants)
