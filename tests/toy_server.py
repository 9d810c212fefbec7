"""A completions server with a toy language model, which really honours each knob, or ignores it.

The model is a table of bigrams from a fixed seed, over words and single characters; a word that was
said twice is likely to be said again. Its sampler is written from the definitions, token by token.
"""

import random
import re
import time
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from completion_server import server

WORDS = (
    "the a an and of to in on it is was be has had not but for with at by from one two three yes "
    "no la day night sun rain city sea tree bird door hand red blue old new good bad small large "
    "went came saw said made took knew fell rose sang walked stood quiet warm cold early late home "
    "street river hill bread water light dark friend child song word book road wind snow garden"
)
VOCABULARY = (
    "<eos>",
    *(f" {w}" for w in WORDS.split()),
    ".",
    ",",
    "!",
    "\n",
    "é",
    " 🌍",
    " 1",
    " 2",
)
EOS = 0
KNOBS = (
    "temperature", "seed", "top_p", "top_k", "min_p", "repetition_penalty", "stop", "max_tokens",
)  # fmt: skip
"""What ``toy_server(ignores=...)`` may name, and these: ``greedy`` (temperature 0 is taken for 1),
``sampling`` (it is always greedy), ``seeds`` (all are one), ``stop_reason`` (not told),
``stop_trim`` (a stop string is left), ``penalty_prompt`` (a penalty spares the prompt), ``echo``,
``prompt_logprobs`` and ``logprobs``."""
_PIECE = re.compile(r"\s*[A-Za-z]+|\s*\d|\s*\S|\s+")


@contextmanager
def toy_server(*, ignores: Collection[str] = (), delay: float = 0.0) -> Iterator[str]:
    """The address of a server that honours everything but what is named.

    Args:
        ignores: Knobs and other abilities that it has not.
        delay: Seconds that each answer takes.
    """

    def answer(path: str, body: dict[str, Any]) -> Any:
        if path == "/v1/models":
            return {"data": [{"id": "toy", "max_model_len": 4096}]}
        time.sleep(delay)
        return complete(body, frozenset(ignores))

    with server(answer) as (url, _):
        yield url


def pieces(text: str) -> list[str]:
    """A text's tokens."""
    return _PIECE.findall(text)


def ids(text: str) -> list[int]:
    """Their numbers; an unknown one stands where its hash falls."""
    known = {piece: i for i, piece in enumerate(VOCABULARY)}
    size = len(VOCABULARY) - 1
    return [known.get(p, 1 + zlib.crc32(p.strip().encode()) % size) for p in pieces(text)]


@cache
def _table() -> np.ndarray:
    table = np.random.default_rng(5).normal(scale=1.5, size=(len(VOCABULARY),) * 2)
    table[:, EOS] -= 1.0
    return table


def logits(context: list[int]) -> np.ndarray:
    """Of the next token; one that was just said twice will go on being said."""
    found = _table()[context[-1] if context else EOS].copy()
    if len(context) > 1 and context[-1] == context[-2]:
        found[context[-1]] = found.max() + 1.0
    return found


def complete(body: dict[str, Any], ignores: frozenset[str]) -> dict[str, Any]:
    """The server's answer to a request."""
    knobs = _knobs(body, ignores)
    prompt, made, reason, fired = ids(body["prompt"]), [], "length", None
    seed = "0" if "seeds" in ignores else f"{body.get('seed')}"
    chance = random.Random(None if "seed" in ignores else seed)
    while len(made) < knobs["max_tokens"]:
        token = _draw(prompt, made, knobs, chance, ignores)
        made.append(token)
        if token == EOS:
            reason = "stop"
            break
        fired = next((s for s in knobs["stop"] if s in _text(made)), None)
        if fired:
            reason = "stop"
            break
    text = _text(made)
    if fired and "stop_trim" not in ignores:
        text = text[: text.find(fired)]
    choice: dict[str, Any] = {"index": 0, "text": text, "finish_reason": reason}
    if "stop_reason" not in ignores:
        choice["stop_reason"] = fired
    if body.get("return_token_ids"):
        choice["token_ids"] = made
    _tell_logprobs(choice, body, prompt, made, ignores)
    usage = {"prompt_tokens": len(prompt), "completion_tokens": len(made)}
    return {"model": body["model"], "choices": [choice], "usage": usage}


def _knobs(body: dict[str, Any], ignores: frozenset[str]) -> dict[str, Any]:
    """What is in force: a server that ignores a knob has its own mind about it."""
    own = {
        "max_tokens": 16, "temperature": 1.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0,
        "repetition_penalty": 1.0, "stop": [],
    }  # fmt: skip
    found = {name: own[name] if name in ignores else body.get(name, own[name]) for name in own}
    if "greedy" in ignores and found["temperature"] == 0:
        found["temperature"] = 1.0
    if "sampling" in ignores:
        found["temperature"] = 0.0
    return found


def _draw(
    prompt: list[int], made: list[int], knobs: dict[str, Any], chance: random.Random,
    ignores: frozenset[str],
) -> int:  # fmt: skip
    scores = logits(prompt + made)
    punished = list({*made} if "penalty_prompt" in ignores else {*prompt, *made})
    hit, penalty = scores[punished], knobs["repetition_penalty"]
    scores[punished] = np.where(hit > 0, hit / penalty, hit * penalty)
    if knobs["temperature"] == 0:
        return int(scores.argmax())
    scores = scores / knobs["temperature"]
    order = np.argsort(-scores, kind="stable")
    if knobs["top_k"] > 0:
        order = order[: knobs["top_k"]]
    shares = _softmax(scores[order])
    before = np.concatenate([[0.0], np.cumsum(shares)[:-1]])
    order = order[before < knobs["top_p"]]
    shares = _softmax(scores[order])
    order = order[shares >= knobs["min_p"] * shares[0]]
    return int(chance.choices(order.tolist(), _softmax(scores[order]).tolist())[0])


def _softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


def _text(made: list[int]) -> str:
    return "".join(VOCABULARY[i] for i in made if i != EOS)


def _tell_logprobs(
    choice: dict[str, Any], body: dict[str, Any], prompt: list[int], made: list[int],
    ignores: frozenset[str],
) -> None:  # fmt: skip
    said = pieces(body["prompt"])
    scored = [None] + [
        float(np.log(_softmax(logits(prompt[:i]))[prompt[i]])) for i in range(1, len(prompt))
    ]
    if body.get("logprobs") and "logprobs" not in ignores:
        likely = np.log(_softmax(logits(prompt)))
        top = {VOCABULARY[i]: float(likely[i]) for i in np.argsort(-likely)[: body["logprobs"]]}
        echoed = body.get("echo") and "echo" not in ignores
        choice["logprobs"] = {
            "tokens": [*(said if echoed else []), *(VOCABULARY[i] for i in made)],
            "token_logprobs": [*(scored if echoed else []), *(-1.0 for _ in made)],
            "top_logprobs": [top],
        }
    if "prompt_logprobs" in body and "prompt_logprobs" not in ignores:
        choice["prompt_logprobs"] = [None] + [
            {str(token): {"logprob": p, "decoded_token": piece}}
            for token, p, piece in list(zip(prompt, scored, said, strict=True))[1:]
        ]
