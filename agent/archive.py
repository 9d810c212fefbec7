"""What a run has bought, read without its lock: while it works, waits, or lies in a copied folder.

Nothing is written and nothing is paid for. The one idea: whatever reads bought rows asks for a
:class:`Bought`, so that the stages of a run and a person's question are answered by the same code.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from agent.config import RunConfig
from agent.config_file import check_config
from agent.errors import RunError
from agent.money.database import RunDatabase
from agent.money.journal import Journal
from agent.money.ledger import Ledger
from agent.store import RunStore


class Bought(Protocol):
    """A run's configuration, its folder, and the results of what it paid for."""

    @property
    def config(self) -> RunConfig:
        """As stored when the run began."""
        ...

    @property
    def store(self) -> RunStore:
        """Its folder."""
        ...

    def paid(self, op_id: str) -> dict[str, Any]:
        """The stored result of an operation that was paid for."""
        ...

    def has(self, op_id: str) -> bool:
        """Whether an operation was paid for and has a result."""
        ...


@dataclass(frozen=True, slots=True)
class Archive:
    """A run as its folder tells of it, to be read and not to be worked on."""

    config: RunConfig
    """As stored when the run began."""
    store: RunStore
    """Its folder."""
    journal: Journal
    """What was paid for, and what came of it."""

    def paid(self, op_id: str) -> dict[str, Any]:
        """The stored result of an operation that was paid for.

        Raises:
            RunError: if there is none.
        """
        found = self.journal.find(op_id)
        if found is None:
            raise RunError(
                f"the journal of run {self.store.run_id!r} holds no result of {op_id!r}: it was "
                "not bought yet, or the run's folder is not complete"
            )
        return found.result

    def has(self, op_id: str) -> bool:
        """Whether an operation was paid for and has a result."""
        return self.journal.find(op_id) is not None


@contextmanager
def open_archive(root: Path, run_id: str) -> Iterator[Archive]:
    """The archive of a run that exists.

    Raises:
        RunError: if there is no such run, or its records are damaged.
    """
    store = RunStore.open(root, run_id)
    config = check_config(store.load_run().config, source=str(store.path / "run.json"))
    if not store.database_path.exists():
        raise RunError(f"run {run_id!r} has no stored rows yet: it was never started")
    with RunDatabase(store.database_path, read_only=True) as database:
        yield Archive(config, store, Journal(Ledger(database)))
