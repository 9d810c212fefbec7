"""Every stopping and routing rule, as a table."""

import pytest

from agent.policy import (
    EXIT_CODES,
    Limits,
    ReviewFacts,
    RoundFacts,
    Step,
    after_review,
    next_step,
)
from agent.review_records import MetricAudit
from pipeline.types import Metric, Verdict

LIMITS = Limits(max_rounds=3, max_rows=500, fail_rows=48)


def metric(
    name: str, verdict: Verdict | None, *, value: float | None = 0.01, reason: str = ""
) -> Metric:
    return Metric(name, value, 1, 100, 0.0, 0.1, "< 0.05", verdict, reason)


PASS, FAIL = metric("runaway", "PASS"), metric("empty", "FAIL")
OPEN = metric("truncated", "INSUFFICIENT")
UNMEASURED = metric("token_limit", "INSUFFICIENT", value=None)
UNCERTIFIED = metric("truncated", "INSUFFICIENT", reason="uncertified: 3 of 9 caught")
SHOWN = metric("median_tokens", None)
SHORT = metric("yield", "INSUFFICIENT", value=900.0)
BARREN = metric("yield", "FAIL", value=90.0, reason="forecast for 9 attempts; outside")

TABLE: dict[str, tuple[tuple[Metric, ...], dict[str, object], Step]] = {
    "all pass": ((PASS, SHOWN), {}, Step.APPROVE),
    "no gate at all never passes": ((SHOWN,), {}, Step.REVIEW),
    "one is open": ((PASS, OPEN), {}, Step.CONTINUE),
    "open at the maximum": ((PASS, OPEN), {"rows": 500}, Step.REVIEW),
    "open, while it mostly repeats itself": ((PASS, OPEN), {"drawn": 1999}, Step.CONTINUE),
    "open, after too many repeats": ((PASS, OPEN), {"drawn": 2000}, Step.REVIEW),
    "open at the maximum of the last round": (
        (PASS, OPEN), {"rows": 500, "round": 3}, Step.STOP_ROUNDS,
    ),
    "a failure": ((PASS, FAIL), {}, Step.REVIEW),
    "a failure too early": ((PASS, FAIL), {"rows": 47}, Step.CONTINUE),
    "a failure in the last round": ((FAIL,), {"round": 3}, Step.STOP_ROUNDS),
    "the smoke test fails": ((PASS,), {"audit_passed": False}, Step.REVIEW),
    "unmeasured never passes nor buys rows": ((PASS, UNMEASURED), {}, Step.REVIEW),
    "uncertified never passes nor buys rows": ((PASS, UNCERTIFIED), {}, Step.REVIEW),
    "unmeasured beside an open one": ((UNMEASURED, OPEN), {}, Step.CONTINUE),
    "a yield that may fall short is a person's to accept": ((PASS, SHORT), {}, Step.APPROVE),
    "a yield out of reach": ((PASS, BARREN), {}, Step.REVIEW),
    "a short yield beside an open gate": ((OPEN, SHORT), {}, Step.CONTINUE),
}  # fmt: skip


@pytest.mark.parametrize(("metrics", "changed", "step"), TABLE.values(), ids=TABLE)
def test_next_step(metrics: tuple[Metric, ...], changed: dict[str, object], step: Step) -> None:
    facts = {
        "round": 1, "micro_batches": 2, "rows": 100, "metrics": metrics,
        "audit_passed": True, "audit_found": "",
    }  # fmt: skip
    decision = next_step(RoundFacts(**(facts | changed)), LIMITS)  # type: ignore[arg-type]
    assert decision.step is step
    assert decision.reason


def test_a_reason_has_the_figures_that_decided() -> None:
    facts = RoundFacts(1, 2, 100, (PASS, FAIL), True, "")
    assert "empty 1.0% of 100 (wanted < 0.05): fail" in next_step(facts, LIMITS).reason
    barren = RoundFacts(1, 2, 100, (PASS, BARREN), True, "")
    reason = next_step(barren, LIMITS).reason
    assert "yield 90 rows, forecast for 9 attempts; outside (wanted" in reason


GONE, HELD, COUNTED = (
    MetricAudit(metric="truncated", outcome=outcome, found="caught 34 of 48")
    for outcome in ("withdrawn", "stands", "not audited")
)
REVIEWS: dict[str, tuple[dict[str, object], Step, str]] = {
    "changes": ({"proposed": 3, "applied": 2}, Step.CONTINUE, "round 4 tries 2 changes"),
    "changes after a revert": (
        {"proposed": 1, "applied": 1, "base": 1}, Step.CONTINUE,
        "round 3 is undone, and round 4 tries 1 change to the setting of round 1",
    ),
    "changes beside a withdrawn metric": (
        {"proposed": 1, "applied": 1, "audits": (HELD, GONE)}, Step.STOP_NO_CHANGE,
        "no pass can be certified any more, and no round is bought: truncated is withdrawn: caught "
        "34 of 48. Look at",
    ),
    "changes beside a metric that stands": (
        {"proposed": 1, "applied": 1, "audits": (HELD, COUNTED)}, Step.CONTINUE, "tries 1 change",
    ),
    "stop beside a withdrawn metric": (
        {"stop": True, "audits": (GONE,)}, Step.STOP_REVIEWER, "the reviewer says stop",
    ),
    "stop": ({"stop": True}, Step.STOP_REVIEWER, "the reviewer says stop: x"),
    "stop with changes": (
        {"stop": True, "proposed": 2, "applied": 2}, Step.STOP_REVIEWER, "the reviewer says stop",
    ),
    "no change": ({}, Step.STOP_NO_CHANGE, "the reviewer recommends no change"),
    "all refused": (
        {"proposed": 3}, Step.STOP_NO_CHANGE, "none of 3 recommended changes could be applied",
    ),
    "nothing on top of a setting that was measured": (
        {"proposed": 3, "base": 1}, Step.STOP_NO_CHANGE,
        "could be applied; round 3 is undone, and round 1's setting was measured already",
    ),
    "no change, and a metric is withdrawn": (
        {"audits": (GONE,)}, Step.STOP_NO_CHANGE,
        "no pass can be certified any more, and no round is bought: truncated is withdrawn",
    ),
    "no change, and a metric stands": (
        {"audits": (HELD,)}, Step.STOP_NO_CHANGE,
        "no change, and distrusts truncated, which was audited and stands: caught 34 of 48",
    ),
    "no change, and nothing to audit": (
        {"audits": (COUNTED,)}, Step.STOP_NO_CHANGE, "truncated, which was not audited",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("facts", "step", "told"), REVIEWS.values(), ids=REVIEWS)
def test_after_review(facts: dict[str, object], step: Step, told: str) -> None:
    plain = {"round": 3, "stop": False, "diagnosis": "x", "proposed": 0, "applied": 0}
    decision = after_review(ReviewFacts(**(plain | facts)))  # type: ignore[arg-type]
    assert decision.step is step
    assert told in decision.reason


def test_every_ending_has_an_exit_code_of_its_own() -> None:
    endings = {s for s in Step if s.value.startswith(("STOP", "DONE"))}
    assert set(EXIT_CODES) == endings
    stops = [code for step, code in EXIT_CODES.items() if step.value.startswith("STOP")]
    assert len(set(stops)) == len(stops)
    assert not {0, 1, 2, 3, 9} & set(stops)
