"""Certificates: every detector earns one, and one that cannot fire does not."""

from dataclasses import replace

import pytest

from pipeline.critics.controls import critic_controls
from pipeline.detection.certify import (
    certify,
    certify_detectors,
    negative_controls,
    positive_controls,
)
from pipeline.detection.detectors import DETECTORS
from pipeline.good_pairs import good_pairs

STOPS = ("\nInstruction", "\nQ:", "\n###", "\nUser:", "\nResponse:")


@pytest.mark.parametrize("stop", [(), STOPS, ("###END###",)], ids=["none", "usual", "end"])
def test_every_detector_is_certified(stop):
    found = certify_detectors(stop)
    assert list(found) == list(DETECTORS)
    for certificate in found.values():
        assert certificate.certified, certificate
        assert certificate.positives >= 59 and certificate.negatives >= 59


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
    assert any(270 <= n <= 290 for n in lengths) and any(460 <= n <= 490 for n in lengths)
    assert len({p.id for p in good_pairs()}) == len(good_pairs()) >= 60
    assert {"fact", "explanation", "code", "list", "table", "creative", "refusal", "word",
            "paragraphs"} <= {p.kind for p in good_pairs()}  # fmt: skip


@pytest.mark.parametrize("most", [12, 60, 10_000])
def test_shuffled_pairs_never_keep_their_answer(most):
    found = critic_controls(most)
    assert len(found.good) == len(found.shuffled) == min(most, len(good_pairs()))
    assert [i for i, _ in found.shuffled] == [i for i, _ in found.good]
    assert sorted(r for _, r in found.shuffled) == sorted(r for _, r in found.good)
    assert all(a[1] != b[1] for a, b in zip(found.good, found.shuffled, strict=True))


def test_bad_instructions_are_of_four_kinds_and_none_is_good():
    found = critic_controls()
    assert set(found.bad_kinds) == {"statement", "shuffled", "cut", "vague"}
    assert len(found.bad_kinds) == len(found.bad_instructions) >= 40
    assert not set(found.bad_instructions) & set(found.good_instructions)
