"""A server that writes beside a local model that scores, as one engine.

For servers that do not give the log-probabilities of a text. What the scores are worth is for
controls to say, as with any critic; the scorer's own digest is part of the engine's.
"""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace

from pipeline.engine.base import Engine, EngineSpec, Leased, Replan, Replanning, Stoppable
from pipeline.types import Completion, EngineInfo, GenRequest, Score, ScoreRequest


class WithScorer:
    """Two engines as one: ``engine`` generates and counts tokens, ``scorer`` scores."""

    def __init__(self, engine: Engine, scorer: Engine) -> None:
        """Both are closed with this engine."""
        self._engine = engine
        self._scorer = scorer

    @property
    def info(self) -> EngineInfo:
        """The generating engine, with the digest of both, and how the scorer scores."""
        made, judged = self._engine.info, self._scorer.info
        both = hashlib.sha256(f"{made.digest} {judged.digest}".encode()).hexdigest()
        return replace(made, digest=both, scores=judged.scores, batch_size=judged.batch_size)

    @property
    def replans(self) -> tuple[Replan, ...]:
        """Every re-plan of the scorer."""
        return self._scorer.replans if isinstance(self._scorer, Replanning) else ()

    def generate(self, requests: Sequence[GenRequest]) -> list[Completion]:
        """One completion for each request, by the generating engine."""
        return self._engine.generate(requests)

    def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[Score, ...]]:
        """Scores of the continuations, by the scorer."""
        return self._scorer.score(requests)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text by the generating engine's tokenizer."""
        return self._engine.count_tokens(texts)

    def lease(self, seconds: float) -> None:
        """Both work under the same lease, one after the other."""
        for engine in (self._engine, self._scorer):
            if isinstance(engine, Leased):
                engine.lease(seconds)

    def stop(self) -> None:
        """Stop whichever can be stopped."""
        for engine in (self._engine, self._scorer):
            if isinstance(engine, Stoppable):
                engine.stop()

    def close(self) -> None:
        """Close both, the second also if the first fails."""
        with ExitStack() as stack:
            stack.callback(self._scorer.close)
            stack.callback(self._engine.close)


def scorer_spec(spec: EngineSpec) -> EngineSpec | None:
    """The local model that ``spec.scorer`` names, on the same device; None without one."""
    if spec.scorer is None:
        return None
    return replace(spec, kind="hf", model=spec.scorer, scorer=None, base_url=None, api_key=None)


def open_with_scorer(spec: EngineSpec, open_engine: Callable[[EngineSpec], Engine]) -> Engine:
    """Open the engine of ``spec``, beside its scorer if it names one.

    Args:
        spec: The engine, and perhaps a scorer.
        open_engine: Opens an engine without a scorer.

    Raises:
        EngineError: if either cannot be opened; none is left open.
    """
    local = scorer_spec(spec)
    engine = open_engine(replace(spec, scorer=None))
    if local is None:
        return engine
    with ExitStack() as stack:
        stack.callback(engine.close)
        scorer = open_engine(local)
        stack.pop_all()
    return WithScorer(engine, scorer)
