"""What every engine refuses before it computes: requests that no model could honour.

Values only; whether a particular engine can do what is asked is that engine's own business.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from pipeline.errors import EngineError
from pipeline.types import GenRequest, Sampling, ScoreRequest

Count = Callable[[str], int]

MOST_STOPS: Final = 64
"""Stop strings of one row; each is looked for after every token."""
_COLDEST: Final = 1e-4
"""Least temperature but 0; from here on a draw is greedy in every number format."""
_RANGES: Final[dict[str, tuple[float, float, str]]] = {
    "temperature": (0.0, 100.0, "0 (greedy), or 0.0001 to 100"),
    "top_p": (1e-9, 1.0, "above 0 and at most 1"),
    "min_p": (0.0, 1.0, "from 0 to 1"),
    "repetition_penalty": (1e-3, 100.0, "from 0.001 to 100; 1 is off"),
    "top_k": (0, 2**31, "0 (all) or more, a whole number"),
    "max_new_tokens": (1, 2**31, "at least 1, a whole number"),
}
_WHOLE: Final = frozenset({"top_k", "max_new_tokens"})


def check_requests(requests: Sequence[GenRequest], *, count: Count, context: int) -> None:
    """Refuse bad sampling parameters, prompts that are no text, and rows longer than the context.

    Args:
        requests: what is to be generated.
        count: tokens of a text, as the engine would count its prompt.
        context: longest prompt plus completion, in tokens.

    Raises:
        EngineError: naming the row, what was found and what is expected.
    """
    for row, request in enumerate(requests):
        if problem := sampling_problem(request.sampling) or _seed_problem(request.seed):
            raise EngineError(f"row {row}: {problem}")
        _check_prompt(row, request)
        prompt = count(request.prefix) + count(request.suffix)
        refuse_overlong(row, prompt, request.sampling.max_new_tokens, context=context)


def check_scores(requests: Sequence[ScoreRequest], *, count: Count, context: int) -> None:
    """Refuse missing or empty continuations, what is no text, and rows longer than the context.

    Raises:
        EngineError: naming the row, what was found and what is expected.
    """
    for row, request in enumerate(requests):
        found = request.continuations
        if isinstance(found, str) or not found or not all(found):
            raise EngineError(f"row {row}: nothing to score in {found!r}; write continuations")
        for text in found:
            if problem := _text_problem("a continuation", text):
                raise EngineError(f"row {row}: {problem}")
        _check_prompt(row, request)
        prompt = count(request.prefix) + count(request.suffix)
        refuse_overlong(row, prompt, max(map(count, found)), context=context)


def refuse_overlong(row: int, prompt: int, more: int, *, context: int) -> None:
    """Refuse a row whose prompt and continuation exceed the context."""
    if prompt + more > context:
        raise EngineError(
            f"row {row}: a prompt of {prompt} tokens and {more} more exceed the model's context "
            f"of {context}; use fewer or shorter examples, or a lower max_new_tokens"
        )


def sampling_problem(s: Sampling) -> str | None:
    """What is wrong with sampling parameters, in words; None when nothing is."""
    for name, (low, high, expected) in _RANGES.items():
        value = getattr(s, name)
        kind = int if name in _WHOLE else int | float
        number = isinstance(value, kind) and not isinstance(value, bool)
        if not (number and low <= value <= high):
            return f"{name} is {_short(value)}; expected {expected}"
    if 0 < s.temperature < _COLDEST:
        return f"temperature is {s.temperature!r}; expected {_RANGES['temperature'][2]}"
    return _stops_problem(s.stop)


def _stops_problem(stops: Any) -> str | None:
    if not isinstance(stops, tuple | list) or not all(isinstance(s, str) and s for s in stops):
        return f"stop strings are {_short(stops)}; expected texts of at least one character"
    if len(stops) > MOST_STOPS:
        return f"{len(stops)} stop strings; expected at most {MOST_STOPS}: drop the rarest"
    problems = (_text_problem("a stop string", stop) for stop in stops)
    return next(filter(None, problems), None)


def _seed_problem(seed: Any) -> str | None:
    if isinstance(seed, int) and not isinstance(seed, bool):
        return None
    return f"the seed is {_short(seed)}; expected a whole number"


def _check_prompt(row: int, request: GenRequest | ScoreRequest) -> None:
    for name, text in (("the prefix", request.prefix), ("the suffix", request.suffix)):
        if problem := _text_problem(name, text):
            raise EngineError(f"row {row}: {problem}")
    if not request.prefix + request.suffix:
        raise EngineError(f"row {row}: the prompt is empty; write at least one character")


def _text_problem(name: str, text: Any) -> str | None:
    """What keeps a value from being Unicode text; any character of it is welcome, NUL too."""
    if not isinstance(text, str):
        return f"{name} is {_short(text)}; expected a str"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        found = text[error.start : error.start + 1]
        return (
            f"{name} holds {found!r} at character {error.start}, which is half of a surrogate pair "
            f"and no text; remove it, or decode its source with errors='replace'"
        )
    return None


def _short(value: Any) -> str:
    return f"{value!r:.100}"
