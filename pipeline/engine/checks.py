"""What every engine refuses before it computes: requests that no model could honour.

Values only; whether a particular engine can do what is asked is that engine's own business.
"""

import math
from collections.abc import Callable, Sequence

from pipeline.errors import EngineError
from pipeline.types import GenRequest, Sampling, ScoreRequest

Count = Callable[[str], int]


def check_requests(requests: Sequence[GenRequest], *, count: Count, context: int) -> None:
    """Refuse bad sampling parameters, empty prompts and rows longer than the context.

    Args:
        requests: what is to be generated.
        count: tokens of a text, as the engine would count its prompt.
        context: longest prompt plus completion, in tokens.

    Raises:
        EngineError: naming the row, what was found and what is expected.
    """
    for row, request in enumerate(requests):
        if problem := sampling_problem(request.sampling):
            raise EngineError(f"row {row}: {problem}")
        if not request.prefix + request.suffix:
            raise EngineError(f"row {row}: the prompt is empty; write at least one character")
        prompt = count(request.prefix) + count(request.suffix)
        refuse_overlong(row, prompt, request.sampling.max_new_tokens, context=context)


def check_scores(requests: Sequence[ScoreRequest], *, count: Count, context: int) -> None:
    """Refuse missing or empty continuations, and rows longer than the context.

    Raises:
        EngineError: naming the row, what was found and what is expected.
    """
    for row, request in enumerate(requests):
        if not request.continuations or not all(request.continuations):
            found = request.continuations
            raise EngineError(f"row {row}: nothing to score in {found!r}; write continuations")
        if not request.prefix + request.suffix:
            raise EngineError(f"row {row}: the prompt is empty; write at least one character")
        prompt = count(request.prefix) + count(request.suffix)
        refuse_overlong(row, prompt, max(map(count, request.continuations)), context=context)


def refuse_overlong(row: int, prompt: int, more: int, *, context: int) -> None:
    """Refuse a row whose prompt and continuation exceed the context."""
    if prompt + more > context:
        raise EngineError(
            f"row {row}: a prompt of {prompt} tokens and {more} more exceed the model's context "
            f"of {context}; use fewer or shorter examples, or a lower max_new_tokens"
        )


def sampling_problem(s: Sampling) -> str | None:
    """What is wrong with sampling parameters, in words; None when nothing is."""
    numbers = {
        "temperature": (s.temperature, 0.0, 100.0, "0 (greedy) or more"),
        "top_p": (s.top_p, 1e-9, 1.0, "above 0 and at most 1"),
        "min_p": (s.min_p, 0.0, 1.0, "from 0 to 1"),
        "repetition_penalty": (s.repetition_penalty, 1e-3, 100.0, "above 0; 1 is off"),
        "top_k": (s.top_k, 0, 2**31, "0 (all) or more"),
        "max_new_tokens": (s.max_new_tokens, 1, 2**31, "at least 1"),
    }
    for name, (value, low, high, expected) in numbers.items():
        if not (math.isfinite(value) and low <= value <= high):
            return f"{name} is {value!r}; expected {expected}"
    if not all(isinstance(stop, str) and stop for stop in s.stop):
        return f"stop strings are {s.stop!r}; expected texts of at least one character"
    return None
