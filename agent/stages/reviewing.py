"""Review and apply: what the reviewer is sent, what it answers, and what of that takes effect.

The report is stored byte for byte before it is sent, and the review once in the journal. What its
requests cost, and that none is paid for twice or forgotten, is ``agent/stages/requests.py``'s. The
one idea: changes apply to the best setting so far, so a round that made things worse is undone
whoever reviews it, and the rules' opinion stands beside every other one.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from agent.best import base, compared
from agent.guard import Guarded, guard
from agent.learnings import Terms, Told, learnings
from agent.money.amounts import micro_to_usd
from agent.money.journal import Outcome
from agent.policy import Decision, ReviewFacts, Step, after_review
from agent.records import RoundRecord, pilots
from agent.review_records import Baseline, Review, ReviewRecord
from agent.reviewers.base import Bill, Pay
from agent.reviewers.rules import RulesReviewer, recommend
from agent.reviewers.tariff import exact_encoding
from agent.session import Session, Show
from agent.stages.candidates import dry_run
from agent.stages.metric_audit import audit_metrics
from agent.stages.pilot import Place, keep_params
from agent.stages.preflight import calibration
from agent.stages.requests import Requests, op_id


def learnings_path(round_: int) -> str:
    """Where the report of a round is kept, byte for byte as it was sent."""
    return f"rounds/{round_:02d}-learnings.md"


def ask(session: Session, round_: int, show: Show) -> Decision:
    """Send the learnings report, or find the answer that was stored.

    Raises:
        BudgetError: if the worst case of its next request does not fit under the cap.
        ReviewerError: if there is no usable answer; the run holds.
    """
    name = op_id(round_)
    show({"kind": "phase", "text": f"round {round_}: review by {session.reviewer.name}"})
    rounds = session.store.load_rounds()[:round_]
    start = base(rounds)
    if start.round != round_:
        undone = f"{compared(rounds[-1], start)}: round {round_} is undone"
        show({"kind": "phase", "text": f"{undone}, changes apply to round {start.round}'s setting"})
    if session.journal.find(name) is None:
        _consult(session, round_, name, show)
    return Decision(Step.CONTINUE, f"round {round_} is reviewed")


def _consult(session: Session, round_: int, name: str, show: Show) -> None:
    """Get a review, unless one was paid for and kept just before a crash, and remember it."""
    requests = Requests(session.ledger, session.store, round_)
    review, told = requests.kept_review(), report(session, round_)
    if review is None:
        session.store.write_text(learnings_path(round_), told.text)
        rounds = session.store.load_rounds()[:round_]
        pay = _telling(requests, round_, show)
        review = session.reviewer.review(told.text, rounds, pay=pay)
    result = {
        "review": review.model_dump(mode="json"),
        "answers": requests.digests(),
        "left_out": list(told.left_out),
    }
    # Its requests are paid for already, each by itself.
    session.journal.once(
        name, worst_case=0, stage="review", round=round_, do=lambda: Outcome(result, 0)
    )


def _telling(requests: Requests, round_: int, show: Show) -> Pay:
    """Pays as ``requests`` do, and says before each one what it can cost at most."""

    @contextmanager
    def pay(worst_case: int) -> Iterator[Bill]:
        most = f"${micro_to_usd(worst_case):,.6f}"
        number = len(requests.rows()) + 1
        show({"kind": "phase", "text": f"round {round_}: request {number}, at most {most}"})
        with requests.pay(worst_case) as bill:
            yield bill

    return pay


def report(session: Session, round_: int) -> Told:
    """The learnings report on the rounds up to ``round_``, as of now in the ledger.

    What its token limit leaves out is decided once, and kept with the review.
    """
    totals, rounds = session.ledger.totals(), session.store.load_rounds()[:round_]
    stored = session.journal.find(op_id(round_))
    terms = Terms(
        limit_usd=totals.limit_usd,
        confirmed_usd=totals.confirmed_usd,
        max_changes=session.config.reviewer.max_changes,
        rounds_left=session.config.pilot.max_rounds - pilots(rounds),
        run_id=session.run_id,
        tracks=session.store.load_run().tracks,
        max_tokens=session.config.reviewer.max_report_tokens,
        encoding=_encoding(session),
    )
    left_out = None if stored is None else tuple(stored.result.get("left_out", ()))
    return learnings(rounds, terms, left_out=left_out)


def _encoding(session: Session) -> str | None:
    """How the reviewer's tokens are counted exactly; None where only bytes bound them."""
    section = session.config.reviewer
    if section.base_url is not None or not session.reviewer.name.startswith("llm:"):
        return None
    return exact_encoding(section.model, os.environ)


