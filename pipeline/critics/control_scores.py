"""What every critic makes of people's texts: scores of the shipped controls, by kind of fault.

These are what certificates are made of, and what is kept from run to run (``kept.py``). The one
idea: the combined critic is fitted on every other control and scored on the rest, so nothing that
it is judged by has shaped it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from pipeline.critics.areas import FaultCertificate, area
from pipeline.critics.combine import fit
from pipeline.critics.controls import Controls, instruction_controls, pair_controls
from pipeline.critics.panel import COMBINED, CRITICS, Combination, Panel
from pipeline.critics.scores import SUBJECTS, Subject
from pipeline.engine.base import Engine

MINIMUM_AREA: Final = 0.75
"""What the lower 90 % limit of a ROC area must reach for a critic to see a fault."""
_DIGITS: Final = 6
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Scores:
    """One critic's scores of controls."""

    good: tuple[float, ...]
    """Of good controls."""
    bad: Mapping[str, tuple[float, ...]]
    """Of bad ones, by kind of fault."""

    def every_other(self, first: int) -> "Scores":
        """The scores of one half of the controls: every other one, from ``first``, 0 or 1."""
        return Scores(self.good[first::2], {f: s[first::2] for f, s in self.bad.items()})

    def pooled(self, faults: Iterable[str]) -> tuple[float, ...]:
        """Scores of all bad controls with these faults."""
        return tuple(score for fault in faults for score in self.bad[fault])

    def certificate(self, subject: str, critic: str, fault: str) -> FaultCertificate:
        """What the critic shows on one kind of fault."""
        bad = self.bad.get(fault, ())
        found = area(self.good, bad)
        named = FaultCertificate(subject, critic, fault, len(self.good), len(bad))
        if found is None:
            return named
        seen = found.low >= MINIMUM_AREA
        return replace(named, area=found.value, low=found.low, high=found.high, seen=seen)

    def certificates(self, subject: str, critic: str) -> tuple[FaultCertificate, ...]:
        """What it shows on every kind of fault."""
        return tuple(self.certificate(subject, critic, fault) for fault in self.bad)

    def to_json(self) -> dict[str, Any]:
        """Every score, as JSON."""
        return {"good": list(self.good), "bad": {f: list(s) for f, s in self.bad.items()}}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Scores":
        """The scores that :meth:`to_json` wrote."""
        return cls(tuple(value["good"]), {f: tuple(s) for f, s in value["bad"].items()})


@dataclass(frozen=True, slots=True)
class ControlScores:
    """Every critic's scores of people's texts, and how the combined ones are made."""

    by_critic: Mapping[Subject, Mapping[str, Scores]]
    """Scores by subject and critic; of the combined one on the half it was not fitted to."""
    combinations: Mapping[Subject, Combination]
    """How the combined critics are made; empty where there is but one critic."""

    def panel(self) -> Panel:
        """Every critic that has scores here."""
        named = {subject: tuple(scores) for subject, scores in self.by_critic.items()}
        return Panel(named["instruction"], named["pair"], self.combinations)

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON."""
        return {
            "scores": {
                subject: {critic: s.to_json() for critic, s in by_critic.items()}
                for subject, by_critic in self.by_critic.items()
            },
            "combinations": {s: c.to_json() for s, c in self.combinations.items()},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "ControlScores":
        """What :meth:`to_json` wrote."""
        kept, combined = value["scores"], value["combinations"]
        return cls(
            {
                subject: {
                    c: Scores.from_json(kept[subject][c]) for c in CRITICS if c in kept[subject]
                }
                for subject in SUBJECTS
            },
            {s: Combination.from_json(combined[s]) for s in SUBJECTS if s in combined},
        )


def score_controls(engine: Engine) -> ControlScores:
    """Have every critic that the engine can score say what it makes of the shipped controls.

    Raises:
        EngineError: if the engine cannot score.
    """
    asked = Panel.of(engine.info)
    instructions, pairs = instruction_controls(), pair_controls()
    return with_combinations(
        {
            "instruction": scored(
                instructions, lambda items: asked.score_instructions(engine, items)
            ),
            "pair": scored(pairs, lambda items: asked.score_pairs(engine, items)),
        }
    )


def scored(
    controls: Controls[Item], score: Callable[[Sequence[Item]], list[dict[str, float]]]
) -> dict[str, Scores]:
    """Scores of controls by critic, from one call that scores them all."""
    rows = score(controls.items)
    critics = list(rows[0]) if rows else []
    return {c: _parted([round(row[c], _DIGITS) for row in rows], controls) for c in critics}


def _parted(scores: Sequence[float], controls: Controls[Item]) -> Scores:
    ends = iter(scores)
    good = tuple(next(ends) for _ in controls.good)
    return Scores(good, {f: tuple(next(ends) for _ in bad) for f, bad in controls.bad.items()})


def with_combinations(by_critic: Mapping[Subject, Mapping[str, Scores]]) -> ControlScores:
    """The scores with a combined critic beside them wherever there are several to combine."""
    combinations = {s: _fitted(found) for s, found in by_critic.items() if len(found) > 1}
    whole = {
        subject: {**found, COMBINED: _combined(found, combinations[subject])}
        if subject in combinations
        else dict(found)
        for subject, found in by_critic.items()
    }
    return ControlScores(whole, combinations)


def _fitted(by_critic: Mapping[str, Scores]) -> Combination:
    """Fitted on the first half of the controls."""
    halves = {critic: scores.every_other(0) for critic, scores in by_critic.items()}
    faults = [f for f, scores in next(iter(halves.values())).bad.items() if scores]
    good = {critic: half.good for critic, half in halves.items()}
    return fit(good, {f: {critic: half.bad[f] for critic, half in halves.items()} for f in faults})


def _combined(by_critic: Mapping[str, Scores], combination: Combination) -> Scores:
    """The combined scores of the second half."""
    halves = {critic: scores.every_other(1) for critic, scores in by_critic.items()}

    def together(columns: Mapping[str, Sequence[float]]) -> tuple[float, ...]:
        rows = zip(*columns.values(), strict=True)
        named = (dict(zip(columns, row, strict=True)) for row in rows)
        return tuple(round(combination.score(row), _DIGITS) for row in named)

    faults = next(iter(halves.values())).bad
    return Scores(
        together({critic: half.good for critic, half in halves.items()}),
        {f: together({c: half.bad[f] for c, half in halves.items()}) for f in faults},
    )
