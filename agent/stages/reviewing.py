"""Review and apply: what the reviewer is sent, what it answers, and what of that takes effect.

The report is stored byte for byte before it is sent, every raw answer before it is parsed, and
the answer once in the journal, so that a crash neither pays twice nor forgets.
"""

from agent.guard import guard
from agent.learnings import learnings
from agent.money.amounts import micro_to_usd, usd_to_micro
from agent.money.journal import Outcome
from agent.policy import Decision, Step, after_review
from agent.records import Review, ReviewRecord, pilots
from agent.reviewers.base import ReviewFailed
from agent.session import Session, Show
from agent.stages.pilot import Place, keep_params
from agent.stages.preflight import calibration


def learnings_path(round_: int) -> str:
    """Where the report of a round is kept, byte for byte as it was sent."""
    return f"rounds/{round_:02d}-learnings.md"


def ask(session: Session, round_: int, show: Show) -> Decision:
    """Send the learnings report, or find the answer that was stored.

    Raises:
        BudgetError: if the worst case of a review does not fit under the cap.
        ReviewerError: if there is no usable answer; the run holds.
    """
    name = f"r{round_:02d}/review"
    show({"kind": "phase", "text": f"round {round_}: review by {session.reviewer.name}"})
    if session.journal.find(name) is None:
        _consult(session, round_, name)
    return Decision(Step.CONTINUE, f"round {round_} is reviewed")


def _consult(session: Session, round_: int, name: str) -> None:
    rounds = session.store.load_rounds()[:round_]
    text = _report(session, round_)
    session.store.write_text(learnings_path(round_), text)
    answers: list[str] = []

    def keep(raw: str) -> None:
        answers.append(raw)
        session.store.write_text(f"rounds/{round_:02d}-answer-{len(answers)}.txt", raw)

    def consult() -> Outcome:
        answer = session.reviewer.review(text, rounds, keep=keep)
        result = {
            "review": answer.review.model_dump(mode="json"),
            "requests": answer.requests,
        }
        return Outcome(result, usd_to_micro(answer.cost_usd))

    session.journal.once(
        name,
        worst_case=usd_to_micro(session.reviewer.worst_case_usd(text)),
        stage="review",
        round=round_,
        do=consult,
        incurred=_incurred,
    )


def _incurred(error: BaseException) -> Outcome | None:
    """A failed review knows what it cost; anything else is charged in full."""
    if isinstance(error, ReviewFailed):
        return Outcome({}, usd_to_micro(error.cost_usd))
    return None


def _report(session: Session, round_: int) -> str:
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
    stored = session.journal.find(f"r{place.round:02d}/review")
    assert stored is not None, "a review is stored before it is applied"
    review = Review.model_validate(stored.result["review"])
    outcome = guard(
        review,
        rounds[-1].params,
        max_changes=session.config.reviewer.max_changes,
        tried=[r.params for r in rounds],
        margin_floors=calibration(session).floors(rounds[-1].params.critic),
    )
    record = ReviewRecord(
        reviewer=session.reviewer.name,
        review=review,
        applied=outcome.applied,
        refused=outcome.refused,
        cost_usd=micro_to_usd(stored.actual_micro),
        requests=stored.result["requests"],
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