def apply(session: Session, place: Place, show: Show) -> tuple[Decision, str]:
    """Let through what the bounds allow, and name the next round's setting by its hash."""
    rounds = session.store.load_rounds()[: place.round]
    stored = session.journal.find(op_id(place.round))
    assert stored is not None, "a review is stored before it is applied"
    review = Review.model_validate(stored.result["review"])
    outcome = _guarded(session, review, rounds)
    left_out = tuple(stored.result.get("left_out", ()))
    record = _record(session, review, outcome, rounds, left_out=left_out)
    spend = session.ledger.spend(place.round)
    session.store.save_round(rounds[-1].model_copy(update={"review": record, "spend": spend}))
    session.write_reports()
    for event in _events(record):
        show(event)
    facts = ReviewFacts(
        round=place.round,
        stop=review.stop,
        diagnosis=review.diagnosis,
        proposed=len(review.changes),
        applied=len(outcome.applied),
        base=record.base,
        audits=record.audits,
    )
    decision = after_review(facts)
    show({"kind": "decision", "step": decision.step.value, "reason": decision.reason})
    return decision, keep_params(session, outcome.params)


def _guarded(session: Session, review: Review, rounds: Sequence[RoundRecord]) -> Guarded:
    """What the guard lets through of a review, on top of the setting that its changes apply to."""
    start = base(rounds).params
    return guard(
        review,
        start,
        max_changes=session.config.reviewer.max_changes,
        tried=rounds,
        margin_floors=calibration(session).floors(start.critic),
        cuts=dry_run(session, before=rounds[-1].round + 1),
    )


def _record(
    session: Session,
    review: Review,
    outcome: Guarded,
    rounds: Sequence[RoundRecord],
    *,
    left_out: tuple[str, ...],
) -> ReviewRecord:
    """The review as it is kept."""
    now, start = rounds[-1], base(rounds)
    paid = Requests(session.ledger, session.store, now.round).rows()
    return ReviewRecord(
        reviewer=session.reviewer.name,
        review=review,
        applied=outcome.applied,
        refused=outcome.refused,
        cost_usd=micro_to_usd(sum(row.actual or 0 for row in paid)),
        requests=len(paid),
        learnings_path=learnings_path(now.round),
        base=None if start.round == now.round else start.round,
        baseline=_baseline(session, rounds),
        audits=audit_metrics(session, now, review.distrusted_metrics),
        at_most_usd=micro_to_usd(paid[0].worst_case) if paid else None,
        left_out=left_out,
    )


def _baseline(session: Session, rounds: Sequence[RoundRecord]) -> Baseline | None:
    """What the rules would have done, guarded in the same way; None if they were asked."""
    if session.reviewer.name == RulesReviewer.name:
        return None
    review = recommend(rounds, max_changes=session.config.reviewer.max_changes)
    outcome = _guarded(session, review, rounds)
    return Baseline(review=review, applied=outcome.applied, refused=outcome.refused)


def _events(record: ReviewRecord) -> Iterator[dict[str, str]]:
    """What is shown of a review that was applied."""
    diagnosis = record.review.diagnosis
    yield {"kind": "review", "reviewer": record.reviewer, "diagnosis": diagnosis}
    if record.baseline is not None:
        yield {"kind": "phase", "text": _opinion(record.baseline, record)}
    for audit in record.audits:
        text = f"audit of {audit.metric}: {audit.outcome}: {audit.found}"
        yield {"kind": "phase", "text": text}


def _opinion(rules: Baseline, record: ReviewRecord) -> str:
    """What the rules would have done, in a line."""
    theirs = {change.parameter: change.after for change in rules.applied}
    if rules.review.stop or not theirs:
        return "the rules would " + ("stop" if rules.review.stop else "change nothing")
    same = theirs == {change.parameter: change.after for change in record.applied}
    changes = ", ".join(f"{name} to {value!r}" for name, value in theirs.items())
    return "the rules would " + ("do the same" if same else f"set {changes}")
