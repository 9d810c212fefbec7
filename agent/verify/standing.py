"""Where a run stands: which status and reason follow from the run done again.

What the rest of ``run.json`` must hold is ``stored.py``'s. The one idea: a run ends or waits
because of its rows and of what a person said in the books, so an ending that these do not lead to
is false; that it was stopped or held on its way, nothing that is stored can tell.
"""

from typing import Final

from agent.policy import EXIT_CODES, WAITS, Step
from agent.records import RunRecord
from agent.verify.again import Again
from agent.verify.past import Past

ENDED: Final = frozenset(step.value.lower() for step in EXIT_CODES)
"""Statuses of a run that will not go on."""
STOPPED: Final = frozenset({"held", "drained"})
"""Those of a run that was stopped on its way, with its reports written."""
_KNOWN: Final = ENDED | STOPPED | {"running", "waiting"}
_NO_ROOM: Final = Step.STOP_BUDGET.value.lower()


def reached(state: Again) -> bool:
    """Whether the run done again has come to its end, or waits."""
    return state.decision is not None or state.waiting


def follows(past: Past, state: Again, run: RunRecord) -> bool:
    """Whether a run that stands there can say so of itself."""
    if state.broken:
        return run.status in _KNOWN
    said, last = (run.status, run.reason), past.memory.run
    if run.status in STOPPED or said == (last.status, last.reason):
        return True
    offered = any(e.entry.kind == "offer" for e in past.timeline.entries)
    if offered and said == ("waiting", WAITS):
        return True
    if reached(state):  # killed before it wrote down what it had come to
        return said in {(r.status, r.reason) for r in past.memory.runs}
    return run.status == _NO_ROOM or (run.status == "running" and not offered)
