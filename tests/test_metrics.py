"""The metric table: definitions, verdicts, and what never passes."""

from dataclasses import replace

import pytest

from pipeline.detection.certify import certify_detectors
from pipeline.forecast import KeptForecast
from pipeline.metrics import (
    FLAGGED,
    GATES,
    METRICS,
    Bound,
    Margins,
    Rules,
    measure,
    rate_metric,
    yield_metric,
)
from pipeline.types import Certificate, Metric, Sample

THRESHOLDS = {
    "runaway": Bound(max=0.05), "repetition": Bound(max=0.05), "token_limit": Bound(max=0.1),
    "truncated": Bound(max=0.02), "delimiter_leak": Bound(max=0.02), "empty": Bound(max=0.05),
    "instruction_acceptance": Bound(min=0.5), "pair_acceptance": Bound(min=0.5),
}  # fmt: skip
CRITICS = {
    name: Certificate(name, 0.9, 0.95, 60, 60, True, "on controls")
    for name in ("instruction_acceptance", "pair_acceptance")
}
RULES = Rules(THRESHOLDS, certify_detectors() | CRITICS, 0.025, Margins(0.0, 0.5, "lift"))


def good(index):
    return Sample(
        index, " Name a fruit.", f"Name fruit {index}.", instruction_score=1.0, raw=" A pear.",
        clean="A pear.", finish_reason="eos", clean_tokens=3, pair_scores={"lift": 1.0},
    )  # fmt: skip


def rows(count, **changes):
    return [replace(good(i), **changes) for i in range(count)]


def test_the_table_has_every_metric_in_its_order():
    found = measure(rows(5), RULES, wanted=5)
    assert tuple(m.name for m in found.metrics) == METRICS
    assert METRICS == (
        "runaway", "repetition", "token_limit", "truncated", "delimiter_leak", "empty",
        "instruction_acceptance", "pair_acceptance", "yield", "raw_acceptance", "duplicates",
        "near_duplicates", "median_tokens",
    )  # fmt: skip
    assert set(found.verdicts()) == set(GATES)


def test_enough_good_rows_pass():
    found = measure(rows(200), RULES, wanted=200)
    verdicts = found.verdicts()
    assert {n for n, v in verdicts.items() if v != "PASS"} == {"yield"}
    assert found["runaway"].threshold == "< 0.05" and found["pair_acceptance"].value == 1.0
    assert found["median_tokens"].value == 3.0 and found["median_tokens"].verdict is None


def test_nothing_never_passes():
    """A hand-run pilot's gate passed on 0 runaways of 0."""
    found = measure([], RULES, wanted=100)
    assert all(m.value is None and m.n == 0 for m in found.metrics)
    assert set(found.verdicts().values()) == {"INSUFFICIENT"}


def test_thirty_clean_rows_are_not_enough():
    found = measure(rows(30), RULES, wanted=100)
    assert found["runaway"].verdict == "INSUFFICIENT"
    assert found["runaway"].rows_needed == 47
    assert "47 more rows" in found["runaway"].reason


@pytest.mark.parametrize("name", FLAGGED)
def test_a_flag_counts_among_answered_rows_before_any_filter(name):
    """A hand-run pilot counted truncation after truncated rows had been filtered out."""
    bad = [replace(s, flags=(name,), dropped="detector") for s in rows(40)]
    unanswered = [Sample(i, "", dropped="parser") for i in range(50)]
    found = measure([*rows(60), *bad, *unanswered], RULES, wanted=100)[name]
    assert (found.count, found.n, found.verdict) == (40, 100, "FAIL")
    assert found.low is not None and found.high is not None
    assert found.low < 0.4 < found.high


