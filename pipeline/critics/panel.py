"""The panel: every critic that scores rows, by name, the combined one among them.

For whoever needs scores and not certificates: generation, replay, ``qc``. A calibration makes a
panel (``Calibration.panel``); ``Panel.of`` makes one without a combination.

    panel.score_pairs(engine, pairs)         -> [{"label": .., "lift": .., "combined": ..}, ..]
    panel.score_instructions(engine, texts)  -> the same for instructions

The one idea: a combined score is a fixed weighted sum of the others, so whoever holds the stored
scores of a row can compute it again without an engine (``Combination.score``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pipeline.critics.scores import (
    BaseCritic,
    Pair,
    Subject,
    instruction_scores,
    pair_scores,
    scorable,
)
from pipeline.engine.base import Engine
from pipeline.types import EngineInfo

COMBINED = "combined"
"""Name of the critic that is a weighted sum of the others."""
CRITICS: Final = ("label", "lift", COMBINED)
"""Every critic, simple ones first."""


@dataclass(frozen=True, slots=True)
class Combination:
    """Log-odds that a row is good, from the scores of other critics."""

    weights: Mapping[str, float]
    """By critic, per nat."""
    bias: float
    """What is added."""

    def score(self, scores: Mapping[str, float]) -> float:
        """The combined score of a row whose other scores are known."""
        return self.bias + sum(weight * scores[name] for name, weight in self.weights.items())

    def to_json(self) -> dict[str, Any]:
        """A JSON object with every field."""
        return {"weights": dict(self.weights), "bias": self.bias}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Combination":
        """The combination that :meth:`to_json` wrote."""
        return cls(dict(value["weights"]), value["bias"])


@dataclass(frozen=True, slots=True)
class Panel:
    """Which critics score instructions and pairs."""

    instruction: tuple[str, ...]
    """Critics of instructions."""
    pair: tuple[str, ...]
    """Critics of pairs."""
    combinations: Mapping[Subject, Combination] = field(default_factory=dict)
    """How ``combined`` is made, where it is one of them."""

    @classmethod
    def of(cls, info: EngineInfo) -> "Panel":
        """Every critic that an engine can score, nothing combined."""
        return cls(scorable(info), scorable(info))

    @classmethod
    def naming(cls, *, instruction: str, pair: str) -> "Panel":
        """One critic for each, neither of them combined."""
        return cls((), ()).only(instruction=instruction, pair=pair)

    def only(self, *, instruction: str, pair: str) -> "Panel":
        """The same panel with one critic for each: the ones that decide."""
        for subject, critic in (("instruction", instruction), ("pair", pair)):
            assert critic != "auto", f"the {subject} critic is named before the first row"
        return replace(self, instruction=(instruction,), pair=(pair,))

    def score_instructions(
        self, engine: Engine, instructions: Sequence[str]
    ) -> list[dict[str, float]]:
        """Every critic's score of each instruction, by name."""
        asked: dict[str, list[float]] = {
            critic: instruction_scores(engine, instructions, critic)
            for critic in self._asked("instruction")
        }
        return self._by_row("instruction", asked, len(instructions))

    def score_pairs(self, engine: Engine, pairs: Sequence[Pair]) -> list[dict[str, float]]:
        """Every critic's score of each pair, by name."""
        asked: dict[str, list[float]] = {
            critic: pair_scores(engine, pairs, critic) for critic in self._asked("pair")
        }
        return self._by_row("pair", asked, len(pairs))

    def _named(self, subject: Subject) -> tuple[str, ...]:
        return self.instruction if subject == "instruction" else self.pair

    def _asked(self, subject: Subject) -> list[BaseCritic]:
        named = self._named(subject)
        base: tuple[BaseCritic, ...] = ("label", "lift")
        return [critic for critic in base if critic in named or COMBINED in named]

    def _by_row(
        self, subject: Subject, asked: Mapping[str, Sequence[float]], rows: int
    ) -> list[dict[str, float]]:
        found = [{critic: scores[row] for critic, scores in asked.items()} for row in range(rows)]
        if COMBINED not in self._named(subject):
            return found
        combination = self.combinations[subject]
        return [scores | {COMBINED: combination.score(scores)} for scores in found]
