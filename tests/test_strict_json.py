"""agent/strict_json.py: what ``json.loads`` lets through and this does not."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.strict_json import load_strict

FORBIDDEN = [
    ("NaN", '{"a": NaN}', "NaN is not a number"),
    ("infinity", '{"a": -Infinity}', "-Infinity is not a number"),
    ("overflow", '{"a": 1e999}', "not a finite number"),
    ("duplicate key", '{"a": 1, "a": 2}', "'a' is there twice"),
    ("duplicate key inside", '[{"b": {"a": 1, "a": 1}}]', "twice"),
    ("equal by escape", '{"a": 1, "\\u0061": 2}', "twice"),
    ("long integer", '{"a": ' + "9" * 5000 + "}", "5,000 digits"),
    ("deep list", "[" * 100_000, "nested"),
    ("deep object", '{"a":' * 100_000, "nested"),
    ("half a character", '{"a": "\\ud800"}', "surrogates"),
    ("half a key", '{"\\udfff": 1}', "surrogates"),
    ("raw half a character", '{"a": "\ud800"}', "surrogates"),
    ("too large", '"' + "x" * 3000 + '"', "3,002 bytes; at most 3,000"),
    ("two values", "{} {}", "Extra data"),
    ("cut", '{"a": [1, 2', "delimiter"),
    ("comment", '{"a": 1 /* one */}', "delimiter"),
    ("nothing", "", "Expecting value"),
    ("control character", '{"a": "\x00"}', "control character"),
]


@pytest.mark.parametrize(("text", "why"), [f[1:] for f in FORBIDDEN], ids=[f[0] for f in FORBIDDEN])
def test_what_is_forbidden_says_why(text, why):
    limit = 3000 if "x" * 3000 in text else 1_000_000
    with pytest.raises(ValueError, match=why):
        load_strict(text, max_bytes=limit)


def test_one_key_twice_among_many_is_found_at_once():
    keys = ",".join(f'"a{i}":1' for i in range(50_000))
    start = time.process_time()
    with pytest.raises(ValueError, match="'a49999' is there twice"):
        load_strict(f'{{{keys},"a49999":1}}', max_bytes=10**7)
    assert time.process_time() - start < 5.0


def test_brackets_within_strings_do_not_nest():
    text = json.dumps({"a": "[" * 100 + '\\"{'})
    assert load_strict(text, max_bytes=1000) == {"a": "[" * 100 + '\\"{'}


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.text() | st.floats(-1e9, 1e9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(_VALUES)
def test_ordinary_json_means_what_it_means_to_json(value):
    text = json.dumps(value)
    assert load_strict(text, max_bytes=1_000_000) == json.loads(text)
