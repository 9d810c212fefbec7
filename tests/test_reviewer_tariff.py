"""agent/reviewers/tariff.py: bounds from above, and no network to count with."""

import hashlib
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import ModelPrice
from agent.reviewers import tariff
from agent.reviewers.reply import Reply
from agent.reviewers.tariff import Tariff, exact_encoding

TARIFF = Tariff(ModelPrice(input_usd_per_million=1.0, output_usd_per_million=10.0), 1000)


@given(st.text(st.characters(codec="utf-8")))
def test_bytes_bound_a_prompt_from_above(text):
    bound = TARIFF.prompt_bound([{"role": "user", "content": text}], extra="ab")
    assert bound >= len(text.encode()) + 2
    assert TARIFF.bound_micro(bound) == bound + 10_000


CHARGES = [
    ((100, 50), "x", 100 + 500),
    ((500, 1000), "x", 500 + 10_000),
    ((501, 50), "x", None),
    ((100, 1001), "x", None),
    ((100, 0), "x", None),
    ((100, 0), "", 100),
    (None, "x", None),
]


@pytest.mark.parametrize(("usage", "text", "micro"), CHARGES)
def test_usage_that_cannot_be_true_is_none(usage, text, micro):
    assert TARIFF.charge_micro(Reply(text, None, usage), 500) == micro


@given(st.integers(1, 10**6), st.integers(0, 10**6), st.floats(0, 10_000), st.floats(0, 10_000))
def test_a_charge_is_exact_and_rounded_up(prompt, completion, read, written):
    price = ModelPrice(input_usd_per_million=read, output_usd_per_million=written)
    charge = Tariff(price, 10**6).charge_micro(Reply("", None, (prompt, completion)), 10**6)
    owed = prompt * Fraction(str(read)) + completion * Fraction(str(written))
    assert charge == ceil(owed)


def test_without_a_table_nothing_is_exact(tmp_path):
    assert exact_encoding("gpt-4o", {}) is None
    assert exact_encoding("gpt-4o", {"TIKTOKEN_CACHE_DIR": str(tmp_path)}) is None


def test_a_damaged_table_is_not_used(tmp_path):
    name = hashlib.sha1(tariff._TABLE_URL.encode()).hexdigest()
    (tmp_path / name).write_bytes(b"damaged")
    assert exact_encoding("gpt-4o", {"TIKTOKEN_CACHE_DIR": str(tmp_path)}) is None


def test_a_whole_table_counts_for_the_models_that_it_is_for(tmp_path, monkeypatch):
    name = hashlib.sha1(tariff._TABLE_URL.encode()).hexdigest()
    (tmp_path / name).write_bytes(b"whole")
    monkeypatch.setattr(tariff, "_TABLE_SHA256", hashlib.sha256(b"whole").hexdigest())
    environ = {"TIKTOKEN_CACHE_DIR": str(tmp_path)}
    assert exact_encoding("gpt-4o", environ) == "o200k_base"
    assert exact_encoding("gpt-4", environ) is None
    assert exact_encoding("my-own-model", environ) is None
