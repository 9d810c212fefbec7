"""Calibration: which critics a run may believe, at which margins, and why.

What a critic sees is certified on people's texts (``control_scores.py``); margins come from the
run's own rows where there are enough (``own_controls.py``). The one idea: the scores themselves are
kept, so a critic or a margin that somebody chose, that a review proposes or that replay tries is
judged by the same controls as one that was set here.

``panel()`` scores rows; ``apply`` fills in a setting; ``certificates`` and ``report`` say what the
scores are worth; ``to_json`` keeps it all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from pipeline.critics.choice import Choice, choose, sees
from pipeline.critics.control_scores import ControlScores, Scores, score_controls
from pipeline.critics.controls import REQUIRED
from pipeline.critics.margins import Margin, check_margin, lowest_margin, set_margin
from pipeline.critics.own_controls import FEWEST
from pipeline.critics.panel import CRITICS, Panel
from pipeline.critics.scores import SUBJECTS, Subject
from pipeline.engine.base import Engine
from pipeline.params import CriticParams, GenParams
from pipeline.types import Certificate

UNSCORED: Final = "this server gives no log-probabilities of a text; set engine.scorer or use label"
"""Why a critic that was not asked has no margin."""
_OPEN: Final = -20.0
"""The loosest margin that a setting can hold: nearly everything is let through."""
_OWN: Final = "the run's own rows"
_SHIPPED: Final = "shipped controls"


@dataclass(frozen=True, slots=True)
class Calibration:
    """What every critic said of the controls."""

    controls: ControlScores
    """Scores of people's texts, good and spoilt."""
    max_false_accept: float
    """What the upper 95 % limit of false accepts must stay below."""
    own: Mapping[Subject, Mapping[str, Scores]] = field(default_factory=dict)
    """Scores of the run's own rows, good and spoilt; empty without a probe."""

    def choice(self, subject: Subject, wish: str = "auto") -> Choice:
        """The critic that judges a subject, and why."""
        return choose(subject, self.controls.by_critic[subject], wish=wish)

    def panel(self) -> Panel:
        """Every critic that has been calibrated, to score rows with."""
        return self.controls.panel()

    def deciding(self, critic: CriticParams) -> Panel:
        """Only the two critics that decide at a setting."""
        return self.panel().only(instruction=critic.instruction, pair=critic.pair)

    def margin(self, subject: Subject, critic: str, margin: float | None = None) -> Margin:
        """A critic at ``margin``, or at the best admissible one.

        It has none where the critic does not see the fault that acceptance needs.
        """
        scores = self.controls.by_critic[subject].get(critic)
        good, bad, _ = self.judged_by(subject, critic)
        found = (
            set_margin(good, bad, max_false_accept=self.max_false_accept)
            if margin is None
            else check_margin(margin, good, bad, max_false_accept=self.max_false_accept)
        )
        if scores is None:
            return found.because(UNSCORED)
        if not sees(subject, critic, scores):
            return found.because(f"{critic} does not surely see {REQUIRED[subject]} controls")
        return found

    def margin_source(self, subject: Subject, critic: str) -> str:
        """Where margins of a critic come from."""
        return self.judged_by(subject, critic)[2]

    def apply(self, params: GenParams) -> GenParams:
        """The setting with its critics named and every margin that it leaves open filled in.

        Where none is admissible every row is let through, and acceptance is unmeasured: a critic
        that is not to be believed drops nothing. A margin that was written for a critic that the
        engine cannot score goes with it.
        """
        for subject in SUBJECTS:
            name, at = f"critic.{subject}", f"critic.{subject}_margin"
            wish, critic = params.get(name), self.choice(subject, str(params.get(name))).critic
            params = params.replace({name: critic})
            if params.get(at) is None or wish not in {critic, "auto"}:
                margin = self.margin(subject, critic).margin
                params = params.replace({at: _OPEN if margin is None else margin})
        return params

    def certificates(self, critic: CriticParams) -> dict[str, Certificate]:
        """Certificates of both acceptance metrics at a setting's critics and margins."""
        return {
            f"{subject}_acceptance": margin.certificate(f"{subject}_acceptance")
            for subject, margin in self._at(critic).items()
        }

    def floors(self, critic: CriticParams) -> dict[str, float]:
        """Lowest admissible value of each margin that has one: a review may not go below."""
        found = {f"critic.{s}_margin": self._floor(s, getattr(critic, s)) for s in SUBJECTS}
        return {name: floor for name, floor in found.items() if floor is not None}

    def report(self, critic: CriticParams) -> dict[str, Any]:
        """What people are told of the critics at a setting, as JSON."""
        faults = [
            certificate.to_json()
            for subject, by_critic in self.controls.by_critic.items()
            for name, scores in by_critic.items()
            for certificate in scores.certificates(subject, name)
        ]
        own = [
            replace(scores.certificate(subject, name, fault), fault=f"own {fault}").to_json()
            for subject, by_critic in self.own.items()
            for name, scores in by_critic.items()
            for fault in scores.bad
        ]
        used = {s: self._used(s, getattr(critic, s), m) for s, m in self._at(critic).items()}
        faults.sort(key=lambda f: (f["subject"], f["fault"] != REQUIRED[f["subject"]], f["fault"]))
        return {"faults": faults + own, "used": used}

    def describe(self, critic: CriticParams) -> str:
        """The critics of a setting in a line."""
        parts = []
        for subject, margin in self._at(critic).items():
            name = getattr(critic, subject)
            state = "" if margin.margin is not None else f" (uncertified: {margin.reason})"
            at, source = getattr(critic, f"{subject}_margin"), self.margin_source(subject, name)
            parts.append(f"{subject}s by {name} above {at:.2f}, from {source}{state}")
        return "; ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON."""
        own = {s: {c: v.to_json() for c, v in found.items()} for s, found in self.own.items()}
        controls = self.controls.to_json()
        return {"controls": controls, "max_false_accept": self.max_false_accept, "own": own}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Calibration":
        """The calibration that :meth:`to_json` wrote."""
        own = value["own"]
        return cls(
            ControlScores.from_json(value["controls"]),
            value["max_false_accept"],
            {
                s: {c: Scores.from_json(own[s][c]) for c in CRITICS if c in own[s]}
                for s in SUBJECTS
                if s in own
            },
        )

    def _at(self, critic: CriticParams) -> dict[Subject, Margin]:
        return {
            s: self.margin(s, getattr(critic, s), getattr(critic, f"{s}_margin")) for s in SUBJECTS
        }

    def _used(self, subject: Subject, critic: str, margin: Margin) -> dict[str, Any]:
        best = self.choice(subject)
        why = best.why if best.critic == critic else self.choice(subject, critic).why
        source = self.margin_source(subject, critic)
        at = {"source": source, "floor": self._floor(subject, critic)}
        return {"critic": critic, "why": why} | at | asdict(margin)

    def _floor(self, subject: Subject, critic: str) -> float | None:
        if self.margin(subject, critic).margin is None:
            return None
        good, bad, _ = self.judged_by(subject, critic)
        return lowest_margin(good, bad, max_false_accept=self.max_false_accept)

    def judged_by(
        self, subject: Subject, critic: str
    ) -> tuple[Sequence[float], Sequence[float], str]:
        """Good and bad scores that margins of a critic are set from, and where they come from.

        Pairs: shuffled ones. Instructions: all faults that the critic sees, of people's texts.
        """
        scores = self.controls.by_critic[subject].get(critic)
        if scores is None:
            return (), (), _SHIPPED
        own = self.own.get(subject, {}).get(critic, Scores((), {}))
        enough = len(own.good) >= FEWEST
        if subject == "instruction":
            seen = [c.fault for c in scores.certificates(subject, critic) if c.seen]
            bad = scores.pooled(seen or scores.bad)
            source = f"{_OWN} against {_SHIPPED}" if enough else _SHIPPED
            return (own.good if enough else scores.good), bad, source
        needed = REQUIRED[subject]
        if enough and len(own.bad.get(needed, ())) >= FEWEST:
            return own.good, own.bad[needed], _OWN
        return scores.good, scores.bad[needed], _SHIPPED


def calibrate(engine: Engine, *, max_false_accept: float) -> Calibration:
    """Have every critic that the engine can score say what it makes of the shipped controls.

    Raises:
        EngineError: if the engine cannot score.
    """
    return Calibration(score_controls(engine), max_false_accept)
