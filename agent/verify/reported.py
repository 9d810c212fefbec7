"""Reports and pictures, rendered from the records that they must have been rendered from.

Whether the records are genuine is ``stored.py``'s. The one idea: a run writes its reports when it
pauses or ends, so those of a run that nobody works on are of its last pause, whatever it says.
"""

from typing import TYPE_CHECKING

from agent.records import RoundRecord, RunRecord
from agent.report.render import run_report
from agent.verify.again import Again
from agent.verify.folder import OWN, group_of
from agent.verify.past import Past
from agent.verify.rendering import Files
from agent.verify.standing import ENDED, STOPPED, reached
from agent.verify.writers import strangers

if TYPE_CHECKING:
    from agent.verify.stored import Stored


def check(stored: "Stored", past: Past, state: Again) -> None:
    """Every report and picture, unless the run will write them anew."""
    status = past.memory.run.status
    if stored.working or not (reached(state) or status in ENDED | STOPPED | {"waiting"}):
        for name in stored.folder.names:
            if group_of(name) == "reports" and name not in OWN:
                stored.leave("reports", name, "it is rendered again when the run pauses or ends")
        return
    files, earlier = _rendered(stored, past, state), _earlier(stored, past)
    pictures = {name: stored.folder.read(name) for name in files if name.endswith(".png")}
    drawn = strangers(pictures)
    for name, content in sorted(files.items()):
        if name in drawn:
            stored.expected.add(name)
            stored.found.add("reports", name, [drawn[name]])
        elif earlier and stored.folder.read(name) == earlier.get(name) != content:
            stored.leave("reports", name, "the run was killed before it was rendered again")
        else:
            stored.compare("reports", name, content)


def _rendered(stored: "Stored", past: Past, state: Again) -> Files:
    """Reports of the end, or of the last time on the way if the end was not written down."""
    run, rounds = past.memory.run, past.memory.load_rounds()
    if run.status != "running":
        return stored.renders.files(_of_then(stored, past, state), rounds)
    stored.found.notes.append(
        "the run is past what its record says, and nobody works on it: reports are checked as they "
        "were written last; if it was killed, resume it once"
    )
    earlier = [told for told in past.memory.reported if told[0].status == "running"]
    return stored.renders.files(*(earlier[-1] if earlier else (past.memory.runs[-1], rounds)))


def _earlier(stored: "Stored", past: Past) -> Files:
    """What the last but one rendering wrote, of a run that may have died in the last one."""
    told = [told for told in past.memory.reported if told[0].status == "running"]
    if past.memory.run.status != "running" or len(told) < 2:
        return {}
    return stored.renders.files(*told[-2])


def _of_then(stored: "Stored", past: Past, state: Again) -> RunRecord:
    """The run's record as reports were rendered from it.

    What a person asked for a price after the end is in the record, and not in the reports.
    """
    run, rounds = past.memory.run, past.memory.load_rounds()
    report = stored.folder.read("report.md")
    if report is None or _text(run, rounds) == report:
        return run
    for place in range(state.last, past.timeline.end):
        past.ledger = past.timeline.at(place)
        earlier = run.model_copy(update=money(past))
        if earlier != run and _text(earlier, rounds) == report:
            return earlier
    return run


def before(stored: "Stored", past: Past) -> bool:
    """Whether the report tells already of what the run's record does not yet say.

    The record is written before its report.
    """
    assert stored.run is not None
    spent = {"confirmed_usd": stored.run.confirmed_usd, "possible_usd": stored.run.possible_usd}
    end = past.memory.run.model_copy(update=spent)
    return _text(end, past.memory.load_rounds()) == stored.folder.read("report.md")


def money(past: Past) -> dict[str, float]:
    """The run's money in its record."""
    totals = past.ledger.totals()
    return {"confirmed_usd": totals.confirmed_usd, "possible_usd": totals.possible_usd}


def _text(run: RunRecord, rounds: tuple[RoundRecord, ...]) -> bytes:
    return run_report(rounds, run).encode("utf-8", errors="replace")
