"""What the built-in rules know when they decide: one round's figures, and what history forbids.

The round that is treated is the one whose setting the changes apply to: the last one, or the best
earlier one if the last one was clearly worse (``agent/best.py``). The one idea: whatever led away
from it to a clearly worse round is barred.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, Final

from agent.best import base as base_of
from agent.best import clearly_worse
from agent.records import RoundRecord
from agent.review_records import StopDryRun
from agent.reviewers.markers import Row
from pipeline.critics.scores import SUBJECTS
from pipeline.params import TUNABLE, GenParams, ParamValue

GATES: Final = (
    "runaway",
    "delimiter_leak",
    "token_limit",
    "repetition",
    "truncated",
    "empty",
    "instruction_acceptance",
    "pair_acceptance",
    "yield",
)
"""The gates in the order in which the rules treat them."""
_MANY_DUPLICATES: Final = 0.2
SOME_DUPLICATES: Final = 0.05
"""Share of repeats below which a short yield has other reasons."""
_ENOUGH_BAD_ROWS: Final = 3
_MANY_ROWS: Final = 200
_HALF: Final = 0.5


@dataclass(frozen=True, slots=True)
class Evidence:
    """The round to treat, and what may not be tried again from it."""

    record: RoundRecord
    """The round whose troubles are treated and whose settings are built upon."""
    barred: frozenset[tuple[str, str]]
    """Parameters with the direction (or value) that made things worse."""
    dry_runs: tuple[StopDryRun, ...] = ()
    """What each string would do to all rows stored by now; empty where none was asked."""

    @property
    def params(self) -> GenParams:
        """The settings that are built upon."""
        return self.record.params

    @property
    def flagged(self) -> tuple[Row, ...]:
        """Flagged rows that were shown, of both kinds of sample, each once."""
        rows = (*self.record.flagged_samples, *self.record.random_samples)
        return tuple({row["index"]: row for row in rows if row["flags"]}.values())

    @property
    def good(self) -> tuple[Row, ...]:
        """Shown rows that no detector flagged."""
        return tuple(row for row in self.record.random_samples if not row["flags"])

    def flagged_by(self, flag: str) -> tuple[Row, ...]:
        """Flagged rows with one ``flag``."""
        return tuple(row for row in self.flagged if flag in row["flags"])

    def ended_by(self, stop: str) -> float:
        """Share of all responses that one stop string ended."""
        return self.record.stops.get(stop, 0) / max(sum(self.record.stops.values()), 1)

    def judged(self, subject: str) -> Mapping[str, Any]:
        """What controls say of the margin in use; empty where none was set."""
        used = (self.record.critics or {}).get("used", {})
        return used.get(subject) or {}

    def rejects_good(self, subject: str) -> bool:
        """Whether the margin in use rejects most good controls and its gate does not pass."""
        accepted = self.judged(subject).get("true_accept")
        rejects = accepted is not None and accepted < _HALF
        return rejects and not self.passes(f"{subject}_acceptance")

    def rejection(self, subject: str) -> str:
        """What is wrong with a margin that :meth:`rejects_good`, in words."""
        margin = self.params.get(f"critic.{subject}_margin")
        share = self.judged(subject)["true_accept"]
        return f"the {subject} margin of {margin} accepts {share:.0%} of good controls"

    def passes(self, gate: str) -> bool:
        """Whether a gate passed."""
        metric = self.record.metric(gate)
        return metric is not None and metric["verdict"] == "PASS"

    def value(self, name: str) -> float | None:
        """A metric's value; None if it was not measured."""
        metric = self.record.metric(name)
        return None if metric is None else metric["value"]

    def rate(self, name: str) -> float:
        """A measured metric's value."""
        value = self.value(name)
        assert value is not None, name
        return value

    def limit(self, name: str) -> float:
        """The number in a gate's threshold."""
        metric = self.record.metric(name)
        assert metric is not None and metric["threshold"], name
        return float(metric["threshold"].split()[-1])

    def count(self, name: str) -> str:
        """A metric with its count, limit and verdict, in words."""
        metric = self.record.metric(name)
        assert metric is not None
        limit = f"; wanted {metric['threshold']}" if metric["threshold"] else ""
        if metric["count"] is None:
            return f"{name} {metric['value']:,.0f}{limit}"
        return f"{name} {metric['count']}/{metric['n']} ({metric['value']:.1%}{limit})"

    def troubles(self) -> tuple[str, ...]:
        """Gates to treat, in order: those that fail or are on the wrong side of their limit.

        Those whose decision would cost a long pilot come last.
        Where the instruction margin is at fault nothing else can be told from the rows.
        """
        if self.rejects_good("instruction"):
            return ("instruction_acceptance",)
        found = [name for name in GATES if self._troubled(name)]
        duplicates = self.value("duplicates") or 0.0
        if "yield" in found and len(found) > 1 and duplicates < SOME_DUPLICATES:
            found.remove("yield")  # rows are lost to the other troubles, not to repetition
        if "yield" not in found and duplicates >= _MANY_DUPLICATES:
            found.append("yield")
        if not self.record.funnel.get("accepted", 1) and "instruction_acceptance" not in found:
            found.append("instruction_acceptance")
        if not found:
            return self._undecided()
        return (*found, *(n for n in GATES if n not in found and self._is_costly(n)))

    def uncertified(self) -> tuple[str, ...]:
        """Gates whose detector or critic says nothing here, and to which no margin is to blame."""
        cured = {f"{s}_acceptance" for s in SUBJECTS if self.rejects_good(s)}
        names = (m["name"] for m in self.record.metrics if _is_uncertified(m))
        return tuple(name for name in names if name not in cured)

    def bars(self, name: str, value: ParamValue) -> bool:
        """Whether moving ``name`` to ``value`` was already found to make things worse."""
        return (name, _direction(self.params.get(name), value)) in self.barred

    def _troubled(self, name: str) -> bool:
        if name == "pair_acceptance" and self.rejects_good("pair"):
            return True
        metric = self.record.metric(name)
        if metric is None or metric["value"] is None or _is_uncertified(metric):
            return False
        if metric["verdict"] == "INSUFFICIENT":
            few = metric["threshold"].startswith("<") and (metric["count"] or 0) < _ENOUGH_BAD_ROWS
            return not few and not _on_the_right_side(metric)
        return bool(metric["verdict"] == "FAIL")

    def _is_costly(self, name: str) -> bool:
        """Whether a gate is so near its limit that deciding it would more than double a pilot."""
        metric = self.record.metric(name)
        if metric is None or metric["verdict"] != "INSUFFICIENT" or _is_uncertified(metric):
            return False
        seen = metric["n"] >= _MANY_ROWS and (metric["count"] or 0) >= _ENOUGH_BAD_ROWS
        return bool(seen and (metric["rows_needed"] or 0) > metric["n"])

    def _undecided(self) -> tuple[str, ...]:
        """Where nothing is wrong but something is undecided: the gate nearest to its limit."""
        metrics = (self.record.metric(name) for name in GATES)
        close = [
            (_distance(m), m["name"])
            for m in metrics
            if m is not None
            and m["verdict"] == "INSUFFICIENT"
            and m["value"] is not None
            and m["count"] != 0
            and not _is_uncertified(m)
        ]
        return (min(close)[1],) if close else ()


