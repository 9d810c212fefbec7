"""This project's in-process engine as a contender, with its forward passes counted."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchmarks.engine import products
from benchmarks.engine.contenders import Traits
from benchmarks.engine.floor import Pass
from benchmarks.engine.setup import Setup
from pipeline.engine.local.hf import HFEngine
from pipeline.types import Completion, GenRequest, Score, ScoreRequest


class Ours:
    """The engine that ``engine.kind: hf`` opens."""

    def __init__(self, setup: Setup) -> None:
        """Load it, and put a counter before its forward pass."""
        passes: Counter[Pass] = Counter()
        self.traits = Traits(passes=passes)
        self._engine = HFEngine.open(setup.spec)
        loaded = self._engine._open()
        self._engine._loaded = replace(loaded, run=_Counting(loaded.run, passes))
        self._products = products.of(loaded.run)

    def generate(self, requests: Sequence[GenRequest]) -> list[Completion]:
        """One completion for each request, in order."""
        return self._engine.generate(requests)

    def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[Score, ...]]:
        """One score for each continuation of each request, in order."""
        return self._engine.score(requests)

    def products_seconds(self, passes: Counter[Pass]) -> float | None:
        """Time of the products alone of these passes; None where they cannot be told apart."""
        if self._products is None:
            return None
        return sum(n * self._products.seconds(made) for made, n in passes.items())


class _Counting:
    """A forward pass that notes its shape."""

    def __init__(self, run: Any, passes: Counter[Pass]) -> None:
        self._run = run
        self._passes = passes

    def __call__(self, ids: Any, cache: Any, *, keep: int = 1, **options: Any) -> Any:
        rows, slots = ids.shape
        self._passes[Pass(rows, slots, min(keep, slots))] += 1
        return self._run(ids, cache, keep=keep, **options)
