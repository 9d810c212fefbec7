"""Critics: the base model's own opinion of an instruction, and of a pair, in nats.

*Label*: after a few-shot rubric, log P("A") - log P("B") of the next token, with and without a
leading space, averaged over both orders of the labels, less the same for content-free texts (Zhao
et al. 2021, contextual calibration). *Lift*: how much likelier a text is where it belongs than in
a neutral place: a response after its instruction than after none, a token; an instruction in a list
of instructions than in a list of statements, in all. Lift measures relevance, not correctness.
Scores only: what they are worth is for controls to say, and ``panel.py`` combines them.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import Final, Literal

from pipeline.engine.base import Engine
from pipeline.types import EngineInfo, Score, ScoreRequest
from prompts.library import fewshot_set, rubric

Subject = Literal["instruction", "pair"]
"""What a critic judges."""
SUBJECTS: Final[tuple[Subject, ...]] = ("instruction", "pair")
BaseCritic = Literal["label", "lift"]
"""A critic that asks the model; ``combined`` is made of these two."""
Pair = tuple[str, str]
"""Instruction and response."""

LABELS: Final = (" A", " B")
"""The two answers, as the next token after ``Answer:``."""
_UNSPACED: Final = ("A", "B")
_CONTENT_FREE: Final = ("N/A", "...")
_NOTHING: Final = "..."
"""What stands where an instruction would."""
_SHOWN: Final = 6
"""Examples in a list of instructions, or of statements."""


def scorable(info: EngineInfo) -> tuple[BaseCritic, ...]:
    """The critics that an engine can score."""
    return ("label", "lift") if info.scores == "any" else ("label",)


def instruction_scores(
    engine: Engine, instructions: Sequence[str], critic: BaseCritic = "label"
) -> list[float]:
    """Score of each instruction by one critic; higher is better."""
    if not instructions:
        return []
    if critic == "label":
        return _labels(engine, "instruction", [(text,) for text in instructions])
    asked, stated = (
        _texts(engine, [(f"{form}:", text) for text in instructions], prefix=_listed(form))
        for form in ("Instruction", "Text")
    )
    return [a.logprob - s.logprob for a, s in zip(asked, stated, strict=True)]


def pair_scores(engine: Engine, pairs: Sequence[Pair], critic: BaseCritic) -> list[float]:
    """Score of each pair by one critic; higher is better."""
    if not pairs:
        return []
    if critic == "label":
        return _labels(engine, "pair", pairs)
    after = _texts(engine, [(_asked(i), r) for i, r in pairs])
    alone = _texts(engine, [(_asked(_NOTHING), r) for _, r in pairs])
    return [a.mean - n.mean for a, n in zip(after, alone, strict=True)]


def _asked(instruction: str) -> str:
    return f"Instruction: {instruction}\nResponse:"


@cache
def _listed(form: str) -> str:
    """A list of instructions, or of what is none."""
    shown = fewshot_set("core")[:_SHOWN]
    lines = [e.instruction if form == "Instruction" else e.response.split("\n")[0] for e in shown]
    return "".join(f"{form}: {line}\n\n" for line in lines)


def _texts(engine: Engine, rows: Sequence[tuple[str, str]], *, prefix: str = "") -> list[Score]:
    """Score of each text after the prefix and its own prompt; equal rows are scored once."""
    once = list(dict.fromkeys(rows))
    found = engine.score([ScoreRequest(prefix, prompt, (f" {text}",)) for prompt, text in once])
    known = {row: scores[0] for row, scores in zip(once, found, strict=True)}
    return [known[row] for row in rows]


def _labels(engine: Engine, subject: Subject, rows: Sequence[tuple[str, ...]]) -> list[float]:
    """Log-odds of the good label in both orders, less what a text without content gets."""
    free = [(text,) * len(rows[0]) for text in _CONTENT_FREE]
    suffixes = [_question(subject, row) for row in (*rows, *free)]
    spellings = (LABELS, _UNSPACED) if engine.info.scores == "any" else (LABELS,)
    labels = tuple(label for pair in spellings for label in pair)
    requests = [
        ScoreRequest(rubric(subject, yes=yes, no=no), suffix, labels)
        for yes, no in (("A", "B"), ("B", "A"))
        for suffix in suffixes
    ]
    odds = [_log_odds(scores) for scores in engine.score(requests)]
    count = len(suffixes)
    mean = [(first - turned) / 2 for first, turned in zip(odds[:count], odds[count:], strict=True)]
    bias = math.fsum(mean[len(rows) :]) / len(free)
    return [value - bias for value in mean[: len(rows)]]


def _question(subject: Subject, row: Sequence[str]) -> str:
    if subject == "instruction":
        return f"Text: {row[0]}\nAnswer:"
    return f"Instruction: {row[0]}\nResponse: {row[1]}\nAnswer:"


def _log_odds(scores: Sequence[Score]) -> float:
    """Of A over B, each with all of its spellings."""
    a, b = (_logsumexp([s.logprob for s in scores[place::2]]) for place in (0, 1))
    return a - b


def _logsumexp(values: Sequence[float]) -> float:
    top = max(values)
    return top + math.log(math.fsum(math.exp(v - top) for v in values))
