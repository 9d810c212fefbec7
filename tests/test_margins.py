"""Margins: set where few bad controls come through, and nowhere else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from pipeline.critics.areas import auc
from pipeline.critics.margins import check_margin, set_margin

SCORES = st.lists(st.floats(-10, 10), min_size=1, max_size=60)


def test_parted_scores_get_a_margin_between_them():
    found = set_margin([1.0] * 60, [-1.0] * 60, max_false_accept=0.2)
    assert found.margin == 0.0 and found.true_accept == 1 and found.false_accept == 0
    assert found.auc == 1.0 and found.certificate("pair_acceptance").certified


@pytest.mark.parametrize(
    ("good", "bad"),
    [([], []), ([1.0], []), ([1.0] * 60, [-1.0] * 5), ([0.0] * 60, [0.0] * 60),
     ([-1.0] * 60, [1.0] * 60)],
    ids=["none", "no bad", "too few", "alike", "upside down"],
)  # fmt: skip
def test_a_margin_that_cannot_be_shown_to_work_is_none(good, bad):
    found = set_margin(good, bad, max_false_accept=0.2)
    assert found.margin is None and found.reason
    assert not found.certificate("pair_acceptance").certified


@given(SCORES, SCORES, st.floats(0.05, 0.9))
def test_what_is_promised_of_a_margin_holds(good, bad, most):
    found = set_margin(good, bad, max_false_accept=most)
    if found.margin is not None:
        assert found.false_accept_high is not None and found.false_accept_high < most
        assert sum(s > found.margin for s in bad) == round((found.false_accept or 0) * len(bad))
        assert (found.true_accept or 0) > (found.false_accept or 0)


def test_a_given_margin_is_checked_in_the_same_way():
    good, bad = [2.0] * 50 + [0.0] * 10, [-1.0] * 50 + [1.0] * 10
    assert check_margin(1.5, good, bad, max_false_accept=0.2).margin == 1.5
    assert check_margin(0.5, good, bad, max_false_accept=0.2).margin is None


def test_a_certificate_has_the_limits_of_both_shares():
    """Counts of 60: Clopper-Pearson, 95 % on one side; 0.05 ** (1 / 60) where none went wrong."""
    found = check_margin(0.5, [1.0] * 57 + [0.0] * 3, [0.0] * 60, max_false_accept=0.2)
    shown = found.certificate("pair_acceptance")
    assert (shown.sensitivity, shown.specificity) == (0.95, 1.0)
    assert (shown.sensitivity_low, shown.sensitivity_high) == pytest.approx(
        (beta.ppf(0.05, 57, 4), beta.ppf(0.95, 58, 3))
    )
    assert (shown.specificity_low, shown.specificity_high) == pytest.approx((0.05 ** (1 / 60), 1.0))
    assert shown.specificity_low == pytest.approx(1 - found.false_accept_high)
    none = set_margin([], [], max_false_accept=0.2).certificate("pair_acceptance")
    assert none.sensitivity_low is None and none.specificity_high is None


def test_roc_area_by_pairs():
    good, bad = [1.0, 2.0, 3.0], [0.0, 2.0]
    pairs = [(g > b) + 0.5 * (g == b) for g in good for b in bad]
    assert auc(good, bad) == pytest.approx(sum(pairs) / len(pairs))
    assert auc([], bad) is None