def gather(rounds: Sequence[RoundRecord], *, lenient: bool = False) -> Evidence:
    """The evidence in ``rounds``, oldest first: which one to treat, and what it bars.

    Of several changes made at once any may have done the harm, so all are barred; ``lenient``
    bars only those that did it alone.
    """
    base = base_of(rounds)
    barred = {
        (name, _direction(base.params.get(name), other.params.get(name)))
        for other in rounds
        if clearly_worse(other, base)
        for names in [differing(base.params, other.params)]
        if len(names) == 1 or not lenient
        for name in names
    }
    return Evidence(base, frozenset(barred), rounds[-1].stop_candidates)


def differing(one: GenParams, other: GenParams) -> tuple[str, ...]:
    """Tunable parameters in which two settings differ."""
    return tuple(name for name in TUNABLE if one.get(name) != other.get(name))


def _distance(metric: Mapping[str, Any]) -> float:
    """From a rate to its limit, in standard errors at the limit; a forecast is far from any."""
    limit = float(metric["threshold"].split()[-1])
    if metric["count"] is None:
        return float("inf")
    return float(abs(metric["value"] - limit) / sqrt(limit * (1 - limit) / max(metric["n"], 1)))


def _direction(before: Any, after: Any) -> str:
    if isinstance(before, int | float) and isinstance(after, int | float):
        return "up" if after > before else "down"
    return repr(sorted(after) if isinstance(after, list | tuple) else after)


def _is_uncertified(metric: Mapping[str, Any]) -> bool:
    return bool(metric["threshold"]) and str(metric["reason"]).startswith("uncertified")


def _on_the_right_side(metric: Mapping[str, Any]) -> bool:
    sign, limit = metric["threshold"].split()
    value = metric["value"]
    return bool(value < float(limit) if sign.startswith("<") else value >= float(limit))
