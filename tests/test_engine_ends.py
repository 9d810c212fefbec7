"""Where tokens end in their text: by the tokenizer's own decoding of every beginning."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine.ends import pieces, token_ends
from tests.test_engine_stops import STOPS, TOKENIZER, WORDS, ids
from tests.tiny_models import tokenizer

PARTS = st.sampled_from([*WORDS, "€".encode(), "😀".encode(), b"\n", b"\xe2", b"Q", "é".encode()])


def decode(tokens: list[int]) -> str:
    text: str = TOKENIZER.decode(tokens, skip_special_tokens=False)
    return text


def found(tokens: list[int]) -> tuple[int, ...] | None:
    return token_ends(decode, pieces(decode, ids(b"a")[0]), tokens, decode(tokens))


@given(st.lists(PARTS, max_size=14))
@settings(max_examples=300, deadline=None)
def test_a_beginning_is_the_text_up_to_its_end(parts: list[str | bytes]) -> None:
    tokens = ids(*parts)
    ends, text = found(tokens), decode(tokens)
    if ends is None:
        assert "\ufffd" in text, "only broken characters may hide what a beginning was"
        return
    for k, end in enumerate(ends, 1):
        begun = decode(tokens[:k])
        assert begun[:end] == text[:end] and not begun[end:].strip("\ufffd")


@given(st.lists(PARTS, max_size=14), st.sampled_from([s for s in STOPS if "\ufffd" not in s]))
@settings(max_examples=300, deadline=None)
def test_a_stop_string_is_found_at_the_same_token(parts: list[str | bytes], stop: str) -> None:
    tokens = ids(*parts)
    ends, text = found(tokens), decode(tokens)
    if ends is None:
        return
    by_text = [k for k in range(1, len(tokens) + 1) if stop in decode(tokens[:k])]
    by_ends = [k for k, end in enumerate(ends, 1) if stop in text[:end]]
    assert by_text[:1] == by_ends[:1]


def test_half_a_character_does_not_count() -> None:
    assert found(ids(" The", "€".encode(), "Q")) == (4, 4, 4, 5, 6)


def test_a_beginning_that_the_whole_does_not_show_is_not_told() -> None:
    """A line break is text until the bytes behind it turn the whole run into nothing."""
    assert found(ids("Q", b"\n\xe2", "Q")) is None


@pytest.mark.parametrize("text", ["plain words, of a byte each", "", "naïve – 日本 👍"])
def test_tokens_of_single_bytes(text: str) -> None:
    made: Any = tokenizer()

    def spell(tokens: list[int]) -> str:
        spelt: str = made.decode(tokens, skip_special_tokens=False)
        return spelt

    tokens = made.encode(text, add_special_tokens=False).ids
    ends = token_ends(spell, pieces(spell, 40), tokens, text)
    assert ends is not None and len(ends) == len(tokens)
    whole = [len(text.encode()[: k + 1].decode(errors="ignore")) for k in range(len(tokens))]
    assert list(ends) == whole
