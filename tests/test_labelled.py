"""Detectors against rows that were labelled by reading, and good answers of a tuned model."""

import json

import pytest

from benchmarks.detection import BAD, DATA, Share, compare, load, simplest, table
from pipeline.qc import read_rows

HALVES = ("seen", "held out")


def test_the_set_is_large_and_on_many_scaffolds() -> None:
    rows = [row for half in HALVES for row in load("base_rows", half)]
    assert len(rows) >= 300 and len({row["id"] for row in rows}) == len(rows)
    assert len({row["scaffold"] for row in rows}) >= 6
    assert {label for row in rows for label in row["labels"]} == {*BAD, "empty"}
    held = load("base_rows", "held out")
    assert 0.4 < len(held) / len(rows) < 0.6


def test_any_reader_takes_its_files() -> None:
    for name in ("base_rows", "good_answers"):
        path = DATA / f"{name}.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(list(read_rows(path))) == len(lines) == len(list(map(json.loads, lines)))


# What was measured when the detectors were last changed: none may get worse unseen.
MEASURED = {
    "seen": (0.991, 0.985, 1.000),
    "held out": (0.942, 0.956, 0.942),
}
"""Sensitivity, specificity on base-model rows, specificity on a tuned model's, by half."""


def test_where_no_reader_had_a_doubt_detectors_have_few() -> None:
    """0.98 is the aim for every row; 8 of 323 bad ones are missed here, 4 of 240 accused."""
    found = compare(BAD, "held out", sure=True)
    assert (found.sensitivity.value or 0) >= 0.975 and (found.specificity.value or 0) >= 0.983


@pytest.mark.parametrize("half", HALVES)
def test_detectors_are_as_good_as_they_were(half: str) -> None:
    found = compare(BAD, half)
    shares = (found.sensitivity, found.specificity, found.tuned)
    for share, before in zip(shares, MEASURED[half], strict=True):
        assert share.value is not None and share.value >= before - 1e-3, found


def test_the_rule_that_people_start_with_condemns_good_answers() -> None:
    """Length is no evidence: two good answers in three are called run-ons for it."""
    ours, first = compare(BAD, "held out"), compare(BAD, "held out", simplest)
    assert (first.tuned.value or 1) < 0.6 < 0.9 < (ours.tuned.value or 0)


def test_the_table_has_every_figure_with_its_interval() -> None:
    assert len(table()) == 2 + 2 * 6
    assert str(Share(9, 10)) == "0.900 (9/10; 0.555 to 0.997)" and str(Share(0, 0)) == "-"
