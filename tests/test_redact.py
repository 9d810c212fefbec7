"""pipeline/redact.py: a key is found however a server writes it, and nothing else is touched."""

import json
from base64 import b64decode, b64encode, urlsafe_b64encode
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.redact import MASK, SHORTEST, Redactor

KEYS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=12, max_size=60)


@given(KEYS, st.text(max_size=9), st.text(max_size=9))
def test_a_key_is_masked_wherever_it_stands(key, before, after):
    shown = Redactor(key)(before + key + after)
    assert key not in shown and MASK in shown


@given(KEYS, st.binary(max_size=7), st.binary(max_size=7))
def test_what_is_left_of_base64_does_not_give_the_key(key, before, after):
    for encode in (b64encode, urlsafe_b64encode):
        shown = Redactor(key)(encode(before + key.encode() + after).decode())
        assert MASK in shown
        # At most the bits of two letters at either end are shared with what stands beside it.
        left = b"".join(b64decode(part[: len(part) // 4 * 4], b"-_") for part in shown.split(MASK))
        assert key[1:-1].encode() not in left


@given(KEYS)
def test_quoted_and_escaped_forms(key):
    redacted = Redactor(key)
    assert unquote(redacted(quote(key, safe=""))) == MASK
    assert key not in unquote(redacted(quote(key).replace("%2F", "%2f")))
    assert redacted(key.replace("/", "\\/")) == redacted(key.replace("/", "\\\\/")) == MASK


@pytest.mark.parametrize("key", [None, "", "none", "k" * (SHORTEST - 1)])
def test_what_is_no_key_is_no_reason_to_change_a_text(key):
    text = json.dumps({"none": "k" * 7, "x": "none"})
    assert Redactor(key)(text) == text


def test_bytes_that_are_no_text_stay():
    assert Redactor("k" * 20).in_bytes(b"\xff\xfe" + b"k" * 20) == b"\xff\xfe***"
