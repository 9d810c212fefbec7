"""What completions servers answer, read into values: the one choice, counts, log-probabilities.

The latter come as an echoed prompt (vLLM, SGLang), as vLLM's ``prompt_logprobs``, or as lists of
likely next tokens. An answer of another form is an error.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

from pipeline.engine.served.connection import Untrusted, field
from pipeline.types import Score

_ROUNDING: Final = 1e-3
"""A log-probability above 0 by no more than this is 0."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a prompt, or a likely next one."""

    text: str
    """Its text."""
    logprob: float | None
    """Its log-probability; the first token of a prompt has none."""


def only_choice(answer: dict[str, Any]) -> dict[str, Any]:
    """The choice, where one was asked for."""
    choices = field(answer, "choices", list)
    if len(choices) != 1 or not isinstance(choices[0], dict):
        raise Untrusted(f"the server gave {len(choices)} choices where one was asked for")
    choice: dict[str, Any] = choices[0]
    return choice


def used(answer: dict[str, Any], name: str) -> int:
    """A count of tokens."""
    count = field(field(answer, "usage", dict), name, int)
    if count < 0:
        raise Untrusted(f"the server's answer has {name} = {count!r:.100}; expected 0 or more")
    return count


def token_ids(answer: dict[str, Any], name: str) -> tuple[int, ...]:
    """Numbers of tokens."""
    ids = field(answer, name, list)
    if not all(type(i) is int and i >= 0 for i in ids):
        raise Untrusted(
            f"the server's answer has {name} = {ids!r:.100}; expected whole numbers from 0 up"
        )
    return tuple(ids)


def echo_tokens(answer: dict[str, Any]) -> list[Token]:
    """Tokens of an echoed prompt, without those generated after it."""
    found = field(only_choice(answer), "logprobs", dict)
    texts, logprobs = field(found, "tokens", list), field(found, "token_logprobs", list)
    if len(texts) != len(logprobs):
        raise Untrusted(f"the server gave {len(logprobs)} log-probabilities of {len(texts)} tokens")
    count = max(0, len(texts) - used(answer, "completion_tokens"))
    return [Token(str(t), _number(p)) for t, p in zip(texts[:count], logprobs, strict=False)]


def prompt_tokens(answer: dict[str, Any]) -> list[Token]:
    """Tokens of vLLM's ``prompt_logprobs``: by id, the prompt's own token first."""
    tokens = []
    for place in field(only_choice(answer), "prompt_logprobs", list):
        told = next(iter(place.values()), None) if isinstance(place, dict) else None
        known = told if isinstance(told, dict) else {}
        tokens.append(Token(str(known.get("decoded_token") or ""), _number(known.get("logprob"))))
    return tokens


def likely_tokens(answer: dict[str, Any]) -> list[Token]:
    """The likeliest first tokens, in either of the two forms that servers write them in."""
    found = field(only_choice(answer), "logprobs", dict)
    if isinstance(found.get("content"), list) and found["content"]:
        listed = field(found["content"][0], "top_logprobs", list)
        return [Token(field(t, "token", str), _number(t.get("logprob"))) for t in listed]
    tops = field(found, "top_logprobs", list)
    if not tops or not isinstance(tops[0], dict):
        raise Untrusted("the server gave no likely next tokens; it cannot score labels")
    return [Token(text, _number(p)) for text, p in tops[0].items()]


def tells(tokens: list[Token], text: str) -> bool:
    """Whether these are the tokens of ``text``, each with a log-probability but the first.

    A server that has none may fill their places with zeros.
    """
    scored = "".join(t.text for t in tokens[1:])
    complete = all(t.logprob is not None and _usable(t.logprob) for t in tokens[1:])
    filled = all(t.logprob == 0 for t in tokens[1:])
    return len(tokens) > 4 and complete and not filled and text.endswith(scored)


def tail(tokens: list[Token], text: str) -> int | None:
    """How many tokens at the end make up ``text``; None if no whole number does."""
    rest = text
    for count, token in enumerate(reversed(tokens), 1):
        if not token.text or not rest.endswith(token.text):
            return None
        rest = rest.removesuffix(token.text)
        if not rest:
            return count
    return None


def total(tokens: list[Token], text: str) -> Score:
    """The score of a continuation from its tokens.

    Raises:
        Untrusted: if one has no log-probability, or what is none.
    """
    logprobs = [t.logprob for t in tokens]
    found = [p for p in logprobs if p is not None and _usable(p)]
    if not found or len(found) < len(logprobs):
        raise Untrusted(f"the server did not score {text!r:.100} in full: {logprobs!r:.200}")
    return Score(sum(min(p, 0.0) for p in found), len(found))


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:  # a whole number beyond what a float holds
        return None


def _usable(logprob: float) -> bool:
    return math.isfinite(logprob) and logprob <= _ROUNDING
