"""Every check of a run, in order: books, artifacts, then all that follows from them.

How a run is done again is ``again.py``'s, what is compared with it ``stored.py``'s. The one idea:
books and artifacts carry hashes of their own; everything else is written again from them, in
memory, and must be the same to the byte.
"""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from agent.config_file import check_config
from agent.errors import AgentError, RunError
from agent.lock import holder
from agent.money.audit import audit
from agent.money.database import RunDatabase
from agent.records import RunRecord
from agent.session import program_version
from agent.store import RunStore
from agent.verify import artifacts, books, claims, plans, reported, rows
from agent.verify.again import DAMAGE, Again, Known, again
from agent.verify.findings import Difference, Group, Verified, shown
from agent.verify.folder import BOOKS, RECORD, Folder, group_of, look
from agent.verify.past import Past, open_past
from agent.verify.rendering import Beside, Renders
from agent.verify.stored import Stored


def verify(
    root: Path, run_id: str, *, detectors: bool = False, renders: Renders | None = None
) -> Verified:
    """Check everything in a run's folder that follows from its rows and its books.

    Nothing is written, no lock is taken, and neither model nor network is needed.

    Args:
        root: Where runs are kept.
        run_id: The folder's name.
        detectors: Also clean every response and look for its flags again, with this program.
        renders: Renders reports; left out, a process beside this one.

    Raises:
        RunError: if there is no such run.
    """
    path = RunStore.open(root, run_id).path
    folder = look(path)
    if RECORD not in folder.names and BOOKS not in folder.names:
        raise RunError(f"{str(path)!r} holds neither {RECORD} nor {BOOKS}: it is no run")
    run, rounds = folder.run(), folder.rounds()
    found = Verified(run.run_id if run else path.name)
    working = holder(path / "run.lock")
    stored = Stored(folder, found, renders or Beside(), working, run, rounds)
    _about(stored)
    if run is not None and not working:
        stored.renders.begin(run, tuple(rounds.values()))
    try:
        with closing(stored.renders), books.opened(folder, found.notes) as database:
            _with_books(stored, database, detectors=detectors)
    except AgentError as error:
        if isinstance(error, books.NotOpened) and books.just_begun(folder, run):
            found.notes.append("the run was made, and nothing was bought yet: it has no books")
        else:
            found.add("ledger", BOOKS, [_unreadable(error)])
        stored.without_books()
    _unfit(found, folder)
    return found


def _about(stored: Stored) -> None:
    """What is to be known before any check."""
    run, notes = stored.run, stored.found.notes
    if run is not None and run.run_id != stored.folder.path.name:
        notes.append(f"the folder is called {stored.folder.path.name!r} and holds run "
                     f"{run.run_id!r}")  # fmt: skip
    if run is not None and run.version != program_version():
        notes.append(
            f"the run was begun by version {shown(run.version)}, this is {program_version()}: what "
            "the two compute otherwise, differs"
        )
    if stored.working:
        notes.append(
            f"process {stored.working.pid} works on the run: what it is about to write anew is "
            "left out"
        )


def _with_books(stored: Stored, database: RunDatabase, *, detectors: bool) -> None:
    found, folder = stored.found, stored.folder
    try:
        found.seal = _seal(database)
        problems = audit(database)
    except (sqlite3.Error, *DAMAGE) as error:
        problems = (f"the tables hold what was never written: {error}",)
    differences = [Difference("", "what the entries say", shown(p)) for p in problems]
    found.add("ledger", "hash chain and balances", differences)
    named = artifacts.named(database)
    past, state = _again(stored, database)
    if past is None or state is None:
        stored.expected |= artifacts.check(found, folder, named)
        stored.without_books()
        return
    stored.stand(past, state)
    found.add("ledger", "caps", tuple(claims.caps(past.config, past.timeline.entries)))
    made = set(past.memory.made)
    later = set() if stored.settled else made - named
    stored.expected |= artifacts.check(
        found, folder, named | made, sound=past.memory.sound, later=later
    )
    checks: dict[Group, Callable[[], None]] = {
        "plan": lambda: plans.check(found, past, database),
        "reviews": lambda: stored.reviews(past),
        "records": lambda: stored.records(past, state),
        "data set": lambda: stored.texts(past),
        "reports": lambda: reported.check(stored, past, state),
        "rows": lambda: rows.check(found, past) if detectors else None,
    }
    for group, check in checks.items():
        try:
            check()
        except (AgentError, sqlite3.Error, *DAMAGE) as error:
            found.add(group, f"all of {group}", [_unreadable(error)])
    stored.foreign(past, state)


def _seal(database: RunDatabase) -> str:
    rows = database.query("SELECT seq, hash FROM entries ORDER BY seq DESC LIMIT 1")
    return f"{shown(rows[0]['seq'])} entries, {shown(rows[0]['hash'])}" if rows else ""


def _again(stored: Stored, database: RunDatabase) -> tuple[Past | None, Again | None]:
    """The run done again; None if not even its beginning can be read."""
    run, found, folder = stored.run, stored.found, stored.folder
    if run is None:
        return None, None
    try:
        past = open_past(folder.path, _begun(run), database)
    except AgentError as error:
        found.add("records", RECORD, [Difference("config", "valid", shown(str(error)))])
        return None, None
    except (sqlite3.Error, *DAMAGE) as error:
        found.add("ledger", BOOKS, [_unreadable(error)])
        return None, None
    texts = {n: folder.read(n) or b"" for n in folder.names if n.endswith("-learnings.md")}
    state = again(past, Known(run, stored.rounds, texts))
    if state.broken:
        differences = [Difference("", "every stage", shown(state.broken))]
        found.add("records", "the run done again", differences)
    elif state.open:
        found.notes.append(f"done again as far as it has come: {shown(state.open)}")
    found.unverifiable += state.unverifiable
    return past, state


def _unfit(found: Verified, folder: Folder) -> None:
    """Records that cannot be read, and what is no file."""
    for name, difference in folder.damaged.items():
        found.add(group_of(name), name, [difference])
    for name in folder.links:
        found.add(group_of(name), name, [Difference("", "a file of its own", "a link")])


def _begun(run: RunRecord) -> RunRecord:
    """A run's record as it was when the run began."""
    config = check_config(run.config, source=RECORD)
    return run.model_copy(
        update={
            "config": config.model_dump(mode="json"),
            "config_digest": config.digest(),
            "limit_usd": config.budget.limit_usd,
            "status": "running",
            "reason": "just begun",
            "engine": None,
            "replans": (),
            "need": None,
            "plan": None,
            "dataset": None,
        }
    )


def _unreadable(error: BaseException) -> Difference:
    return Difference("", "what can be read", shown(str(error)))
