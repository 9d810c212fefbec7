"""Critics: the base model's own opinion of an instruction, and of a pair.

*Label*: after a few-shot rubric, log P(" A") - log P(" B") of the next token. *Lift*: how much
likelier the response is after its instruction than after "..." in its place, in nats a token; it
measures relevance, not correctness. Scores only; what they are worth is for controls to say.
"""

from collections.abc import Sequence
from typing import Literal

from pipeline.engine.base import Engine
from pipeline.types import EngineInfo, Score, ScoreRequest
from prompts.library import rubric

LABELS = (" A", " B")
CriticName = Literal["label", "lift"]
Pair = tuple[str, str]
"""Instruction and response."""


def pair_critics(info: EngineInfo) -> tuple[CriticName, ...]:
    """The pair critics that an engine can score."""
    return ("label", "lift") if info.scores == "any" else ("label",)


def instruction_scores(engine: Engine, instructions: Sequence[str]) -> list[float]:
    """Label score of each instruction in nats; higher is better."""
    return _labels(engine, rubric("instruction"), [f"Text: {i}\nAnswer:" for i in instructions])


def pair_scores(engine: Engine, pairs: Sequence[Pair], critic: CriticName) -> list[float]:
    """Score of each pair by one critic, in nats; higher is better."""
    if critic == "label":
        suffixes = [f"Instruction: {i}\nResponse: {r}\nAnswer:" for i, r in pairs]
        return _labels(engine, rubric("pair"), suffixes)
    with_instruction = _response_scores(engine, pairs)
    without = _response_scores(engine, [("...", response) for _, response in pairs])
    return [w.mean - o.mean for w, o in zip(with_instruction, without, strict=True)]


def _response_scores(engine: Engine, pairs: Sequence[Pair]) -> list[Score]:
    requests = [ScoreRequest("", f"Instruction: {i}\nResponse:", (f" {r}",)) for i, r in pairs]
    return [scores[0] for scores in engine.score(requests)]


def _labels(engine: Engine, prefix: str, suffixes: Sequence[str]) -> list[float]:
    scores = engine.score([ScoreRequest(prefix, suffix, LABELS) for suffix in suffixes])
    return [a.logprob - b.logprob for a, b in scores]
