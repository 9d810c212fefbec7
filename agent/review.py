"""Reading a reviewer's answer: from untrusted text to a typed review, or a reason why not.

The text is judged before it is parsed (size, nesting), parsed strictly (no duplicate keys, no NaN,
no number beyond reach) and then validated (strict types, unknown keys refused). Nothing is
repaired: a truncated answer is no answer. What its changes may do is ``agent/guard.py``'s
decision. A reviewer that thinks aloud may open with one closed ``<think>`` block, and may wrap the
object in one code fence; both are taken off, anything else around the object is refused.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from agent.errors import ReviewerError
from agent.guard import Guarded, guard
from agent.review_records import Outcome, Review
from agent.strict_json import load_strict
from pipeline.params import TUNABLE

__all__ = ["METRICS", "Guarded", "guard", "parse_review", "review_schema", "score_predictions"]

METRICS: Final = (
    "runaway",
    "repetition",
    "token_limit",
    "truncated",
    "delimiter_leak",
    "empty",
    "instruction_acceptance",
    "pair_acceptance",
    "yield",
    "raw_acceptance",
    "duplicates",
    "near_duplicates",
    "median_tokens",
)
"""Names that a prediction may speak of: those of the metric table."""

_MAX_BYTES: Final = 64 * 1024
_THINKING: Final = re.compile(r"\s*<(think|thinking)>.*?</\1>", re.DOTALL)
_FENCED: Final = re.compile(r"\s*(`{3,})(?:json)?[ \t]*\n(.*)\n[ \t]*\1\s*", re.DOTALL)


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class _Change(_Wire):
    parameter: str = Field(max_length=200)
    value: Any
    reason: str = Field(max_length=2000)


class _Prediction(_Wire):
    metric: str = Field(max_length=200)
    low: float
    high: float
    probability: float = Field(ge=0, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> "_Prediction":
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        return self


class _Review(_Wire):
    diagnosis: str = Field(min_length=1, max_length=16_000)
    changes: Annotated[tuple[_Change, ...], Field(strict=False, max_length=32)]
    predictions: Annotated[tuple[_Prediction, ...], Field(strict=False, max_length=32)]
    distrusted_metrics: Annotated[
        tuple[Annotated[str, Field(max_length=200)], ...], Field(strict=False, max_length=32)
    ] = ()
    confidence: float = Field(ge=0, le=1)
    stop: bool = False


def parse_review(text: str) -> Review:
    """The review in a reviewer's raw answer.

    Raises:
        ReviewerError: if the answer is anything but one valid review; the message says why.
    """
    try:
        wire = _Review.model_validate(load_strict(_unwrap(text), max_bytes=_MAX_BYTES))
    except ValidationError as error:
        raise ReviewerError(f"the review is not valid: {_explain(error)}") from error
    except ValueError as error:
        raise ReviewerError(f"the review is not valid JSON: {str(error)[:300]}") from error
    return Review.model_validate(wire.model_dump())


def score_predictions(review: Review, metrics: Iterable[Mapping[str, Any]]) -> tuple[Outcome, ...]:
    """Each prediction of ``review`` against the ``metrics`` of the round that followed."""
    values = {metric["name"]: metric["value"] for metric in metrics}
    outcomes = []
    for prediction in review.predictions:
        actual = values.get(prediction.metric)
        hit = None if actual is None else prediction.low <= actual <= prediction.high
        outcomes.append(Outcome(prediction=prediction, actual=actual, hit=hit))
    return tuple(outcomes)


def review_schema() -> dict[str, Any]:
    """JSON schema of a review, in the subset that strict structured output takes."""
    text, number = {"type": "string"}, {"type": "number"}
    strings = {"type": "array", "items": text}
    change = _object(
        parameter={"type": "string", "enum": list(TUNABLE)},
        value={"anyOf": [number, text, strings]},
        reason=text,
    )
    prediction = _object(
        metric={"type": "string", "enum": list(METRICS)},
        low=number,
        high=number,
        probability=number,
    )
    return _object(
        diagnosis=text,
        changes={"type": "array", "items": change, "maxItems": 8},
        predictions={"type": "array", "items": prediction, "maxItems": 8},
        distrusted_metrics={"type": "array", "items": {"type": "string", "enum": list(METRICS)}},
        confidence=number,
        stop={"type": "boolean"},
    )


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _unwrap(text: str) -> str:
    thinking = _THINKING.match(text)
    body = text[thinking.end() :] if thinking else text
    fenced = _FENCED.fullmatch(body)
    return (fenced.group(2) if fenced else body).strip()


def _explain(error: ValidationError) -> str:
    """Where and why, for the first few faults; the input itself is not repeated."""
    faults = [
        f"{'.'.join(str(part)[:64] for part in fault['loc']) or 'top level'}: {fault['msg'][:200]}"
        for fault in error.errors(include_url=False, include_input=False)[:5]
    ]
    return "; ".join(faults)
