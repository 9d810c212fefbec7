"""Which critic a run uses, and why: the best of those that are certified.

A critic is certified when it sees the fault that its acceptance stands for: a shuffled answer for
pairs, a statement for instructions. The one idea: critics are compared on the half of the controls
that the combined one was not fitted to, so it is used only where it truly beats what it is made of.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.critics.control_scores import Scores
from pipeline.critics.controls import REQUIRED
from pipeline.critics.panel import COMBINED, CRITICS
from pipeline.critics.scores import Subject


@dataclass(frozen=True, slots=True)
class Choice:
    """The critic that judges one subject."""

    critic: str
    """Its name."""
    certified: bool
    """Whether it sees the fault that acceptance needs."""
    why: str
    """Why it and no other, in a sentence."""


def choose(subject: Subject, scores: Mapping[str, Scores], *, wish: str = "auto") -> Choice:
    """The critic that ``wish`` names, or the best certified one.

    Best is what sees most kinds of fault, then what parts the needed one best, then what is
    simplest. A critic that the engine cannot score gives way to the label critic.
    """
    scores = {name: scores[name] for name in CRITICS if name in scores}
    certified = [name for name in scores if sees(subject, name, scores[name])]
    if wish != "auto":
        named = wish if wish in scores else "label"
        why = "it is what the configuration names"
        if named != wish:
            why = f"{wish} needs log-probabilities of a text, which this server does not give"
        return Choice(named, named in certified, why)
    if not certified:
        named = "lift" if "lift" in scores else "label"
        why = f"no critic surely sees {REQUIRED[subject]} controls, so none is certified"
        return Choice(named, False, why)
    halves = {n: s if n == COMBINED else s.every_other(1) for n, s in scores.items()}
    best = max(certified, key=lambda name: _merit(subject, name, halves[name]))
    return Choice(best, True, _praise(subject, best, halves))


def sees(subject: Subject, critic: str, scores: Scores) -> bool:
    """Whether a critic sees the fault that acceptance needs."""
    return scores.certificate(subject, critic, REQUIRED[subject]).seen


def _merit(subject: Subject, critic: str, scores: Scores) -> tuple[int, float]:
    needed = scores.certificate(subject, critic, REQUIRED[subject])
    return sum(c.seen for c in scores.certificates(subject, critic)), needed.low or 0.0


def _praise(subject: Subject, best: str, halves: Mapping[str, Scores]) -> str:
    needed = REQUIRED[subject]

    def shown(critic: str) -> str:
        count, _ = _merit(subject, critic, halves[critic])
        area = halves[critic].certificate(subject, critic, needed).area
        of = len(halves[critic].bad)
        return f"{critic} sees {count} of {of} kinds of fault, {needed} with area {area:.2f}"

    others = "; ".join(shown(name) for name in halves if name != best)
    return shown(best) + (f" ({others})" if others else "") + ", on half of the controls"
