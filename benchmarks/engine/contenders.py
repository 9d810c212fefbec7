"""Who takes part: an engine is a contender behind two verbs, opened by its letter."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from benchmarks.engine.floor import Pass
from benchmarks.engine.setup import Setup
from pipeline.types import Completion, EngineInfo, GenRequest, Score, ScoreRequest

OURS: Final = "f"
NAMES: Final = {
    "a": "transformers generate, one prompt at a time",
    "b": "transformers generate, one static batch",
    "c": "transformers generate_batch, continuous",
    "d": "llama.cpp server, 32 slots",
    "e": "vLLM",
    OURS: "this engine",
}


class Absent(Exception):
    """A contender that cannot take part here, with the reason."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What is to be known of a contender beside its speed."""

    notes: tuple[str, ...] = ()
    """What it does not do as asked, and how its figures are to be read."""
    limit: int | None = None
    """Rows of each phase that it does; None is all."""
    scores: bool = True
    """Whether it takes part in scoring."""
    own_memory: bool = True
    """Whether its memory is that of the process which opened it."""
    passes: Counter[Pass] | None = None
    """Forward passes so far, where they are counted; it grows."""


class Contender(Protocol):
    """An engine in its own process."""

    traits: Traits

    def generate(self, requests: Sequence[GenRequest]) -> list[Completion]:
        """One completion for each request, in order; all have the same sampling."""
        ...

    def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[Score, ...]]:
        """One score for each continuation of each request, in order."""
        ...


class Scoring:
    """A contender as critics ask it: it can score any text."""

    info: Final = EngineInfo("benchmark", "", "", "", "", "", context=0, scores="any")

    def __init__(self, contender: Contender) -> None:
        self.score = contender.score


def open_contender(key: str, setup: Setup) -> Contender:
    """Load the contender called ``key``.

    Raises:
        Absent: with the reason why it cannot take part.
    """
    from benchmarks.engine import ours, served, through_transformers

    match key:
        case "a":
            return through_transformers.Static(setup, one_by_one=True)
        case "b":
            return through_transformers.Static(setup)
        case "c":
            return through_transformers.Continuous(setup)
        case "d":
            return served.LlamaCppServer(setup)
        case "e":
            return served.VLLM(setup)
        case "f":
            return ours.Ours(setup)
        case _:
            raise Absent(f"no contender {key!r}; expected some of {', '.join(NAMES)}")
