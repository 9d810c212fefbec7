"""Every stopping and routing rule of a run, as one pure function over a small table of facts.

Pass or fail is decided here, from verdicts, by code alone: no reviewer is asked. Planned endings
are values of :class:`Step`, each with its own exit code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from agent.review_records import MetricAudit
from pipeline.types import Metric


class Step(StrEnum):
    """What happens after a micro-batch has been measured, or a review applied."""

    CONTINUE = "CONTINUE"
    """Another micro-batch: the answer is not known yet."""
    REVIEW = "REVIEW"
    """The setting does not pass; ask for recommendations."""
    APPROVE = "APPROVE"
    """Every gate passes; forecast, then wait for a person."""
    STOP_BUDGET = "STOP_BUDGET"
    """What comes next does not fit under the cap."""
    STOP_ROUNDS = "STOP_ROUNDS"
    """The last round allowed did not pass."""
    STOP_REVIEWER = "STOP_REVIEWER"
    """The reviewer holds that no setting within bounds passes."""
    STOP_NO_CHANGE = "STOP_NO_CHANGE"
    """The reviewer changes nothing, or nothing that it recommended could be applied, or all of it
    fails on stored rows, or a gate cannot be measured, or its metric was withdrawn."""
    STOP_REJECTED = "STOP_REJECTED"
    """A person said no to the plan."""
    DONE = "DONE"
    """The data set is published."""
    DONE_SHORT = "DONE_SHORT"
    """The data set is published with fewer rows than were wanted."""
    DONE_UNVERIFIED = "DONE_UNVERIFIED"
    """The data set is written, but its QC over the union did not pass."""


WAITS = "the plan waits for a person's approval"
"""Why a run that was stopped where it waits goes on waiting."""

EXIT_CODES: dict[Step, int] = {
    Step.DONE: 0,
    Step.DONE_SHORT: 1,
    Step.DONE_UNVERIFIED: 1,
    Step.STOP_BUDGET: 4,
    Step.STOP_ROUNDS: 5,
    Step.STOP_REVIEWER: 6,
    Step.STOP_NO_CHANGE: 7,
    Step.STOP_REJECTED: 8,
}
"""Exit codes of planned endings; 3 is a run that waits for approval, 9 one that holds."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A step, and why."""

    step: Step
    """What happens next."""
    reason: str
    """In one sentence, with the figures that decided."""


MOST_REPLAYED: Final = 3
"""Proposals in a row that may fail on stored rows before a run stops asking for more."""


MOST_DRAWN: Final = 4
"""Instructions that a round may draw, as a multiple of the rows that it may answer: a setting that
repeats itself answers few of them, and would never come to its end."""


@dataclass(frozen=True, slots=True)
class RoundFacts:
    """All that the decision after a micro-batch depends on."""

    round: int
    """The round's number, from 1."""
    micro_batches: int
    """Bought in this round so far."""
    rows: int
    """Answered rows of this round."""
    metrics: tuple[Metric, ...]
    """Measured over them."""
    audit_passed: bool
    """The smoke test's outcome."""
    audit_found: str
    """What failed in it, in one phrase."""
    pilots: int | None = None
    """Rounds bought so far, this one included; None if all were."""
    drawn: int = 0
    """Instructions drawn for these rows, repeats and rejected ones included."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a run, from its configuration."""

    max_rounds: int
    """Rounds bought at most."""
    max_rows: int
    """Answered rows of one round at most."""
    fail_rows: int
    """Rows before a FAIL ends a round."""


def next_step(facts: RoundFacts, limits: Limits) -> Decision:
    """What happens after a micro-batch has been measured."""
    gates = [m for m in facts.metrics if m.verdict is not None]
    if not facts.audit_passed:
        return _not_passed(facts, limits, f"the smoke test failed: {facts.audit_found}")
    failed = [m for m in gates if m.verdict == "FAIL"]
    if failed and facts.rows >= limits.fail_rows:
        return _not_passed(facts, limits, "; ".join(map(_describe, failed)))
    undecided = [m for m in gates if m.verdict != "PASS"]
    if gates and all(m.name == "yield" and m.verdict != "FAIL" for m in undecided):
        return Decision(Step.APPROVE, _passed(gates, undecided, facts.rows))
    repeating = facts.drawn >= MOST_DRAWN * limits.max_rows
    if facts.rows < limits.max_rows and not repeating and any(map(_rows_would_help, undecided)):
        names = ", ".join(m.name for m in undecided)
        return Decision(Step.CONTINUE, f"not decided yet: {names}")
    found = "; ".join(map(_describe, undecided))
    of = f" of {facts.drawn} instructions drawn" if repeating else ""
    return _not_passed(facts, limits, f"not decided on {facts.rows} rows{of}: {found}")


def _passed(gates: list[Metric], undecided: list[Metric], rows: int) -> str:
    """A yield that the forecast may not reach is a person's to accept, not more rows' to settle."""
    rest = "; the forecast may fall short of the rows wanted" if undecided else ""
    return f"{len(gates) - len(undecided)} of {len(gates)} gates pass on {rows} fresh rows{rest}"


