"""Replay before spending: what stored rows already say of a proposed setting.

The open probe and every round's rows that allow it are cut and judged as the setting would have
had them. A gate that fails on them is a round of its own, which cost nothing, and goes to review
again; everything else is bought. A person's question (``whatif``) is answered by the same
functions. The one idea: what was paid for once is asked first.
"""

from itertools import takewhile

from agent.archive import Bought
from agent.policy import Decision, Step, after_replay
from agent.records import RoundRecord, SmokeAudit
from agent.review_records import Replay
from agent.session import Session, Show
from agent.stages import pilot
from agent.stages.measuring import Judged, alpha_index, record, rules, score_predictions_before
from agent.stages.pilot import Place
from agent.stages.stored import Found, ask, sources
from pipeline.audit import flagged_rows
from pipeline.metrics import Measurement
from pipeline.params import GenParams
from pipeline.replay import measure_replayed


def measured(
    bought: Bought,
    found: Found,
    wanted: GenParams,
    *,
    alpha_round: int,
    before: int | None = None,
) -> Measurement:
    """The metrics of replayed rows, as the next pilot would be judged.

    Of the audits of metrics only those of rounds ``before`` it count; None counts all.
    """
    judged_by = rules(bought, wanted, round_=alpha_round, before=before)
    return measure_replayed(found.rows, judged_by, wanted=len(found.rows.samples))


def trial(session: Session, place: Place, show: Show) -> Decision:
    """Replay the setting of the next round; a failure is kept as that round, the rest is bought."""
    rounds = session.store.load_rounds()[: place.round - 1]
    wanted = pilot.load_params(session, place.params)
    found = ask(sources(session, before=place.round), wanted)
    said = None
    if found.used:
        index = alpha_index(session, place)
        said = measured(session, found, wanted, alpha_round=index, before=place.round)
    decision = after_replay(
        said.metrics if said else (),
        sources=found.used,
        rows=found.answered,
        in_a_row=len(list(takewhile(lambda r: r.replayed, reversed(rounds)))),
    )
    show({"kind": "phase", "text": f"round {place.round}: {decision.reason}"})
    _tell_review(session, rounds[-1], _kept(found, wanted, said, decision))
    if said is not None and decision.step is not Step.CONTINUE:
        rows, audit = found.rows.samples, _no_audit(found)
        _keep_round(session, Judged(place, wanted, rows, said, audit, None), decision)
        show({"kind": "decision", "step": decision.step.value, "reason": decision.reason})
    return decision


def _kept(found: Found, wanted: GenParams, said: Measurement | None, decision: Decision) -> Replay:
    return Replay(
        params=wanted,
        sources=found.used,
        refused={
            name: tuple(f"{r.parameter}: {r.reason}" for r in refusals)
            for name, refusals in found.refused.items()
        },
        rows=found.answered,
        changed=found.rows.changed,
        unscored=found.rows.unscored,
        metrics=tuple(m.to_json() for m in said.metrics) if said else (),
        bought=decision.step is Step.CONTINUE,
    )


def _tell_review(session: Session, before: RoundRecord, said: Replay) -> None:
    """The review that proposed a setting is told what stored rows say of it."""
    assert before.review is not None, "a setting is proposed by a review"
    review = before.review.model_copy(update={"replay": said})
    session.store.save_round(before.model_copy(update={"review": review}))


def _no_audit(found: Found) -> SmokeAudit:
    """Nothing was bought that could have been stopped early; flagged rows are shown as ever."""
    flagged = flagged_rows([s for s in found.rows.samples if s.answered])
    return SmokeAudit(rows=found.answered, passed=True, checks=(), flagged_ids=flagged)


def _keep_round(session: Session, round_: Judged, decision: Decision) -> None:
    score_predictions_before(session, round_)
    session.store.save_round(record(session, round_, decision, replayed=True))
    session.note("running", decision.reason)
