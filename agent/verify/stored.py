"""Everything that is stored beside books and artifacts, against what was made again in memory.

The one idea: a run that has ended, or that waits, must hold every file exactly; one that was killed
may lack what it was about to write, or hold it as it was one step before, and nothing else.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Any

from agent.config_file import check_config
from agent.errors import ConfigError
from agent.lock import Holder
from agent.records import RoundRecord, RunRecord
from agent.verify import artifacts, claims, reported
from agent.verify.again import Again
from agent.verify.compare import compare
from agent.verify.findings import Difference, Group, Verified, shown
from agent.verify.folder import OWN, RECORD, Folder, group_of
from agent.verify.past import Past, as_json
from agent.verify.rendering import Renders
from agent.verify.reported import money
from agent.verify.standing import ENDED, follows, reached
from agent.verify.writers import other_program, same_rows

_EARLY = "the run has not come so far"


@dataclass(slots=True)
class Stored:
    """What a run's folder holds, and what is found of it."""

    folder: Folder
    """Its files."""
    found: Verified
    """Where checks go."""
    renders: Renders
    """Who renders reports."""
    working: Holder | None
    """The process that works on the run."""
    run: RunRecord | None
    """``run.json``, if it can be read."""
    rounds: dict[int, RoundRecord]
    """Those of ``rounds/NN.json`` that can be read."""
    expected: set[str] = field(default_factory=lambda: set(OWN))
    """Files that are accounted for."""

    told: bool = False
    """Whether the status that the run gives itself can be true."""
    settled: bool = False
    """Whether everything that follows must have been written."""

    def stand(self, past: Past, state: Again) -> None:
        """Take in how far the run has come."""
        assert self.run is not None
        self.told = follows(past, state, self.run)
        said = self.run.status in ENDED | {"waiting"}
        self.settled = not self.working and (said if self.told else reached(state))

    def reviews(self, past: Past) -> None:
        """Answers, by the hashes that were stored with the review."""
        for digests in artifacts.answers(past.journal.ledger.database):
            for name, digest in digests.items():
                self.expected.add(name)
                self.found.add("reviews", name, artifacts.by_hash(self.folder.read(name), digest))

    def records(self, past: Past, state: Again) -> None:
        """Every record as it must be; what could not be done again is taken as it stands."""
        assert self.run is not None
        for number, record in self.rounds.items():
            if number not in past.memory.rounds:
                past.memory.rounds[number] = record
                self.leave("records", round_name(number), "it is not done again")
        for number, record in sorted(past.memory.rounds.items()):
            name, content = round_name(number), as_json(record.model_dump(mode="json"))
            stored = self.folder.read(name) or b""
            if not self.settled and stored in past.memory.versions.get(number, ()):
                content = stored  # what came after was not written any more
                past.memory.rounds[number] = RoundRecord.model_validate_json(stored)
            self.compare("records", name, content)
        past.memory.run = self._ended(past, state)
        self.compare("records", RECORD, as_json(past.memory.run.model_dump(mode="json")))
        impossible = tuple(claims.possible(self.run, past.config, past.timeline.entries))
        self.found.add("records", "what run.json says of its beginning", impossible)
        self.found.unverifiable.append(
            f"when the run was created ({shown(self.run.created)}), within a day, and who was to "
            f"review it ({shown(self.run.reviewer)}), among whom its configuration names"
        )
        if self.run.tracks:
            self.found.unverifiable.append("how reviewers did in other runs, before this one began")

    def _ended(self, past: Past, state: Again) -> RunRecord:
        """The run's record at its end, with the money of when it was written last."""
        assert self.run is not None
        run, record = self.run, past.memory.run
        ending = (record.status, record.reason) if reached(state) else None
        if ending and run.status == "running" and reported.before(self, past):
            self.told, self.settled = False, not self.working
        if self.told and (run.status, run.reason) != ending:
            said: dict[str, Any] = {"status": run.status, "reason": run.reason}
            spent = {"confirmed_usd": run.confirmed_usd, "possible_usd": run.possible_usd}
            noted = [r.model_copy(update=said | spent) for r in past.memory.runs]
            record = run if run in noted else record.model_copy(update=said)
            why = f"why the run is {shown(run.status)}: {shown(run.reason)}"
            self.found.unverifiable.append(why)
        past.stand(
            state.last if self.settled else 0,
            past.timeline.end,
            lambda ledger: (
                (ledger.totals().confirmed_usd, ledger.totals().possible_usd)
                == (run.confirmed_usd, run.possible_usd)
            ),
        )
        return record.model_copy(update=money(past))

    def texts(self, past: Past) -> None:
        """Learnings reports, and every file of the data set."""
        first = sorted(
            past.memory.written.items(), key=lambda file: ("/data/" not in file[0], file)
        )
        for name, content in first:
            self.compare(group_of(name), name, content)

    def compare(self, group: Group, name: str, content: bytes) -> None:
        """Compare a file with what it must hold."""
        self.expected.add(name)
        if name in self.folder.damaged:
            return
        stored = self.folder.read(name)
        if stored is None and not self.settled:
            self.leave(group, name, "it is not written yet")
        elif self.working and (name == RECORD or name == round_name(len(self.rounds))):
            self.leave(group, name, "the run is being worked on")
        elif stored not in (None, content) and (why := self._incomparable(name, content)):
            self.leave(group, name, why)
        else:
            self.found.add(group, name, compare(name, content, stored))

    def _incomparable(self, name: str, content: bytes) -> str:
        """Why a file may have other bytes than would be written now; empty if it may not.

        A Parquet file carries no checksum of its own: its manifest must vouch for it, and its rows
        must be the same.
        """
        top, _, rest = name.partition("/")
        stored = self.folder.read(name) or b""
        if name.endswith(".png"):
            return other_program(name, stored)
        if rest in ("manifest.json", "README.md"):
            left = {c.name for c in self.found.left_out if c.name.startswith(f"{top}/data/")}
            return "it names hashes of files that another program wrote" if left else ""
        if not name.endswith(".parquet"):
            return ""
        digest = hashlib.sha256(stored).hexdigest().encode()
        vouched = digest in (self.folder.read(f"{top}/manifest.json") or b"")
        return other_program(name, stored) if vouched and same_rows(stored, content) else ""

    def leave(self, group: Group, name: str, why: str) -> None:
        """Leave a file out."""
        self.expected.add(name)
        self.found.add(group, name, left_out=why)

    def foreign(self, past: Past, state: Again) -> None:
        """Files that nothing accounts for."""
        books = past.journal.ledger.database
        for name in self.folder.names:
            if name in self.expected or name in self.folder.damaged:
                continue
            if why := artifacts.left_by_a_failure(books, self.folder, name):
                self.leave(group_of(name), name, why)
            elif state.broken:
                self.leave(group_of(name), name, "what it follows from cannot be made again")
            elif self.working or not (self.settled or reached(state)):
                self.leave(group_of(name), name, _EARLY)
            else:
                difference = Difference("", "no such file", "one that nothing accounts for")
                self.found.add(group_of(name), name, [difference])

    def without_books(self) -> None:
        """What can still be said where books or configuration cannot be read."""
        for name in self.folder.names:
            if name in self.expected:
                continue
            wrong = self._own() if name == RECORD else ()
            if wrong:
                self.found.add("records", name, wrong)
            else:
                self.leave(group_of(name), name, "what it follows from cannot be read")

    def _own(self) -> tuple[Difference, ...]:
        """What differs within ``run.json`` itself."""
        if self.run is None:
            return ()
        try:
            return tuple(claims.own(self.run, check_config(self.run.config, source=RECORD)))
        except ConfigError as error:
            return (Difference("config", "valid", shown(str(error))),)


def round_name(number: int) -> str:
    """Where a round's record is kept."""
    return f"rounds/{number:02d}.json"
