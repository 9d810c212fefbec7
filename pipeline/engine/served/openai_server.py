"""Completions servers in the words that vLLM, SGLang and others share: ``/v1/completions``.

A server of this kind may leave things out. What cannot be known from its answer is refused, not
guessed: which stop string fired, how a text ended, or what its log-probability is.
"""

from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple

from pipeline.engine.served.answers import (
    Token,
    echo_tokens,
    likely_tokens,
    only_choice,
    prompt_tokens,
    tail,
    tells,
    token_ids,
    total,
    used,
)
from pipeline.engine.served.connection import Connection, Refused, Untrusted, field
from pipeline.types import Completion, GenRequest, Sampling, Score, ScoreRequest

UNKNOWN_ID: Final = -1
"""Stands for each token of a completion whose ids the server does not tell."""
_SEEDS: Final = 2**32 - 1
_TOP: Final = 20
_WINDOW: Final = 2**17
"""Tokens that a penalty looks back on, for servers that would look back on fewer."""
_GREEDY: Final = {"max_tokens": 1, "temperature": 0.0}


class _Form(NamedTuple):
    """One way of asking for the log-probabilities of a prompt's tokens."""

    knobs: dict[str, Any]
    read: Callable[[dict[str, Any]], list[Token]]


_FORMS: Final = (
    _Form({"echo": True, "logprobs": 1}, echo_tokens),
    _Form({"prompt_logprobs": 0}, prompt_tokens),
)


class OpenAIServer:
    """The endpoint that all servers have."""

    def __init__(self, connection: Connection, *, names: frozenset[str] = frozenset()) -> None:
        """Speak to the server behind ``connection``, whose model answers to ``names`` as well."""
        self._connection = connection
        self._names = names | {connection.model}
        self._form: _Form | None = None
        self._special: int | None = None

    async def complete(self, request: GenRequest) -> Completion:
        """Draw one completion."""
        sampling = request.sampling
        body = _knobs(sampling) | {
            "prompt": request.prefix + request.suffix,
            "seed": request.seed % _SEEDS,
            "return_token_ids": True,
        }
        answer = await self._ask(body)
        choice = only_choice(answer)
        text, made = field(choice, "text", str), used(answer, "completion_tokens")
        _check(text, made, sampling)
        ids = _ids(choice, made)
        match choice.get("finish_reason"):
            case "length" if made >= sampling.max_new_tokens:
                if not text and made > 1:
                    raise Untrusted(f"the server made {made} tokens and no text of them")
                return Completion(text, ids, "length")
            case "stop":
                stopped = _stopped(choice, sampling)
                kept = ids if stopped else ids[:-1]
                return Completion(text, kept, "stop" if stopped else "eos", stopped)
            case reason:
                raise Untrusted(
                    f"the server ended after {made} of {sampling.max_new_tokens} tokens with "
                    f"finish_reason {reason!r}; expected 'stop', or 'length' at the last of them: "
                    f"give it a longer context"
                )

    async def scores(self) -> Literal["any", "labels"]:
        """Try in which form, if any, the server gives the log-probabilities of a prompt."""
        text = "The sun rises in the east."
        for form in _FORMS:
            try:
                found = tells(await self._scored(text, form), text)
            except (Refused, Untrusted):  # an answer of another form; a lost server is no such
                found = False
            if found:
                self._form = form
                return "any"
        return "labels"

    async def score(self, request: ScoreRequest) -> tuple[Score, ...]:
        """Log-probabilities from the prompt's own, else from the likeliest next tokens."""
        prompt, form = request.prefix + request.suffix, self._form
        if form is None:
            return await self._labels(prompt, request.continuations)
        return tuple([await self._text(prompt, text, form) for text in request.continuations])

    async def count(self, text: str) -> int:
        """Tokens of a text, without special ones."""
        if not text:
            return 0
        if self._special is None:  # a letter is one token everywhere
            self._special = await self._length("a") - 1
        return max(0, await self._length(text) - self._special)

    async def _text(self, prompt: str, continuation: str, form: _Form) -> Score:
        tokens = await self._scored(prompt + continuation, form)
        count = tail(tokens, continuation)
        if count is None:  # a character of several tokens has no text of its own
            count = max(0, len(tokens) - await self._length(prompt))
        return total(tokens[len(tokens) - count :], continuation)

    async def _scored(self, text: str, form: _Form) -> list[Token]:
        return form.read(await self._ask({"prompt": text} | form.knobs | _GREEDY))

    async def _labels(self, prompt: str, labels: tuple[str, ...]) -> tuple[Score, ...]:
        answer = await self._ask({"prompt": prompt, "logprobs": _TOP} | _GREEDY)
        likely = {token.text: token for token in reversed(likely_tokens(answer))}
        if missing := [label for label in labels if label not in likely]:
            raise Untrusted(
                f"the server at {self._connection.base_url} does not give the log-probabilities of "
                f"a prompt, and {missing[0]!r:.100} is not among its {len(likely)} likeliest next "
                f"tokens, so it cannot be scored; set engine.scorer, or use vLLM, SGLang or "
                f"llama.cpp"
            )
        return tuple(total([likely[label]], label) for label in labels)

    async def _length(self, prompt: str) -> int:
        return used(await self._ask({"prompt": prompt} | _GREEDY), "prompt_tokens")

    async def _ask(self, body: dict[str, Any]) -> dict[str, Any]:
        named = {"model": self._connection.model} | body
        answer = await self._connection.post("/completions", named)
        served = answer.get("model")
        if isinstance(served, str) and served not in self._names:
            raise Untrusted(
                f"the server at {self._connection.base_url} answered with the model {served!r:.100}"
                f" where {self._connection.model!r} was asked; set engine.model to what it serves"
            )
        return answer


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
        "repeat_last_n": _WINDOW,
        "stop": list(s.stop),
    }


def _ids(choice: dict[str, Any], made: int) -> tuple[int, ...]:
    if choice.get("token_ids") is None:
        return (UNKNOWN_ID,) * made
    ids = token_ids(choice, "token_ids")
    if len(ids) != made:
        raise Untrusted(f"the server gave {len(ids)} token ids of {made} tokens")
    return ids


def _check(text: str, made: int, sampling: Sampling) -> None:
    """Refuse a text that shows that it was not made as asked."""
    if made > sampling.max_new_tokens:
        raise Untrusted(
            f"the server ignores max_tokens: it made {made} where {sampling.max_new_tokens} were "
            f"asked for"
        )
    if text and not made:
        raise Untrusted(f"the server made the text {text!r:.100} of no tokens")
    for stop in sampling.stop:
        if stop in text:
            raise Untrusted(f"the server ignores stop strings: {stop!r} is in its answer")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Untrusted(f"the server's text {text!r:.100} is not Unicode") from error


def _stopped(choice: dict[str, Any], sampling: Sampling) -> str | None:
    """The stop string that ended a choice; None for the end token.

    vLLM says ``stop_reason`` and SGLang ``matched_stop``: the string, an end token's id, or null.
    """
    for name in ("stop_reason", "matched_stop"):
        if name in choice:
            told = choice[name]
            if told in sampling.stop:
                return str(told)
            if told is None or type(told) is int:
                return None
            raise Untrusted(
                f"the server says {name} = {told!r:.100}; expected one of {list(sampling.stop)}, "
                f"an end token's number or null"
            )
    if sampling.stop:
        raise Untrusted(
            "the server does not say whether a stop string or the end of the text came; use vLLM, "
            "SGLang, llama.cpp, or engine.kind: hf"
        )
    return None
