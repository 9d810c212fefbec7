"""llama.cpp's server in its own words, which say more than its OpenAI-compatible ones.

Its ``/completion`` names the stop string, gives token ids, and repeats the parameters that it used,
so that an ignored knob is seen. It cannot score a prompt; but the log-probability that it reports
for a token is of the unbiased model, so a continuation is scored by forcing its tokens one by one.
"""

import math
from typing import Any, Final

from pipeline.engine.connection import Connection, field
from pipeline.errors import EngineError
from pipeline.types import Completion, FinishReason, GenRequest, Score, ScoreRequest

SEEDS: Final = 2**32 - 1
"""Seeds are taken modulo this; the number itself means a random one."""
_SAMPLERS: Final = ["penalties", "temperature", "top_k", "top_p", "min_p"]
_ENDS: Final[dict[str, FinishReason]] = {"eos": "eos", "word": "stop", "limit": "length"}
_FORCE: Final = 1e4


class LlamaCpp:
    """The server's own endpoints."""

    def __init__(self, connection: Connection, *, context: int) -> None:
        """Speak to a llama.cpp server whose slots hold ``context`` tokens each."""
        self._connection = connection
        self._context = context

    def complete(self, request: GenRequest) -> Completion:
        """Draw one completion, and check that it was drawn as asked."""
        sampling = request.sampling
        asked: dict[str, Any] = {
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "min_p": sampling.min_p,
            "repeat_penalty": sampling.repetition_penalty,
            "repeat_last_n": self._context,
            "seed": request.seed % SEEDS,
            "n_predict": sampling.max_new_tokens,
            "stop": list(sampling.stop),
            "samplers": _SAMPLERS,
        }
        prompt = request.prefix + request.suffix
        answer = self._post({"prompt": prompt, "return_tokens": True, **asked})
        _compare(asked, field(answer, "generation_settings", dict))
        ids, reason = _ids(answer, "tokens"), _ENDS.get(field(answer, "stop_type", str))
        if reason is None or (reason == "length" and len(ids) < sampling.max_new_tokens):
            raise EngineError(
                f"the server ended after {len(ids)} of {sampling.max_new_tokens} tokens "
                f"({answer.get('stop_type')!r}); give it a longer context"
            )
        stop = field(answer, "stopping_word", str) if reason == "stop" else None
        kept = ids[:-1] if reason == "eos" else ids
        return Completion(field(answer, "content", str), kept, reason, stop)

    def score(self, request: ScoreRequest) -> tuple[Score, ...]:
        """Force the tokens of each continuation, one request a token."""
        prompt = self._tokens(request.prefix, first=True) + self._tokens(request.suffix)
        return tuple(self._score(prompt, self._tokens(text)) for text in request.continuations)

    def count(self, text: str) -> int:
        """Tokens of a text, without special ones."""
        return len(self._tokens(text))

    def _score(self, prompt: tuple[int, ...], wanted: tuple[int, ...]) -> Score:
        total = 0.0
        for done, token in enumerate(wanted):
            total += self._forced([*prompt, *wanted[:done]], token)
        return Score(total, len(wanted))

    def _forced(self, prompt: list[int], token: int) -> float:
        body = {"n_predict": 1, "temperature": 0.0, "n_probs": 1, "samplers": _SAMPLERS}
        bias = {"logit_bias": [[token, _FORCE]], "repeat_penalty": 1.0}
        answer = self._post({"prompt": prompt, **body, **bias})
        drawn = field(answer, "completion_probabilities", list)
        if len(drawn) != 1 or drawn[0].get("id") != token:
            raise EngineError(f"the server did not take the token {token}; it cannot score text")
        logprob = float(field(drawn[0], "logprob", float))
        if not math.isfinite(logprob) or logprob > 0:
            raise EngineError(f"the server gave {logprob!r} as a log-probability")
        return logprob

    def _tokens(self, text: str, *, first: bool = False) -> tuple[int, ...]:
        body = {"content": text, "add_special": first}
        return _ids(self._connection.post(f"{self._connection.root}/tokenize", body), "tokens")

    def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._connection.post(f"{self._connection.root}/completion", body)


def _ids(answer: dict[str, Any], name: str) -> tuple[int, ...]:
    ids = field(answer, name, list)
    if not all(isinstance(i, int) for i in ids):
        raise EngineError(f"the server's answer has {name} = {ids!r:.100}; expected numbers")
    return tuple(ids)


def _compare(asked: dict[str, Any], used: dict[str, Any]) -> None:
    """Refuse an answer whose parameters are not those that were asked for."""
    for name, value in asked.items():
        found = used.get(name)
        if isinstance(value, float):
            same = isinstance(found, int | float) and math.isclose(found, value, abs_tol=1e-4)
        else:
            same = found == value
        if not same:
            raise EngineError(f"the server used {name} = {found!r:.100} where {value!r} was asked")
