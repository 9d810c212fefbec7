"""Review and apply: what the reviewer is sent, what it answers, and what of that takes effect.

The report is stored byte for byte before it is sent, and the review once in the journal. What its
requests cost, and that none is paid for twice or forgotten, is ``agent/stages/requests.py``'s.
"""

from agent.guard import guard
from agent.learnings import learnings
from agent.money.amounts import micro_to_usd
from agent.money.journal import Outcome
from agent.policy import Decision, Step, after_review
from agent.records import pilots
from agent.review_records import Review, ReviewRecord
from agent.session import Session, Show
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
    if session.journal.find(name) is None:
        _consult(session, round_, name)
    return Decision(Step.CONTINUE, f"round {round_} is reviewed")


def _consult(session: Session, round_: int, name: str) -> None:
    """Get a review, unless one was paid for and kept just before a crash, and remember it."""
    requests = Requests(session.ledger, session.store, round_)
    review = requests.kept_review()
    if review is None:
        text = report(session, round_)
        session.store.write_text(learnings_path(round_), text)
        rounds = session.store.load_rounds()[:round_]
        review = session.reviewer.review(text, rounds, pay=requests.pay)
    result = {"review": review.model_dump(mode="json"), "answers": requests.digests()}
    # Its requests are paid for already, each by itself.
    session.journal.once(
        name, worst_case=0, stage="review", round=round_, do=lambda: Outcome(result, 0)
    )


def report(session: Session, round_: int) -> str:
    """The learnings report on the rounds up to ``round_``, as of now in the ledger."""
    totals, rounds = session.ledger.totals(), session.store.load_rounds()[:round_]
    return learnings(
        rounds,
        limit_usd=totals.limit_usd,
        confirmed_usd=totals.confirmed_usd,
        max_changes=session.config.reviewer.max_changes,
        rounds_left=session.config.pilot.max_rounds - pilots(rounds),
    )


def apply(session: Session, place: Place, show: Show) -> tuple[Decision, str]:
    """Let through what the bounds allow, and name the next round's setting by its hash."""
    rounds = session.store.load_rounds()[: place.round]
    stored = session.journal.find(op_id(place.round))
    assert stored is not None, "a review is stored before it is applied"
    review = Review.model_validate(stored.result["review"])
    outcome = guard(
        review,
        rounds[-1].params,
        max_changes=session.config.reviewer.max_changes,
        tried=[r.params for r in rounds],
        margin_floors=calibration(session).floors(rounds[-1].params.critic),
    )
    paid = Requests(session.ledger, session.store, place.round).rows()
    record = ReviewRecord(
        reviewer=session.reviewer.name,
        review=review,
        applied=outcome.applied,
        refused=outcome.refused,
        cost_usd=micro_to_usd(sum(row.actual or 0 for row in paid)),
        requests=len(paid),
        learnings_path=learnings_path(place.round),
    )
    spend = session.ledger.spend(place.round)
    session.store.save_round(rounds[-1].model_copy(update={"review": record, "spend": spend}))
    session.write_reports()
    show({"kind": "review", "reviewer": record.reviewer, "diagnosis": review.diagnosis})
    decision = after_review(
        round_=place.round,
        stop=review.stop,
        applied=len(outcome.applied),
        diagnosis=review.diagnosis,
    )
    show({"kind": "decision", "step": decision.step.value, "reason": decision.reason})
    return decision, keep_params(session, outcome.params)
