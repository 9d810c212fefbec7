"""The ledger checked against its own entries, by arithmetic that shares nothing with its writing.

Artifacts and reports are for others to verify. The one idea: the entries alone tell every balance,
so replaying them must give the tables, with the cap kept after each single one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from agent.money import chain
from agent.money.chain import Entry
from agent.money.database import RunDatabase
from agent.money.schema import GENESIS


@dataclass(slots=True)
class _Operation:
    worst_case: int
    envelope: str | None
    state: str = "pending"
    actual: int | None = None
    excess: int = 0


@dataclass(slots=True)
class _Envelope:
    maximum: int
    spent: int = 0
    held: int = 0
    state: str = "open"


@dataclass(slots=True)
class _Replay:
    """Balances as the entries tell them."""

    cap: int = 0
    posted: int = 0
    pending: int = 0
    excess: int = 0
    operations: dict[str, _Operation] = field(default_factory=dict)
    envelopes: dict[str, _Envelope] = field(default_factory=dict)

    def apply(self, entry: Entry) -> None:
        """Follow one entry.

        Raises:
            KeyError: if it names what no earlier entry opened.
        """
        steps: dict[str, Callable[[Entry], None]] = {
            "open": self._open,
            "reserve": self._reserve,
            "post": self._post,
            "void": self._void,
            "envelope": self._set_aside,
            "close": self._close,
        }
        steps[entry.kind](entry)

    def _open(self, entry: Entry) -> None:
        self.cap = entry.amount

    def _reserve(self, entry: Entry) -> None:
        self.operations[entry.op_id] = _Operation(entry.amount, entry.envelope)
        if entry.envelope is None:
            self.pending += entry.amount
        else:
            self.envelopes[entry.envelope].held += entry.amount

    def _post(self, entry: Entry) -> None:
        operation = self.operations[entry.op_id]
        counted = entry.amount - entry.excess
        if operation.envelope is None:
            self.pending -= operation.worst_case
        else:
            envelope = self.envelopes[operation.envelope]
            envelope.held -= operation.worst_case
            inside = min(counted, envelope.maximum - envelope.spent - envelope.held)
            envelope.spent += inside
            self.pending -= inside
        self.posted += counted
        self.excess += entry.excess
        operation.state, operation.actual, operation.excess = "posted", entry.amount, entry.excess

    def _void(self, entry: Entry) -> None:
        operation = self.operations[entry.op_id]
        operation.state = "void"
        if operation.envelope is None:
            self.pending -= operation.worst_case
        else:
            self.envelopes[operation.envelope].held -= operation.worst_case

    def _set_aside(self, entry: Entry) -> None:
        self.envelopes[entry.op_id] = _Envelope(entry.amount)
        self.pending += entry.amount

    def _close(self, entry: Entry) -> None:
        envelope = self.envelopes[entry.op_id]
        self.pending -= envelope.maximum - envelope.spent
        envelope.state = "closed"


def audit(database: RunDatabase) -> tuple[str, ...]:
    """What is wrong with the ledger, a sentence each; empty if it is sound."""
    replay = _Replay()
    problems = list(_chain_problems(database))
    for sealed in chain.read(database):
        try:
            replay.apply(sealed.entry)
        except KeyError as error:
            problems.append(f"entry {sealed.seq} names {error}, which was never opened")
            continue
        if replay.posted + replay.pending > replay.cap:
            problems.append(f"entry {sealed.seq} exceeds the cap")
        if min(replay.posted, replay.pending) < 0:
            problems.append(f"entry {sealed.seq} makes a balance negative")
    return (*problems, *_table_problems(database, replay))


def _chain_problems(database: RunDatabase) -> Iterator[str]:
    previous = GENESIS
    count = 0
    for count, found in enumerate(chain.read(database), start=1):
        expected = chain.seal(
            found.entry, seq=count, at=found.at, owner=found.owner, previous=previous
        )
        if found != expected:
            yield f"entry {count} does not carry the hash of its content"
        previous = found.hash
    (pin,) = database.query("SELECT entries, head FROM totals")
    if (pin["entries"], pin["head"]) != (count, previous):
        yield f"there are {count} entries, {pin['entries']} were written"


def _table_problems(database: RunDatabase, replay: _Replay) -> Iterator[str]:
    (totals,) = database.query("SELECT cap, posted, pending, excess FROM totals")
    if tuple(totals) != (replay.cap, replay.posted, replay.pending, replay.excess):
        yield f"the totals are {tuple(totals)}, the entries give {replay.posted} posted"
    stored = {
        row["op_id"]: _Operation(
            row["worst_case"], row["envelope"], row["state"], row["actual"], row["excess"]
        )
        for row in database.query("SELECT * FROM operations")
    }
    yield from _differences("operation", stored, replay.operations)
    envelopes = {
        row["id"]: _Envelope(row["maximum"], row["spent"], row["held"], row["state"])
        for row in database.query("SELECT * FROM envelopes")
    }
    yield from _differences("envelope", envelopes, replay.envelopes)


def _differences(
    what: str,
    stored: dict[str, _Operation] | dict[str, _Envelope],
    told: dict[str, _Operation] | dict[str, _Envelope],
) -> Iterator[str]:
    for name in sorted(stored.keys() | told.keys()):
        if stored.get(name) != told.get(name):
            yield f"{what} {name!r} is {stored.get(name)}, the entries give {told.get(name)}"