@pytest.mark.parametrize(
    "certificates",
    [{}, {n: Certificate(n, 0.5, 1.0, 60, 60, False, "caught 30 of 60") for n in GATES}],
    ids=["none", "failed"],
)
def test_an_uncertified_metric_shows_its_value_and_nothing_else(certificates):
    """A detector that cannot fire neither passes nor fails."""
    rules = replace(RULES, certificates=certificates)
    for samples in (rows(500), rows(500, flags=FLAGGED, dropped="detector")):
        found = measure(samples, rules, wanted=500)
        assert set(found.verdicts().values()) == {"INSUFFICIENT"}
        assert found["runaway"].value is not None and found["runaway"].rows_needed is None
        assert found["runaway"].reason.startswith("uncertified: ")


def test_a_leak_among_kept_rows_fails_whatever_the_rate():
    samples = [*rows(500), replace(good(500), flags=("delimiter_leak",))]
    found = measure(samples, RULES, wanted=500)["delimiter_leak"]
    assert found.verdict == "FAIL" and "kept" in found.reason


def test_acceptance_is_what_the_pipeline_keeps():
    """A hand-run pilot counted good and kept good and confident."""
    samples = [
        *rows(10),
        *rows(4, instruction_score=-1.0, raw=None, clean=None, dropped="instruction_critic"),
        *rows(3, dropped="duplicate", instruction_score=None, raw=None, clean=None),
        *rows(2, dropped="parser", instruction_score=None, raw=None, clean=None),
        *rows(5, pair_scores={"lift": 0.1, "label": 9.0}, dropped="pair_critic"),
        *rows(1, flags=("runaway",), dropped="detector"),
        *rows(1, clean="", pair_scores={}, flags=("empty",), dropped="detector"),
    ]
    found = measure(samples, RULES, wanted=30)
    assert (found["instruction_acceptance"].count, found["instruction_acceptance"].n) == (17, 21)
    assert (found["pair_acceptance"].count, found["pair_acceptance"].n) == (11, 17)
    assert (found["raw_acceptance"].count, found["raw_acceptance"].n) == (10, 26)
    assert (found["duplicates"].count, found["duplicates"].n) == (3, 24)
    assert found.funnel.to_json() == {
        "generated": 26, "parsed": 24, "distinct": 21, "accepted": 17, "answered": 17,
        "unflagged": 15, "kept": 10, "wanted": 30,
    }  # fmt: skip


def test_other_margins_are_measured_on_the_same_rows():
    samples = rows(100, pair_scores={"lift": 1.0, "label": -1.0})
    for margins, value in (
        (Margins(0.0, 0.5, "lift"), 1.0), (Margins(0.0, 2.0, "lift"), 0.0),
        (Margins(0.0, 0.5, "label"), 0.0), (Margins(0.0, None, "lift"), None),
        (Margins(0.0, 0.5, "absent"), None),
    ):  # fmt: skip
        found = measure(samples, replace(RULES, margins=margins), wanted=100)
        assert found["pair_acceptance"].value == value


def test_tokens_that_were_not_counted_are_unmeasured():
    """A field that was never written is no zero."""
    assert measure(rows(5, clean_tokens=None), RULES, wanted=5)["median_tokens"].value is None
    assert rate_metric("token_limit", None, 100, RULES).value is None


@pytest.mark.parametrize(
    ("expected", "low", "high", "verdict"),
    [(20_000, 15_500, 30_000, "PASS"), (16_000, 9_000, 30_000, "PASS"),
     (14_000, 9_000, 30_000, "INSUFFICIENT"), (900, 500, 2_000, "FAIL")],
)  # fmt: skip
def test_yield_is_judged_from_its_forecast(expected, low, high, verdict):
    forecast = KeptForecast(75_000, expected, low, high, 15_000, None, 100, False)
    found = yield_metric(forecast)
    assert found.verdict == verdict and found.threshold == ">= 15000"
    assert "outside the validated range" in found.reason
    assert yield_metric(None).verdict == "INSUFFICIENT" and yield_metric(None).value is None


def test_metrics_go_through_json():
    for metric in measure(rows(50), RULES, wanted=50).metrics:
        assert Metric.from_json(metric.to_json()) == metric
