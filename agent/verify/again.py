"""A run done again from its journal: every stage in its order, up to where the run has come.

Each stage is the product's own function over a :class:`~agent.verify.past.Past`; this file only
knows what follows what, and at which entry of the ledger each record was written. The one idea:
what was decided then must be decided again, from the rows and the books alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

from agent import committed
from agent.best import with_best
from agent.errors import AgentError
from agent.money.ledger import Ledger
from agent.policy import EXIT_CODES, Decision, Step
from agent.records import RoundRecord, RunRecord
from agent.stages import (
    measuring,
    merging,
    pilot,
    planning,
    preflight,
    replaying,
    reviewing,
    scaling,
)
from agent.stages.judges import CALIBRATION_OP, PROBE_OP, calibration
from agent.stages.need import check_need
from agent.stages.pilot import Place
from agent.stages.preflight import SENTINELS_OP
from agent.stages.requests import op_id as review_op
from agent.verify.past import QUIET, NotBought, Past

DAMAGE = (
    ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, TypeError,
    ValueError,
)  # fmt: skip
"""What reading values that nobody wrote so can come to."""
_OUTSIDE = ("the approval is void", "another micro-batch does not fit")
"""How scale says that something outside its rows ended it."""


@dataclass(slots=True)
class Known:
    """The records of a run as they are stored."""

    run: RunRecord
    """``run.json``."""
    rounds: dict[int, RoundRecord]
    """Those of ``rounds/NN.json`` that can be read."""
    texts: dict[str, bytes]
    """Learnings reports by their paths."""


@dataclass(slots=True)
class Again:
    """How far a run could be done again."""

    decision: Decision | None = None
    """How it ended; None if it has not."""
    waiting: bool = False
    """It waits for a person."""
    open: str = ""
    """Why it goes no further: the run had not come so far, or was ended from outside."""
    broken: str = ""
    """What keeps it from being done again."""
    last: int = 0
    """Place in the ledger of the last thing that was done."""
    unverifiable: list[str] = field(default_factory=list)
    """What had to be taken as it is stored."""


def again(past: Past, stored: Known) -> Again:
    """Do the run again in memory; records and files are left in ``past.memory``."""
    state = Again()
    try:
        _work(past, stored, state)
    except NotBought as error:
        state.open = str(error)
    except AgentError as error:
        state.broken = str(error)
    except DAMAGE as error:
        state.broken = f"a stored value is not what was written: {type(error).__name__}: {error}"
    return state


def _work(past: Past, stored: Known, state: Again) -> None:
    params = _preflight(past)
    for number in count(1):
        decision = _round(past, stored, Place(number, params, 0), state)
        if decision.step is Step.REVIEW:
            decision, params = _review(past, stored, number, state)
            if decision.step is Step.CONTINUE:
                continue
        break
    passed = decision.step is Step.APPROVE
    state.decision = _plan(past, stored, number, state) if passed else decision
    if state.decision is not None:
        ending = with_best(state.decision, past.store.load_rounds())
        past.note(ending.step.value.lower(), ending.reason)


def _preflight(past: Past) -> str:
    past.note("running", "preflight is done", engine=past.found(SENTINELS_OP)["engine"])
    for name in (PROBE_OP, CALIBRATION_OP):
        past.found(name)
    params = calibration(past).apply(past.config.parameters)
    check_need(past, params, QUIET)
    past.note("running", "preflight is done", replans=preflight.replans(past))
    return pilot.keep_params(past, params)


def _round(past: Past, stored: Known, place: Place, state: Again) -> Decision:
    """Decide a round again, on stored rows or on its own."""
    if place.round > 1:
        decision = replaying.trial(past, place, QUIET)
        if decision.step is not Step.CONTINUE:
            _as_recorded(past, stored, place.round, state.last)
            return decision
    names = list(_bought(past, place.round))
    if not names:
        raise NotBought(f"round {place.round} has no rows of its own yet")
    for name in names:
        past.found(name)
    state.last = past.posted(names[-1])
    _as_recorded(past, stored, place.round, state.last)
    place = Place(place.round, place.params, len(names))
    decision = measuring.judge(past, place, QUIET)
    if decision.step is Step.CONTINUE:
        raise NotBought(f"round {place.round} is not decided yet")
    return decision


def _bought(past: Past, round_: int) -> Iterator[str]:
    """The micro-batches of a round that were bought."""
    for number in count():
        name = pilot.op_id(round_, number)
        if not past.has(name):
            return
        yield name


def _as_recorded(past: Past, stored: Known, round_: int, place: int) -> None:
    """Set the books to when the round's record was written."""
    record = stored.rounds.get(round_)

    def fits(ledger: Ledger) -> bool:
        return record is None or ledger.spend(round_) == record.spend

    past.stand(place, past.timeline.before_next(place), fits)


