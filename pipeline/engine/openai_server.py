"""Completions servers in the words that vLLM, SGLang and others share: ``/v1/completions``.

A server of this kind may leave things out. What cannot be known from its answer is refused, not
guessed: which stop string fired, or what a text's log-probability is.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from pipeline.engine.connection import Connection, Refused, field
from pipeline.errors import EngineError
from pipeline.types import Completion, GenRequest, Sampling, Score, ScoreRequest

UNKNOWN_ID: Final = -1
"""Stands for each token of a completion whose ids the server does not tell."""
_SEEDS: Final = 2**32 - 1
_TOP: Final = 20
_GREEDY: Final = {"max_tokens": 1, "temperature": 0.0}


@dataclass(frozen=True, slots=True)
class Token:
    """One token of an echoed prompt, or a likely next one."""

    text: str
    """Its text."""
    logprob: float | None
    """Its log-probability; the first token of a prompt has none."""


class OpenAIServer:
    """The endpoint that all servers have."""

    def __init__(self, connection: Connection) -> None:
        """Speak to the server behind ``connection``."""
        self._connection = connection

    def complete(self, request: GenRequest) -> Completion:
        """Draw one completion."""
        sampling = request.sampling
        body = _knobs(sampling) | {
            "prompt": request.prefix + request.suffix,
            "seed": request.seed % _SEEDS,
            "return_token_ids": True,
        }
        answer = self._ask(body)
        choice = _choice(answer)
        text, made = field(choice, "text", str), _used(answer, "completion_tokens")
        for stop in sampling.stop:
            if stop in text:
                raise EngineError(f"the server ignores stop strings: {stop!r} is in its answer")
        ids = choice.get("token_ids")
        ids = tuple(ids) if isinstance(ids, list) else (UNKNOWN_ID,) * made
        match choice.get("finish_reason"):
            case "length" if made >= sampling.max_new_tokens:
                return Completion(text, ids, "length")
            case "stop":
                stopped = _stopped(choice, sampling)
                kept = ids if stopped else ids[:-1]
                return Completion(text, kept, "stop" if stopped else "eos", stopped)
            case reason:
                raise EngineError(
                    f"the server ended after {made} of {sampling.max_new_tokens} tokens "
                    f"({reason!r}); give it a longer context"
                )

    def score(self, request: ScoreRequest) -> tuple[Score, ...]:
        """Log-probabilities from an echoed prompt, else from the likeliest next tokens."""
        prompt = request.prefix + request.suffix
        if self._echoes:
            return tuple(self._echoed(prompt, text) for text in request.continuations)
        return self._labels(prompt, request.continuations)

    def count(self, text: str) -> int:
        """Tokens of a text, without special ones."""
        return max(0, self._length(text) - self._first) if text else 0

    @cached_property
    def _first(self) -> int:
        """Special tokens that the server puts first: a letter is one token everywhere."""
        return self._length("a") - 1

    @cached_property
    def _echoes(self) -> bool:
        """Whether the server gives the log-probabilities of a prompt's tokens, tried once."""
        text = "The sun rises in the east."
        try:
            answer = self._ask({"prompt": text, "echo": True, "logprobs": 1} | _GREEDY)
        except Refused:
            return False
        try:
            tokens = _echo(answer)
        except EngineError:  # an answer of another form; a server that is gone is no such thing
            return False
        scored = [t.logprob for t in tokens[1:]]
        return len(scored) > 3 and None not in scored and text in "".join(t.text for t in tokens)

    def _echoed(self, prompt: str, continuation: str) -> Score:
        text = prompt + continuation
        answer = self._ask({"prompt": text, "echo": True, "logprobs": 1} | _GREEDY)
        tokens = _echo(answer)
        count = _tail(tokens, continuation)
        if count is None:  # a character of several tokens has no text of its own
            count = len(tokens) - self._length(prompt)
        logprobs = [t.logprob for t in tokens[len(tokens) - count :]]
        found = [p for p in logprobs if p is not None and math.isfinite(p)]
        if not found or len(found) < len(logprobs):
            raise EngineError(f"the server did not score {continuation!r:.100} in full: {logprobs}")
        return Score(sum(found), len(found))

    def _labels(self, prompt: str, labels: tuple[str, ...]) -> tuple[Score, ...]:
        answer = self._ask({"prompt": prompt, "logprobs": _TOP} | _GREEDY)
        likely = {token.text: token.logprob for token in _likely(_choice(answer))}
        found = [likely.get(label) for label in labels]
        if missing := [label for label, p in zip(labels, found, strict=True) if p is None]:
            raise EngineError(
                f"the server at {self._connection.base_url} does not echo log-probabilities of a "
                f"prompt, and {missing[0]!r:.100} is not among its {len(likely)} likeliest next "
                f"tokens, so it cannot be scored; use vLLM, SGLang, llama.cpp, or engine.kind: hf"
            )
        return tuple(Score(p, 1) for p in found if p is not None)

    def _length(self, prompt: str) -> int:
        return _used(self._ask({"prompt": prompt} | _GREEDY), "prompt_tokens")

    def _ask(self, body: dict[str, Any]) -> dict[str, Any]:
        named = {"model": self._connection.model} | body
        return self._connection.post("/completions", named)


