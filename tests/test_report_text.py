"""agent/report/text.py: how a figure looks, and that no text of a model is markup in a cell."""

import json
import re

import pytest
from builders import HOSTILE, rate
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from agent.report import text as look
from pipeline.types import Metric

ANY_TEXT = st.text(st.characters() | st.sampled_from("|`<>&\\*_[]()#-\n@:/~$1. "), max_size=60)
PARSER = MarkdownIt("commonmark").enable("table")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "not measured"),
        (0, "$0.00"),
        (0.0031, "$0.0031"),
        (0.000298, "$0.00030"),
        (0.0000094, "$0.0000094"),
        (1e-12, "< $0.00000001"),
        (0.05, "$0.050"),
        (0.4, "$0.40"),
        (294.1, "$294.10"),
        (12_345.678, "$12,345.68"),
        (-1.5, "-$1.50"),
    ],
)
def test_dollars_keep_enough_digits(value, shown):
    assert look.dollars(value) == shown


@given(st.floats(1e-8, 1e6))
def test_money_that_was_spent_never_prints_as_nothing(value):
    assert re.search("[1-9]", look.dollars(value))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "not measured"),
        (0.0, "0.0%"),
        (0.0004, "<0.1%"),
        (0.046875, "4.7%"),
        (0.9999, ">99.9%"),
        (1.0, "100.0%"),
    ],
)
def test_percentages_have_one_decimal_and_only_certainty_is_round(value, shown):
    assert look.percent(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "not measured"), (3, "3"), (38.5, "38.5"), (15_432.4, "15,432")]
)
def test_numbers(value, shown):
    assert look.number(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0, "0.0 s"), (21.4, "21 s"), (241, "4.0 min"), (9100, "2.5 h")],
)
def test_wall_time(seconds, shown):
    assert look.minutes(seconds) == shown


def test_a_share_of_nothing_is_unmeasured():
    assert look.share(0, 0) == "not measured"
    assert look.share(3, 64) == "4.7%"


def test_a_metric_shows_value_count_interval_and_threshold():
    metric = rate("runaway", 3, 64)
    assert look.value_of(metric) == "4.7% (3/64)"
    assert look.interval_of(metric) == "[1.2%, 16.9%]"
    assert look.threshold_of(metric) == "< 5%"


def test_an_unmeasured_metric_is_never_zero():
    metric = rate("runaway", None, 0)
    assert look.value_of(metric) == "not measured"
    assert look.interval_of(metric) == "–"
    assert look.verdict_of(metric) == "❔ INSUFFICIENT"


def number_metric(value: float) -> Metric:
    return Metric("yield", value, None, 10, value, value, ">= 15000", "FAIL", "")


def test_a_number_is_not_a_percentage():
    metric = number_metric(9400)
    assert (look.value_of(metric), look.threshold_of(metric)) == ("9,400", "≥ 15,000")


@pytest.mark.parametrize(
    ("before", "after", "sign"),
    [
        ((20, 1000), (25, 1000), ""),
        ((20, 1000), (90, 1000), "↑"),
        ((20, 1000), (500, 1000), "↑↑"),
        ((500, 1000), (20, 1000), "↓↓"),
        ((2, 30), (5, 30), "(↑)"),
        ((None, 0), (5, 30), ""),
    ],
)
def test_arrows_say_how_far_and_whether_chance_may_explain_it(before, after, sign):
    assert look.arrow(rate("runaway", *before), rate("runaway", *after)) == sign


@pytest.mark.parametrize(
    ("before", "after", "sign"),
    [(100, 104, ""), (100, 120, "↑"), (100, 160, "↑↑"), (100, 40, "↓↓")],
)
def test_numbers_move_by_ratio(before, after, sign):
    assert look.arrow(number_metric(before), number_metric(after)) == sign


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("token_limit failed", "token_limit failed"),
        ("*a* | <b>", r"\*a\* &#124; \<b\>"),
        ("- item\n# x", r"\- item \# x"),
        ("1. item", r"1\. item"),
        ("0.1.0", "0.1.0"),
        ("see https://evil.example now", "see `https://evil.example` now"),
        ("\x1b[31mred", r"\\u001b\[31mred"),
    ],
)
def test_a_sentence_of_a_model_is_escaped(text, shown):
    assert look.escape(text) == shown


@given(ANY_TEXT)
def test_an_escaped_sentence_is_one_paragraph_without_markup(text):
    tokens = PARSER.parse("x " + look.escape(text))
    assert [t.type for t in tokens] == ["paragraph_open", "inline", "paragraph_close"]
    assert {c.type for c in tokens[1].children or ()} <= {"text", "code_inline", "text_special"}


@given(ANY_TEXT)
def test_an_escaped_sentence_may_begin_a_line(text):
    kinds = {t.type for t in PARSER.parse(look.escape(text))}
    assert kinds <= {"paragraph_open", "inline", "paragraph_close"}


@given(ANY_TEXT, ANY_TEXT)
def test_texts_of_a_model_stay_in_their_cells(left, right):
    text = look.table(["A", "B"], [[look.escape(left), look.code(right)]])
    cells = [t for t in PARSER.parse(text) if t.type == "td_open"]
    assert len(cells) == 2


@given(ANY_TEXT)
def test_inline_code_reads_back_as_the_string(text):
    span = look.code(text, limit=1000)
    assert json.loads(span[1:-1]) == text
    assert "|" not in span and "`" not in span[1:-1] and span[1:-1].isprintable()


def test_long_text_is_cut_and_says_by_how_much():
    assert look.escape("x" * 1000, limit=3) == "xxx … (+997 characters)"
    assert len(look.code(HOSTILE)) < 300


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "from controls"),
        (0.7, "0.7"),
        (80, "80"),
        ("fixed", "fixed"),
        ((), "none"),
        (("\nQ:", "\n|"), r'`"\nQ:"` `"\n\u007c"`'),
        ("a|b", r'`"a\u007cb"`'),
    ],
)
def test_settings(value, shown):
    assert look.setting(value) == shown


def test_a_table_is_padded_and_aligned():
    assert look.table(["Name", "N"], [["a", "1"], ["b", "22"]], "lr") == (
        "| Name |   N |\n| ---- | --: |\n| a    |   1 |\n| b    |  22 |"
    )
