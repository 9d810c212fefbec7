"""Stop strings, end tokens and caps on real tokenizers: the model's tokens are written here.

The decode loop, the tokenizer and the text rule are the engine's own; only the forward pass is
replaced by one that wants given tokens, so that every border can be put where it hurts.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine.base import EngineSpec
from pipeline.engine.local.cache import RowCache
from pipeline.engine.local.hf import HFEngine
from pipeline.engine.stops import settle
from pipeline.types import Completion, GenRequest, Sampling
from tests import tiny_models

WORDS = (
    "Instruction", "\n", "\n\n", "\nInst", "ruction", ":", " The", " sea", "Q", "\nQ", " is",
    " salt", ".", "é", "e", "\u0301", "👍", "\u200d", "END", "EN", "D",
)  # fmt: skip
EOS = 1


def byte_fallback() -> Any:
    """Words, and a token for each byte, as Gemma's and Llama's tokenizers have them."""
    from tokenizers import Tokenizer, decoders, models

    special = ("<pad>", "<eos>", "<bos>")
    parts = (*special, *(f"<0x{byte:02X}>" for byte in range(256)), *WORDS)
    vocabulary = {part: i for i, part in enumerate(parts)}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True))
    made.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    made.add_special_tokens(list(special))
    return made


TOKENIZER = byte_fallback()


def ids(*parts: str | bytes) -> list[int]:
    """A word is one token; bytes are one token each."""
    found: list[int] = []
    for part in parts:
        if isinstance(part, bytes):
            found += [3 + byte for byte in part]
        else:
            token = TOKENIZER.token_to_id(part)
            assert token is not None, part
            found.append(token)
    return found


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> HFEngine:
    folder = tiny_models.save(tiny_models.llama(), tmp_path_factory.mktemp("tiny"))
    return HFEngine.open(EngineSpec(model=str(folder), device="cpu", dtype="float32"))


def writing(tiny: HFEngine, tokens: Sequence[int]) -> HFEngine:
    """An engine whose model wants ``tokens``, one after the other, then its end token."""
    loaded = tiny._open()
    width = TOKENIZER.get_vocab_size()
    begun: list[int] = []

    def run(given: torch.Tensor, cache: RowCache, *, keep: int = 1) -> torch.Tensor:
        begun.append(given.shape[0])
        step = len(begun) - 1
        logits = torch.zeros(given.shape[0], keep, width)
        logits[:, :, tokens[step] if step < len(tokens) else EOS] = 50.0
        return logits

    found = replace(
        loaded, run=run, tokenizer=TOKENIZER, vocabulary=width, bos=None, eos=frozenset({EOS})
    )
    return HFEngine(found, name="written", digest="")


def ended(
    tiny: HFEngine, *parts: str | bytes, stop: tuple[str, ...] = (), cap: int = 60
) -> Completion:
    """How the row ends; replay of the whole stream by the text rule must say the same."""
    tokens = ids(*parts)
    request = GenRequest("", "Q", Sampling(0.0, cap, stop=stop), 0)
    (row,) = writing(tiny, tokens).generate([request])
    replayed = settle(
        lambda k: TOKENIZER.decode(tokens[:k], skip_special_tokens=False),
        len(tokens), stops=stop, cap=cap, eos=True,
    )  # fmt: skip
    told = (replayed.text, replayed.tokens, replayed.finish_reason, replayed.stop)
    assert told == (row.text, len(row.token_ids), row.finish_reason, row.stop)
    assert list(row.token_ids) == tokens[: len(row.token_ids)]
    return row


SEA = (" The", " sea", " is", " salt", ".")
CASES: dict[str, tuple[tuple[str | bytes, ...], tuple[str, ...], tuple[Any, ...]]] = {
    "in one token": ((*SEA, "\n\n", "Q"), ("\n\n",), (" The sea is salt.", 6, "\n\n")),
    "over two tokens": (
        (*SEA, "\nInst", "ruction", ":"),
        ("\nInstruction",),
        (" The sea is salt.", 7, "\nInstruction"),
    ),
    "over three tokens, from within one": (
        (" The", " sea", "\n\n", "Instruction", ":", " is"),
        ("\nInstruction:",),
        (" The sea\n", 5, "\nInstruction:"),
    ),
    "ends within a token": (("Q", " The", " salt"), ("Q Th",), ("", 2, "Q Th")),
    "at the start": (("\n", "Q", " is"), ("\nQ",), ("", 2, "\nQ")),
    "the first token": (("END", " is"), ("END",), ("", 1, "END")),
    "the whole text": ((*SEA,), (" The sea is salt.",), ("", 5, " The sea is salt.")),
    "the first of several": (
        (" The", "\nQ", ":", "\n\n"),
        ("\n\n", "END", "\nQ"),
        (" The", 2, "\nQ"),
    ),
    "the earliest of two in one token": ((" The", "\nInst"), ("Inst", "\nI"), (" The", 2, "\nI")),
    "one contains another": ((" The", "END"), ("N", "END"), (" The", 2, "END")),
    "the shorter is complete first": ((" The", "EN", "D"), ("END", "EN"), (" The", 2, "EN")),
    "one is the beginning of another, in one token": (
        (" The", "\nQ", ":"),
        ("\n", "\nQ"),
        (" The", 2, "\nQ"),
    ),
    "what looked like one was none": (
        (" The", "EN", "EN", "D", " is"),
        ("END",),
        (" TheEN", 4, "END"),
    ),
    "a character of bytes": ((" The", "€".encode(), " is"), ("€",), (" The", 4, "€")),
    "text before a character that is not finished": (
        (" The", "€é".encode(), " is"),
        ("€",),
        (" The", 4, "€"),
    ),
    "an emoji of bytes": ((" The", "😀".encode(), "Q"), ("😀",), (" The", 5, "😀")),
    "the second emoji of a run of bytes": (
        (" The", "😀🫠".encode(), "Q"),
        ("🫠",),
        (" The😀", 9, "🫠"),
    ),
    "a sequence of emoji": (
        (" The", "👍", "\u200d", "👍", "Q"),
        ("👍\u200d👍",),
        (" The", 4, "👍\u200d👍"),
    ),
    "a letter with its accent": (
        (" The", "e", "\u0301", "Q"),
        ("e\u0301",),
        (" The", 3, "e\u0301"),
    ),
    "a letter, though an accent follows": (("Q", "e", "\u0301", "Q"), ("e",), ("Q", 2, "e")),
    "bytes that are no text, then a stop string": (
        (" The", b"\xe2\x82", "\nQ", "."),
        ("\nQ",),
        (" The��", 4, "\nQ"),
    ),
    "a character of bytes in what is no text until later": (
        (" The", b"\n", "€😀".encode(), " is"),
        ("\n",),
        (" The", 2, "\n"),
    ),
    "a character of bytes in what becomes no text": (
        (" The", b"\n\xe2\x82", " is"),
        ("\n",),
        (" The", 2, "\n"),
    ),
}


@pytest.mark.parametrize(("parts", "stops", "expected"), CASES.values(), ids=CASES.keys())
def test_the_first_complete_stop_string_ends_a_row(
    tiny: HFEngine, parts: Any, stops: Any, expected: Any
) -> None:
    row = ended(tiny, *parts, stop=stops)
    assert (row.text, len(row.token_ids), row.stop) == expected
    assert row.finish_reason == "stop"


@pytest.mark.parametrize("stop", ["END ", "Instruction", "É", "\u0301e", "\ufffd\n"])
def test_what_is_not_written_stops_nothing(tiny: HFEngine, stop: str) -> None:
    row = ended(tiny, "EN", "D", "e", "\u0301", "é", "\nInst", stop=(stop,))
    assert (row.text, row.finish_reason, row.stop) == ("ENDe\u0301é\nInst", "eos", None)


@pytest.mark.parametrize(
    ("cap", "reason", "text"), [(3, "stop", "Q"), (2, "length", "QEN"), (4, "stop", "Q")]
)
def test_a_stop_string_that_is_complete_at_the_cap_comes_before_it(
    tiny: HFEngine, cap: int, reason: str, text: str
) -> None:
    row = ended(tiny, "Q", "EN", "D", " is", stop=("END",), cap=cap)
    assert (row.finish_reason, row.text, len(row.token_ids)) == (reason, text, min(cap, 3))


def test_a_stop_string_comes_before_the_end_token(tiny: HFEngine) -> None:
    row = ended(tiny, "Q", "EN", "D", stop=("END",))
    assert (row.finish_reason, row.text, len(row.token_ids)) == ("stop", "Q", 3)


def test_the_end_token_is_no_text_that_could_stop(tiny: HFEngine) -> None:
    row = ended(tiny, "Q", " is", stop=("<eos>", "eos"))
    assert (row.finish_reason, row.text, len(row.token_ids)) == ("eos", "Q is", 2)


def test_the_end_token_at_once_is_an_empty_row(tiny: HFEngine) -> None:
    row = ended(tiny, stop=("END",))
    assert (row.finish_reason, row.text, row.token_ids) == ("eos", "", ())


@pytest.mark.parametrize("cap", [2, 3])
def test_the_cap_comes_before_an_end_token_after_it(tiny: HFEngine, cap: int) -> None:
    row = ended(tiny, "Q", " is", cap=cap)
    assert row.finish_reason == ("length" if cap == 2 else "eos")
    assert len(row.token_ids) == 2


def test_a_stop_string_longer_than_any_token_is_found_anywhere(tiny: HFEngine) -> None:
    stop = " The sea is salt." * 3
    row = ended(tiny, *(SEA * 5), stop=(stop,))
    assert (row.text, len(row.token_ids), row.stop) == ("", 15, stop)


@pytest.mark.parametrize("before", ["€", "€é", "€" * 7, "é" + "€" * 9, "é€😀", "😀€" * 6])
def test_a_stop_string_at_the_end_of_a_long_run_of_bytes(tiny: HFEngine, before: str) -> None:
    row = ended(tiny, " The", before.encode(), "🫠".encode(), "Q", stop=("🫠",))
    assert (row.text, row.stop) == (f" The{before}", "🫠")


PARTS = st.sampled_from([*WORDS, "€".encode(), "😀".encode(), b"\n", b"\xe2", b"Q", "é".encode()])
STOPS = ("END", "\n", "€", "😀", "\nQ", "e\u0301", "é€", "\ufffd", "Instruction")


@given(
    st.lists(PARTS, min_size=1, max_size=14),
    st.lists(st.sampled_from(STOPS), max_size=3),
    st.integers(1, 30),
)
@settings(max_examples=300, deadline=None)
def test_the_text_rule_holds_for_tokens_that_are_bytes(
    parts: list[str | bytes], stops: list[str], cap: int
) -> None:
    """The rule written out: the least count of tokens whose text holds a stop string."""
    tokens = ids(*parts)

    def text_of(k: int) -> str:
        text: str = TOKENIZER.decode(tokens[:k], skip_special_tokens=False)
        return text

    end = settle(text_of, len(tokens), stops=stops, cap=cap, eos=True)
    kept = min(len(tokens), cap)
    firing = [k for k in range(1, kept + 1) if any(stop in text_of(k) for stop in stops)]
    assert end.tokens == (firing[0] if firing else kept)
    assert (end.finish_reason == "stop") == bool(firing)
    if firing:
        assert text_of(firing[0]).startswith(end.text + (end.stop or "?"))
    else:
        assert end.text + end.trimmed == text_of(kept)
        assert not end.trimmed.strip("\ufffd")
        assert not (end.finish_reason == "length" and end.text.endswith("\ufffd"))