def _review(past: Past, stored: Known, round_: int, state: Again) -> tuple[Decision, str]:
    """Write the learnings report again, and apply the review that was answered."""
    name, path = review_op(round_), reviewing.learnings_path(round_)
    reviewed = past.has(name)
    if not reviewed and path not in stored.texts:
        raise NotBought(f"round {round_} waits for its review")
    end = past.posted(name) if reviewed else past.timeline.end

    def as_sent(ledger: Ledger) -> bool:
        past.ledger = ledger
        text = reviewing.report(past, round_).text
        past.memory.write_text(path, text)
        return past.memory.written[path] == stored.texts.get(path)

    past.stand(state.last, end, as_sent)
    as_sent(past.ledger)
    if not reviewed:
        raise NotBought(f"round {round_} has no usable review yet")
    state.last = end
    _as_recorded(past, stored, round_, end)
    past.reviewed_by(_reviewer(past, stored.rounds.get(round_)))
    decision, params = reviewing.apply(past, Place(round_, "", 0), QUIET)
    return decision, params


def _reviewer(past: Past, record: RoundRecord | None) -> str:
    """Who reviewed, if the record names one that the configuration knows."""
    known = ("rules", "bayes", f"llm:{past.config.reviewer.model}")
    named = record.review.reviewer if record is not None and record.review is not None else None
    configured = {"bayes": "bayes", "llm": known[-1]}.get(past.config.reviewer.kind, "rules")
    return named if named in known else configured


def _plan(past: Past, stored: Known, round_: int, state: Again) -> Decision | None:
    """Make the plan again that was offered, and go on as it was answered; None: not answered."""
    offered = next((e for e in past.timeline.entries if e.entry.kind == "offer"), None)
    if offered is None:
        raise NotBought(f"round {round_} passed, and its plan is not offered yet")
    past.ledger, state.last = past.timeline.at(offered.seq - 1), offered.seq
    planning.offer(past, round_, QUIET)
    used = [e for e in past.timeline.entries if e.entry.kind == "use"]
    if used:
        return _scale(past, stored, used[-1].entry.op_id, state)
    refused = [e for e in past.timeline.entries if e.entry.kind == "reject"]
    if refused:
        return Decision(Step.STOP_REJECTED, refused[-1].entry.note)
    state.waiting = True
    return None


def _scale(past: Past, stored: Known, approval: str, state: Again) -> Decision:
    """Merge what scale has bought, if it has come to its end."""
    plan = past.approvals.approved_plan(approval)
    rows = past.read_committed(plan)
    for number in range(rows.batches):
        past.found(committed.op_id(number))
    ended = scaling.decide(past, plan)
    dataset = stored.run.dataset
    if ended.step is Step.CONTINUE:
        reason = str((dataset or {}).get("stopped", ""))
        if not reason.startswith(_OUTSIDE):
            raise NotBought(f"scale goes on: {ended.reason}")
        state.unverifiable.append(f"why scale stopped: {reason}")
        ended = Decision(Step.DONE, reason)
    if dataset is None and stored.run.status.upper() not in EXIT_CODES:
        raise NotBought("the data set is not merged yet")
    closed = past.timeline.place("close", approval)
    state.last = past.timeline.end if closed is None else closed
    past.ledger = past.timeline.at(state.last if closed is None else closed - 1)
    return merging.publish(past, approval, ended.reason)