def _knobs(s: Sampling) -> dict[str, Any]:
    """Sampling parameters under every name that servers know them by."""
    return {
        "max_tokens": s.max_new_tokens,
        "temperature": s.temperature,
        "top_p": s.top_p,
        "top_k": s.top_k or -1,
        "min_p": s.min_p,
        "repetition_penalty": s.repetition_penalty,
        "repeat_penalty": s.repetition_penalty,
        "stop": list(s.stop),
    }


def _choice(answer: dict[str, Any]) -> dict[str, Any]:
    choices = field(answer, "choices", list)
    if len(choices) != 1 or not isinstance(choices[0], dict):
        raise EngineError(f"the server gave {len(choices)} choices where one was asked for")
    choice: dict[str, Any] = choices[0]
    return choice


def _used(answer: dict[str, Any], name: str) -> int:
    return field(field(answer, "usage", dict), name, int)


def _stopped(choice: dict[str, Any], sampling: Sampling) -> str | None:
    """The stop string that ended a choice; None for the end token.

    vLLM says ``stop_reason`` and SGLang ``matched_stop``: the string, an end token's id, or null.
    """
    for name in ("stop_reason", "matched_stop"):
        if name in choice:
            return choice[name] if choice[name] in sampling.stop else None
    if sampling.stop:
        raise EngineError(
            "the server does not say whether a stop string or the end of the text came; use vLLM, "
            "SGLang, llama.cpp, or engine.kind: hf"
        )
    return None


def _echo(answer: dict[str, Any]) -> list[Token]:
    """Tokens of the prompt, without those generated after it."""
    found = field(_choice(answer), "logprobs", dict)
    texts, logprobs = field(found, "tokens", list), field(found, "token_logprobs", list)
    count = len(texts) - _used(answer, "completion_tokens")
    pairs = list(zip(texts, logprobs, strict=False))[: max(0, count)]
    return [Token(str(t), float(p) if isinstance(p, int | float) else None) for t, p in pairs]


def _tail(tokens: list[Token], text: str) -> int | None:
    """How many tokens at the end make up ``text``; None if no whole number does."""
    rest = text
    for count, token in enumerate(reversed(tokens), 1):
        if not token.text or not rest.endswith(token.text):
            return None
        rest = rest.removesuffix(token.text)
        if not rest:
            return count
    return None


def _likely(choice: dict[str, Any]) -> list[Token]:
    """The likeliest first tokens, in either of the two forms that servers write them in."""
    found = field(choice, "logprobs", dict)
    if isinstance(found.get("content"), list) and found["content"]:
        listed = field(found["content"][0], "top_logprobs", list)
        return [Token(field(t, "token", str), float(field(t, "logprob", float))) for t in listed]
    tops = field(found, "top_logprobs", list)
    if not tops or not isinstance(tops[0], dict):
        raise EngineError("the server gave no likely next tokens; it cannot score labels")
    return [Token(text, float(p)) for text, p in tops[0].items()]
