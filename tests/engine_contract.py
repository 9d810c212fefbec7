"""What every engine owes its callers, whichever it is: one class of tests, run against each.

A subclass opens the engine; nothing here knows how it works. What only some can promise is a class
variable.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from pipeline.engine.base import Engine
from pipeline.errors import EngineError
from pipeline.types import Completion, GenRequest, Sampling, ScoreRequest

PREFIX = "Instruction: Name a sea.\nResponse: The Baltic.\n\n"
SUFFIXES = (
    "Instruction: Name a fruit.\nResponse:",
    "Instruction:",
    "é",
    "Instruction: Explain in a sentence why the sea is salt and lakes are not.\nResponse:",
    "I",
    "Instruction: Wie heißt du? 😀\nResponse:",
)
GREEDY = Sampling(0.0, 24)
WARM = Sampling(1.0, 24, top_p=0.95, repetition_penalty=1.1)
GOOD = GenRequest(PREFIX, SUFFIXES[0], WARM, 1)
NAN, INFINITY = float("nan"), float("inf")

BAD_SAMPLING: list[tuple[dict[str, Any], str]] = [
    ({"max_new_tokens": 0}, "max_new_tokens is 0; expected at least 1"),
    ({"max_new_tokens": -3}, "max_new_tokens is -3; expected at least 1"),
    ({"max_new_tokens": True}, "max_new_tokens is True; expected at least 1, a whole"),
    ({"max_new_tokens": 5.0}, r"max_new_tokens is 5\.0; expected at least 1, a whole"),
    ({"max_new_tokens": 10**400}, "max_new_tokens is 1000"),
    ({"temperature": -0.5}, r"temperature is -0\.5; expected 0 \(greedy\)"),
    ({"temperature": NAN}, "temperature is nan; expected"),
    ({"temperature": INFINITY}, "temperature is inf; expected"),
    ({"temperature": 1e-60}, "temperature is 1e-60; expected"),
    ({"temperature": None}, "temperature is None; expected"),
    ({"temperature": "1"}, "temperature is '1'; expected"),
    ({"top_p": 0.0}, r"top_p is 0\.0; expected above 0 and at most 1"),
    ({"top_p": 1.01}, r"top_p is 1\.01; expected above 0 and at most 1"),
    ({"top_p": NAN}, "top_p is nan; expected"),
    ({"top_p": -INFINITY}, "top_p is -inf; expected"),
    ({"top_k": -1}, "top_k is -1; expected 0"),
    ({"top_k": 2.5}, r"top_k is 2\.5; expected 0"),
    ({"min_p": -0.1}, r"min_p is -0\.1; expected from 0 to 1"),
    ({"min_p": NAN}, "min_p is nan; expected"),
    ({"repetition_penalty": 0.0}, r"repetition_penalty is 0\.0; expected"),
    ({"repetition_penalty": -1.0}, r"repetition_penalty is -1\.0; expected"),
    ({"repetition_penalty": INFINITY}, "repetition_penalty is inf; expected"),
    ({"stop": ("",)}, "stop strings are.*expected texts of at least one character"),
    ({"stop": (b"\n",)}, "stop strings are.*expected texts"),
    ({"stop": (None,)}, "stop strings are.*expected texts"),
    ({"stop": None}, "stop strings are None; expected texts"),
    ({"stop": "\nQ"}, "stop strings are.*expected texts"),
    ({"stop": ("\ud83d",)}, "a stop string holds .* half of a surrogate pair.*remove it"),
    ({"stop": tuple(map(str, range(65)))}, "65 stop strings; expected at most 64: drop"),
]
BAD_REQUESTS: list[tuple[dict[str, Any], str]] = [
    ({"prefix": "", "suffix": ""}, "the prompt is empty; write at least one character"),
    ({"suffix": None}, "the suffix is None; expected a str"),
    ({"prefix": b"P"}, "the prefix is b'P'; expected a str"),
    ({"suffix": "ab\ud800"}, "the suffix holds .* at character 2, .*remove it"),
    ({"prefix": "\udc80"}, "the prefix holds .* at character 0, .*remove it"),
    ({"seed": 1.0}, r"the seed is 1\.0; expected a whole number"),
    ({"seed": None}, "the seed is None; expected a whole number"),
    ({"seed": True}, "the seed is True; expected a whole number"),
]
BAD_SCORES: list[tuple[dict[str, Any], str]] = [
    ({"continuations": ()}, "nothing to score"),
    ({"continuations": "text"}, "nothing to score in 'text'"),
    ({"continuations": (" a", "")}, "nothing to score"),
    ({"continuations": (" a", b" b")}, "a continuation is b' b'; expected a str"),
    ({"continuations": ("\udfff",)}, "a continuation holds .*remove it"),
    ({"prefix": "", "suffix": ""}, "the prompt is empty"),
    ({"suffix": 3}, "the suffix is 3; expected a str"),
]


def changed(change: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r:.24}" for name, value in change.items())


def cases(table: list[tuple[dict[str, Any], str]]) -> Any:
    return pytest.mark.parametrize(
        ("change", "message"), table, ids=[changed(change) for change, _ in table]
    )


class EngineContract:
    """Tests of one engine; a subclass says how to open it."""

    independent: ClassVar[bool] = True
    """A row is the same whatever it is batched with."""
    overlong: ClassVar[str] = r"row 1: .*exceed the model's context"
    """What is said of a prompt that is longer than the context."""
    noise: ClassVar[float] = 1e-3
    """How far apart two scores of one text may be, in nats."""

    @classmethod
    def open(cls) -> Engine:
        """Another engine of the kind."""
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls) -> Iterator[Engine]:
        opened = cls.open()
        yield opened
        opened.close()

    @pytest.fixture
    def free(self, engine: Engine) -> Completion:
        """A greedy row that nothing stops."""
        (row,) = engine.generate([replace(GOOD, sampling=GREEDY)])
        assert row.stop is None and row.text
        return row

    def test_nothing_asked_is_nothing_returned(self, engine: Engine) -> None:
        assert engine.generate([]) == [] == engine.score([]) == engine.count_tokens([])

    def test_every_row_comes_back_in_its_place(self, engine: Engine) -> None:
        """Caps tell rows apart: in no other order does every one of them fit its row."""
        caps = [1 + (7 * i) % 23 for i in range(46)]
        asked = [
            GenRequest(PREFIX, SUFFIXES[i % 6], replace(WARM, max_new_tokens=cap), i)
            for i, cap in enumerate(caps)
        ]
        rows = engine.generate(asked)
        assert len(rows) == 46
        for row, cap in zip(rows, caps, strict=True):
            assert len(row.token_ids) == cap or (row.finish_reason == "eos")
            assert len(row.token_ids) <= cap
            assert row.finish_reason == ("length" if len(row.token_ids) == cap else "eos")
        assert sum(row.finish_reason == "length" for row in rows) > 23

    def test_rows_of_all_lengths_and_settings_share_a_batch(self, engine: Engine) -> None:
        settings = [GREEDY, WARM, replace(WARM, top_k=3), replace(WARM, min_p=0.2), GREEDY, WARM]
        asked = [
            GenRequest(PREFIX if i % 2 else "", suffix, setting, i)
            for i, (suffix, setting) in enumerate(zip(SUFFIXES, settings, strict=True))
        ]
        together = engine.generate(asked)
        alone = [engine.generate([request]) for request in asked]
        assert [len(rows) for rows in alone] == [1] * 6
        if self.independent:
            assert together == [row for (row,) in alone]
        assert all(1 <= len(row.token_ids) <= 24 or row.finish_reason == "eos" for row in together)

    def test_a_cap_of_one_is_one_token(self, engine: Engine, free: Completion) -> None:
        (row,) = engine.generate([replace(GOOD, sampling=replace(GREEDY, max_new_tokens=1))])
        assert (row.token_ids, row.finish_reason) == (free.token_ids[:1], "length")
        assert free.text.startswith(row.text.rstrip("\ufffd"))

    def test_a_stop_string_ends_a_row_and_is_cut_off(
        self, engine: Engine, free: Completion
    ) -> None:
        start = next(i for i in range(2, len(free.text)) if free.text[i : i + 2].isascii())
        stop = free.text[start : start + 2]
        cut = replace(GREEDY, stop=("\0never", stop))
        (row,) = engine.generate([replace(GOOD, sampling=cut)])
        assert (row.finish_reason, row.stop) == ("stop", stop)
        assert row.text == free.text[: free.text.index(stop)]
        assert row.token_ids == free.token_ids[: len(row.token_ids)]
        assert 1 <= len(row.token_ids) <= len(free.token_ids)

    def test_stop_strings_that_never_occur_change_nothing(
        self, engine: Engine, free: Completion
    ) -> None:
        many = tuple(f"\0never {i}" for i in range(64))
        (row,) = engine.generate([replace(GOOD, sampling=replace(GREEDY, stop=many))])
        assert row == free

    def test_a_seed_is_a_text(self, engine: Engine) -> None:
        seeds = [0, 1, 2, 2**31, 2**62, 2**64 - 1]
        rows = [engine.generate([replace(GOOD, seed=seed)])[0] for seed in seeds]
        assert rows == [engine.generate([replace(GOOD, seed=seed)])[0] for seed in seeds]
        assert len({row.text for row in rows}) >= 4

    def test_greedy_does_not_look_at_the_seed(self, engine: Engine) -> None:
        greedy = replace(GOOD, sampling=GREEDY)
        rows = [engine.generate([replace(greedy, seed=seed)])[0] for seed in (1, 2, 3)]
        assert rows[0] == rows[1] == rows[2]

    def test_scores_are_log_probabilities_in_order(self, engine: Engine) -> None:
        texts = (" A", " The moon is made of cheese.", " B", " Apple.")
        one = ScoreRequest(PREFIX, SUFFIXES[0], texts)
        other = ScoreRequest("", SUFFIXES[3], texts[:2])
        first, second, turned = engine.score([one, other, replace(one, continuations=texts[::-1])])
        assert [len(first), len(second)] == [4, 2]
        for score in (*first, *second):
            assert math.isfinite(score.logprob) and score.logprob <= 0 and score.tokens >= 1
        for here, there in zip(first, turned[::-1], strict=True):
            assert here.tokens == there.tokens
            assert here.logprob == pytest.approx(there.logprob, abs=self.noise)
        assert len({score.logprob for score in first}) == 4
        assert first[1].logprob != pytest.approx(second[1].logprob, abs=self.noise)

    def test_tokens_of_a_text_are_about_those_of_its_parts(self, engine: Engine) -> None:
        parts = [PREFIX, *SUFFIXES]
        counts = engine.count_tokens([*parts, "", "".join(parts)])
        assert counts[-2] == 0 and all(count >= 1 for count in counts[:-2])
        assert abs(counts[-1] - sum(counts[:-2])) <= len(parts)

    def test_a_nul_is_a_character_like_any_other(self, engine: Engine) -> None:
        """A model may write one, and what it wrote may become a prompt."""
        counted = engine.count_tokens(["a stone", "a stone\0 and a tree"])
        assert counted[1] > counted[0], "not the end of a text"
        (row,) = engine.generate([replace(GOOD, suffix="Instruction: a\0b\nResponse:")])
        assert row.finish_reason in {"eos", "length"}

    @cases(BAD_SAMPLING)
    def test_a_parameter_that_means_nothing_is_refused(
        self, engine: Engine, change: dict[str, Any], message: str
    ) -> None:
        bad = replace(GOOD, sampling=replace(WARM, **change))
        self._refused(lambda: engine.generate([GOOD, bad]), f"row 1: {message}")

    @cases(BAD_REQUESTS)
    def test_a_request_that_is_no_text_is_refused(
        self, engine: Engine, change: dict[str, Any], message: str
    ) -> None:
        bad = replace(GOOD, **change)
        self._refused(lambda: engine.generate([GOOD, bad]), f"row 1: {message}")

    @cases(BAD_SCORES)
    def test_a_score_of_nothing_is_refused(
        self, engine: Engine, change: dict[str, Any], message: str
    ) -> None:
        good = ScoreRequest(PREFIX, SUFFIXES[0], (" A",))
        bad = replace(good, **change)
        self._refused(lambda: engine.score([good, bad]), f"row 1: {message}")

    def test_what_exceeds_the_context_is_refused(self, engine: Engine) -> None:
        cap = replace(GOOD, sampling=replace(GREEDY, max_new_tokens=engine.info.context))
        self._refused(lambda: engine.generate([GOOD, cap]), "row 1: .*exceed the model's context")
        long = replace(GOOD, suffix="x y " * engine.info.context)
        self._refused(lambda: engine.generate([GOOD, long]), self.overlong)
        scored = ScoreRequest("", "x y " * engine.info.context, (" A",))
        good = replace(scored, suffix="x")
        self._refused(lambda: engine.score([good, scored]), self.overlong)

    def test_a_closed_engine_says_so(self) -> None:
        engine = self.open()
        engine.close()
        engine.close()
        with pytest.raises(EngineError):
            engine.generate([GOOD])
        with pytest.raises(EngineError):
            engine.score([ScoreRequest(PREFIX, SUFFIXES[0], (" A",))])

    @staticmethod
    def _refused(ask: Callable[[], Any], message: str) -> None:
        with pytest.raises(EngineError, match=f"(?s){message}"):
            ask()