def _rows_would_help(metric: Metric) -> bool:
    """Unmeasured and uncertified gates never buy rows, nor does a forecast."""
    certified = not metric.reason.startswith("uncertified")
    return metric.name != "yield" and metric.value is not None and certified


def _not_passed(facts: RoundFacts, limits: Limits, why: str) -> Decision:
    if (facts.round if facts.pilots is None else facts.pilots) >= limits.max_rounds:
        return Decision(Step.STOP_ROUNDS, f"round {facts.round} is the last allowed; {why}")
    return Decision(Step.REVIEW, why)


def _describe(metric: Metric) -> str:
    verdict = (metric.verdict or "").lower()
    return f"{metric.name} {_seen(metric)} (wanted {metric.threshold}): {verdict}"


def _seen(metric: Metric) -> str:
    """A rate with how many rows it is of; a yield is a number of rows, with what foresees it."""
    if metric.value is None:
        return f"unmeasured of {metric.n}"
    if metric.name == "yield":
        return f"{metric.value:,.0f} rows, {metric.reason}"
    return f"{metric.value:.1%} of {metric.n}"


def after_replay(
    metrics: Sequence[Metric], *, sources: Sequence[str], rows: int, in_a_row: int
) -> Decision:
    """Whether a pilot is bought for a setting, or what stored rows say of it is enough.

    Args:
        metrics: Measured on stored rows; none where nothing stored could answer.
        sources: Which rows these were.
        rows: How many of them were answered.
        in_a_row: Settings just before this one that failed in the same way.
    """
    if not metrics:
        return Decision(Step.CONTINUE, "no stored rows can answer for it: a pilot is bought")
    failed = [m for m in metrics if m.verdict == "FAIL"]
    on = f"on {rows} stored rows ({', '.join(sources)})"
    if not failed:
        return Decision(Step.CONTINUE, f"nothing fails {on}: a pilot is bought")
    why = f"replayed {on}, no pilot is bought: " + "; ".join(map(_describe, failed))
    if in_a_row + 1 < MOST_REPLAYED:
        return Decision(Step.REVIEW, why)
    return Decision(
        Step.STOP_NO_CHANGE, f"{MOST_REPLAYED} proposals in a row fail on stored rows; {why}"
    )


@dataclass(frozen=True, slots=True)
class ReviewFacts:
    """All that the decision after a review depends on."""

    round: int
    """The reviewed round's number."""
    stop: bool
    """The reviewer says stop."""
    diagnosis: str
    """Its own words for why."""
    proposed: int
    """Changes that it recommends,"""
    applied: int
    """and those that were applied."""
    base: int | None = None
    """The earlier round whose setting they apply to, since the reviewed one is undone."""
    audits: tuple[MetricAudit, ...] = ()
    """What became of the metrics that it distrusts."""


def after_review(facts: ReviewFacts) -> Decision:
    """What happens after the guard has applied what it could of a review.

    A setting is measured once: where nothing is applied on top of a setting that was returned to,
    there is nothing to buy. Nor is there when a metric was withdrawn, whatever was applied: only
    gates' metrics can be, and no round passes without them.
    """
    undone = "" if facts.base is None else f"round {facts.round} is undone, and "
    if facts.stop:
        return Decision(Step.STOP_REVIEWER, f"the reviewer says stop: {facts.diagnosis}")
    withdrawn = [audit for audit in facts.audits if audit.outcome == "withdrawn"]
    if withdrawn:
        return Decision(Step.STOP_NO_CHANGE, _no_pass(withdrawn))
    if facts.applied == 0:
        again = undone and f"; {undone}round {facts.base}'s setting was measured already"
        return Decision(Step.STOP_NO_CHANGE, _unchanged(facts) + again)
    on = "" if facts.base is None else f" to the setting of round {facts.base}"
    changes = f"{facts.applied} change{'s' * (facts.applied != 1)}"
    return Decision(Step.CONTINUE, f"{undone}round {facts.round + 1} tries {changes}{on}")


def _unchanged(facts: ReviewFacts) -> str:
    """Why nothing changes, with what the audits of distrusted metrics found."""
    if facts.proposed:
        return f"none of {facts.proposed} recommended changes could be applied"
    told = "; ".join(_audited(audit) for audit in facts.audits)
    return "the reviewer recommends no change" + (f", and distrusts {told}" if told else "")


def _audited(audit: MetricAudit) -> str:
    how = "was audited and stands" if audit.outcome == "stands" else "was not audited"
    return f"{audit.metric}, which {how}: {audit.found}"


def _no_pass(withdrawn: Sequence[MetricAudit]) -> str:
    """Why no further round can pass, and what a person can do about it."""
    told = "; ".join(f"{audit.metric} is withdrawn: {audit.found}" for audit in withdrawn)
    return (
        f"no pass can be certified any more, and no round is bought: {told}. Look at what it gets "
        "wrong; then mend it, or begin a run whose certificates.minimum (of a critic: "
        "critic.max_false_accept) it can meet"
    )
