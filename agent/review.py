"""Reading a reviewer's answer: from untrusted text to a typed review, or a reason why not.

The text is judged before it is parsed (size, nesting), parsed strictly (no duplicate keys, no NaN,
no number beyond reach) and then validated (strict types, unknown keys refused). Nothing is
repaired: a truncated answer is no answer. What its changes may do is ``agent/guard.py``'s
decision. What a reviewer thinks aloud is taken off up to the mark that ends it, and so is one code
fence; anything else around the object is refused.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from agent.errors import ReviewerError
from agent.guard import Guarded, guard, usable
from agent.review_records import Outcome, Prediction, Review
from agent.strict_json import load_strict
from pipeline.params import TUNABLE

__all__ = [
    "METRICS",
    "Guarded",
    "brier",
    "guard",
    "parse_review",
    "review_schema",
    "score_predictions",
    "scored",
]

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
_THOUGHT_BEGINS: Final = re.compile(r"\s*(?:<think(?:ing)?>|\[THINK\]|<\|channel\|>analysis)")
_THOUGHT_ENDS: Final = re.compile(
    r"</think(?:ing)?>|\[/THINK\]|<\|channel\|>final(?: ?<\|constrain\|> ?json)?<\|message\|>"
)
_SPOKEN: Final = re.compile(r"<\|(?:return|end)\|>\s*\Z")
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
    return scored((p, values.get(p.metric)) for p in review.predictions)


def scored(foretold: Iterable[tuple[Prediction, float | None]]) -> tuple[Outcome, ...]:
    """What became of predictions, given what was measured; None is unmeasured.

    One that could not fail is not scored, and of several for one metric the first one is: nobody
    makes a name by foretelling what is certain, or the same thing twice.
    """
    outcomes: list[Outcome] = []
    for prediction, actual in foretold:
        again = any(o.prediction.metric == prediction.metric for o in outcomes)
        if actual is None or again or usable(prediction) is not None:
            outcomes.append(Outcome(prediction=prediction, actual=actual, hit=None))
            continue
        hit = prediction.low <= actual <= prediction.high
        score = brier(prediction.probability, hit)
        outcomes.append(Outcome(prediction=prediction, actual=actual, hit=hit, score=score))
    return tuple(outcomes)


def brier(probability: float, hit: bool) -> float:
    """The Brier score of one prediction: 0 is best, a coin gets 0.25, 1 is worst.

    It is proper: nobody expects a better one from saying anything but what they believe (Brier,
    Verification of forecasts expressed in terms of probability, Monthly Weather Review 78, 1950;
    for one event this is half of the original, which sums over both answers).
    """
    return (probability - hit) ** 2


def review_schema() -> dict[str, Any]:
    """JSON schema of a review, in the subset that strict structured output takes.

    Every text and list has an end, since small models whose answers follow a schema find none.
    """
    text, number = {"type": "string"}, {"type": "number"}
    strings = {"type": "array", "items": text | {"maxLength": 32}, "maxItems": 8}
    sentence, metric = text | {"maxLength": 200}, {"type": "string", "enum": list(METRICS)}
    change = _object(
        parameter={"type": "string", "enum": list(TUNABLE)},
        value={"anyOf": [number, text | {"maxLength": 64}, strings]},
        reason=sentence,
    )
    prediction = _object(
        metric=metric,
        low=number,
        high=number,
        probability=number,
    )
    return _object(
        diagnosis=text | {"maxLength": 1000},
        changes={"type": "array", "items": change, "maxItems": 8},
        predictions={"type": "array", "items": prediction, "maxItems": 8},
        distrusted_metrics={"type": "array", "items": metric, "maxItems": len(METRICS)},
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
    """The object, without what the model thought before it and one code fence around it.

    Raises:
        ValueError: if the thoughts do not end.
    """
    body = text
    if not text.lstrip().startswith(("{", "`")):
        ends = [mark.end() for mark in _THOUGHT_ENDS.finditer(text)]
        if not ends and _THOUGHT_BEGINS.match(text):
            raise ValueError("it ends within the model's thoughts")
        body = _SPOKEN.sub("", text[ends[-1] :]) if ends else text
    fenced = _FENCED.fullmatch(body)
    return (fenced.group(2) if fenced else body).strip()


def _explain(error: ValidationError) -> str:
    """Where and why, for the first few faults; the input itself is not repeated."""
    faults = [
        f"{'.'.join(str(part)[:64] for part in fault['loc']) or 'top level'}: {fault['msg'][:200]}"
        for fault in error.errors(include_url=False, include_input=False)[:5]
    ]
    return "; ".join(faults)
