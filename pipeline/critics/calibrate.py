"""Calibration: what the critics say of planted controls, and the margins that follow from it.

Done once, before the first row, so that no sample can influence the margin that judges it. The
scores are kept, so a margin that somebody chose, or a review proposes, is judged by the same
controls as one that was set here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipeline.critics.controls import critic_controls
from pipeline.critics.margins import Margin, check_margin, lowest_margin, set_margin
from pipeline.critics.scores import instruction_scores, pair_critics, pair_scores
from pipeline.engine.base import Engine
from pipeline.params import CriticParams, GenParams
from pipeline.types import Certificate

UNSCORED = "this server gives no log-probabilities of a text; set engine.scorer or use label"
"""Why a pair critic that was not asked has no margin."""


@dataclass(frozen=True, slots=True)
class Scores:
    """One critic's scores of controls, in nats."""

    good: tuple[float, ...]
    """Of good controls."""
    bad: tuple[float, ...]
    """Of bad ones."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What every critic said of the controls."""

    instruction: Scores
    """Good instructions against statements, shuffled words, cut halves and vague ones."""
    pairs: Mapping[str, Scores]
    """Good pairs against shuffled ones, by pair critic; without those the engine cannot score."""
    max_false_accept: float
    """What the upper 95 % limit of false accepts must stay below."""

    def instruction_margin(self, margin: float | None) -> Margin:
        """The instruction critic at ``margin``, or at the best admissible one."""
        return self._margin(self.instruction, margin)

    def pair_margin(self, critic: str, margin: float | None) -> Margin:
        """A pair critic at ``margin``, or at the best admissible one."""
        if critic not in self.pairs:
            return replace(self._margin(Scores((), ()), None), reason=UNSCORED)
        return self._margin(self.pairs[critic], margin)

    def apply(self, params: GenParams) -> GenParams:
        """The setting with every margin that it leaves open filled in.

        Where none is admissible the margin is 0, and acceptance is uncertified. A pair critic that
        the engine cannot score gives way to the label critic, and its margin with it.
        """
        if params.critic.pair not in self.pairs:
            params = params.replace({"critic.pair": "label", "critic.pair_margin": None})
        critic, filled = params.critic, {}
        if critic.instruction_margin is None:
            filled["critic.instruction_margin"] = self.instruction_margin(None).margin or 0.0
        if critic.pair_margin is None:
            filled["critic.pair_margin"] = self.pair_margin(critic.pair, None).margin or 0.0
        return params.replace(filled)

    def certificates(self, critic: CriticParams) -> dict[str, Certificate]:
        """Certificates of both acceptance metrics at a setting's margins."""
        instruction = self.instruction_margin(critic.instruction_margin)
        pair = self.pair_margin(critic.pair, critic.pair_margin)
        return {
            "instruction_acceptance": instruction.certificate("instruction_acceptance"),
            "pair_acceptance": pair.certificate("pair_acceptance"),
        }

    def floors(self, critic: CriticParams) -> dict[str, float]:
        """Lowest admissible value of each margin that has one: a review may not go below."""
        pair = self.pairs.get(critic.pair, Scores((), ()))
        found = {
            "critic.instruction_margin": self._floor(self.instruction),
            "critic.pair_margin": self._floor(pair),
        }
        return {name: margin for name, margin in found.items() if margin is not None}

    def describe(self) -> str:
        """ROC areas in a line, and which critic could not be asked."""
        areas = {"instruction label": self.instruction_margin(None).auc}
        areas |= {f"pair {name}": self.pair_margin(name, None).auc for name in self.pairs}
        shown = (f"{name} {area:.2f}" for name, area in areas.items() if area is not None)
        unscored = "" if "lift" in self.pairs else f"; pair lift: {UNSCORED}"
        return "ROC area on controls: " + ", ".join(shown) + unscored

    def to_json(self) -> dict[str, Any]:
        """Every score, as JSON."""
        every = {"instruction": self.instruction, **self.pairs}
        scores = {n: {"good": list(s.good), "bad": list(s.bad)} for n, s in every.items()}
        return {"scores": scores, "max_false_accept": self.max_false_accept}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Calibration":
        """The calibration that :meth:`to_json` wrote."""
        scores = {n: Scores(tuple(s["good"]), tuple(s["bad"])) for n, s in value["scores"].items()}
        return cls(scores.pop("instruction"), scores, value["max_false_accept"])

    def _floor(self, scores: Scores) -> float | None:
        if self._margin(scores, None).margin is None:
            return None
        return lowest_margin(scores.good, scores.bad, max_false_accept=self.max_false_accept)

    def _margin(self, scores: Scores, margin: float | None) -> Margin:
        limit = self.max_false_accept
        if margin is None:
            return set_margin(scores.good, scores.bad, max_false_accept=limit)
        return check_margin(margin, scores.good, scores.bad, max_false_accept=limit)


def calibrate(engine: Engine, *, max_false_accept: float) -> Calibration:
    """Have every critic that the engine can score say what it makes of the shipped controls.

    Raises:
        EngineError: if the engine cannot score.
    """
    controls = critic_controls()
    texts = [*controls.good_instructions, *controls.bad_instructions]
    pairs = [*controls.good, *controls.shuffled]
    return Calibration(
        instruction=_split(instruction_scores(engine, texts), len(controls.good_instructions)),
        pairs={
            critic: _split(pair_scores(engine, pairs, critic), len(controls.good))
            for critic in pair_critics(engine.info)
        },
        max_false_accept=max_false_accept,
    )


def _split(scores: list[float], good: int) -> Scores:
    return Scores(tuple(scores[:good]), tuple(scores[good:]))
