"""llama.cpp's server in its own words, which say more than its OpenAI-compatible ones.

Its ``/completion`` names the stop string, gives token ids, and repeats the parameters that it used,
so that an ignored knob is seen. It cannot score a prompt; but the log-probability that it reports
for a token is of the unbiased model, so a continuation is scored by forcing its tokens: all of them
by a grammar of one sentence or, where the server knows no grammar of tokens, one by one.
"""

import math
from collections.abc import Sequence
from typing import Any, Final, Literal

from pipeline.engine.served.answers import token_ids
from pipeline.engine.served.connection import Connection, Refused, Untrusted, field
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
        self._prefix: tuple[str, tuple[int, ...]] = ("", ())
        self._spells = False

    async def complete(self, request: GenRequest) -> Completion:
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
        answer = await self._post({"prompt": prompt, "return_tokens": True, **asked})
        _compare(asked, field(answer, "generation_settings", dict))
        ids, reason = token_ids(answer, "tokens"), _ENDS.get(field(answer, "stop_type", str))
        if reason is None or (reason == "length" and len(ids) != sampling.max_new_tokens):
            raise Untrusted(
                f"the server ended after {len(ids)} of {sampling.max_new_tokens} tokens "
                f"({answer.get('stop_type')!r}); give it a longer context"
            )
        stop = field(answer, "stopping_word", str) if reason == "stop" else None
        if stop is not None and stop not in sampling.stop:
            raise Untrusted(f"the server stopped at {stop!r:.100}, which was not asked for")
        text, kept = field(answer, "content", str), ids[:-1] if reason == "eos" else ids
        if text and not ids:
            raise Untrusted(f"the server made the text {text!r:.100} of no tokens")
        return Completion(text, kept, reason, stop)

    async def scores(self) -> Literal["any", "labels"]:
        """Any text can be forced; try whether in one request."""
        try:
            await self._spelled(await self._begun("The sun"), await self._tokens(" rises early"))
        except (Refused, Untrusted):  # a lost server is no such
            return "any"
        self._spells = True
        return "any"

    async def score(self, request: ScoreRequest) -> tuple[Score, ...]:
        """Force the tokens of each continuation."""
        prompt = await self._begun(request.prefix) + await self._tokens(request.suffix)
        return tuple(
            [await self._score(prompt, await self._tokens(c)) for c in request.continuations]
        )

    async def count(self, text: str) -> int:
        """Tokens of a text, without special ones."""
        return len(await self._tokens(text))

    async def _score(self, prompt: tuple[int, ...], wanted: tuple[int, ...]) -> Score:
        if self._spells:
            return Score(await self._spelled(prompt, wanted), len(wanted))
        total = 0.0
        for done, token in enumerate(wanted):
            total += await self._forced([*prompt, *wanted[:done]], token)
        return Score(total, len(wanted))

    async def _spelled(self, prompt: tuple[int, ...], wanted: tuple[int, ...]) -> float:
        """Log-probability of tokens that the grammar leaves no choice but to write."""
        grammar = "root ::= " + " ".join(f"<[{token}]>" for token in wanted)
        return await self._drawn(prompt, wanted, {"grammar": grammar})

    async def _forced(self, prompt: list[int], token: int) -> float:
        """Log-probability of a token that a bias makes the likeliest."""
        return await self._drawn(prompt, (token,), {"logit_bias": [[token, _FORCE]]})

    async def _drawn(
        self, prompt: Sequence[int], wanted: tuple[int, ...], force: dict[str, Any]
    ) -> float:
        body = {"prompt": list(prompt), "n_predict": len(wanted), "n_probs": 1}
        neutral = {"temperature": 0.0, "repeat_penalty": 1.0, "samplers": _SAMPLERS}
        answer = await self._post(body | neutral | force)
        drawn = field(answer, "completion_probabilities", list)
        if [field(token, "id", int) for token in drawn] != list(wanted):
            raise Untrusted(f"the server did not take the tokens {wanted}; it cannot score text")
        logprobs = [float(field(token, "logprob", float)) for token in drawn]
        if bad := [p for p in logprobs if not math.isfinite(p) or p > 0]:
            raise Untrusted(f"the server gave {bad[0]!r} as a log-probability")
        return sum(logprobs)

    async def _begun(self, prefix: str) -> tuple[int, ...]:
        """Tokens of a prefix after the model's begin token; the last one is remembered."""
        if self._prefix[0] != prefix or not self._prefix[1]:
            self._prefix = (prefix, await self._tokens(prefix, first=True))
        return self._prefix[1]

    async def _tokens(self, text: str, *, first: bool = False) -> tuple[int, ...]:
        url, body = f"{self._connection.root}/tokenize", {"content": text, "add_special": first}
        return token_ids(await self._connection.post(url, body), "tokens")

    async def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        return await self._connection.post(f"{self._connection.root}/completion", body)


def _compare(asked: dict[str, Any], used: dict[str, Any]) -> None:
    """Refuse an answer whose parameters are not those that were asked for."""
    for name, value in asked.items():
        found = used.get(name)
        if isinstance(value, float):
            same = isinstance(found, int | float) and math.isclose(found, value, abs_tol=1e-4)
        else:
            same = found == value
        if not same:
            raise Untrusted(f"the server used {name} = {found!r:.100} where {value!r} was asked")
