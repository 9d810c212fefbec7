"""The folder of one run: its artifacts and its records.

Paths are checked in ``agent/paths.py``; how bytes reach the disk is in ``agent/files.py``. The one
idea: whatever is read back is checked, and rows are kept under the hash of their content.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from agent.errors import RunError
from agent.files import (
    beside,
    fsync_tree,
    keep,
    make_folder,
    replacing,
    scratch,
    storage_errors,
    swap_folder,
)
from agent.index import NAME as INDEX
from agent.paths import check_reports, check_run_id, list_runs, within
from agent.records import RoundRecord, RunRecord

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_Model = TypeVar("_Model", bound=BaseModel)


def canonical_json(value: Any) -> str:
    """One line of JSON that is the same for equal values: sorted keys, ASCII, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def latest_run(root: Path) -> str:
    """Id of the run that was begun last; damaged ones are passed over.

    Raises:
        RunError: if there is none.
    """
    begun: dict[str, str] = {}
    for name in list_runs(root):
        with suppress(RunError):
            begun[name] = RunStore(root, name).load_run().created
    if not begun:
        raise RunError(f"there is no run in {str(root)!r} yet; start one with: run --budget USD")
    return max(begun, key=lambda name: (begun[name], name))


class RunStore:
    """The folder ``root/run_id`` and what is in it."""

    def __init__(self, root: Path, run_id: str) -> None:
        self.run_id = check_run_id(run_id)
        self.path = check_reports(root) / run_id
        self.fence: Callable[[], AbstractContextManager[None]] = nullcontext
        """Within it a file gets its name; a process that lost the run is refused there."""
        if self.path.is_symlink():
            raise RunError(f"{str(self.path)!r} is a link; a run's folder must be a real one")

    @classmethod
    def create(cls, root: Path, run_id: str) -> "RunStore":
        """Make the folder of a run that does not exist yet.

        Raises:
            RunError: if the id is not valid or is taken.
            StorageError: if the disk refuses.
        """
        store = cls(root, run_id)
        if run_id == "last":
            raise RunError("a run cannot be called 'last', which names the latest one")
        if run_id == INDEX:
            raise RunError(f"a run cannot be called {INDEX!r}, which is the index of all runs")
        # A folder without a record is what is left of a run that was never begun.
        if (store.path / "run.json").exists():
            raise RunError(f"run {run_id!r} exists already: resume it, or choose another id")
        make_folder(store.path)
        return store

    @classmethod
    def open(cls, root: Path, run_id: str) -> "RunStore":
        """The folder of a run that exists.

        Raises:
            RunError: if the id is not valid or there is no such run.
        """
        store = cls(root, run_id)
        if not store.path.is_dir():
            known = ", ".join(list_runs(root)[-5:]) or "none"
            raise RunError(f"there is no run {run_id!r} in {str(root)!r}; known runs: {known}")
        return store

    @property
    def database_path(self) -> Path:
        """The file of ledger, journal and approvals."""
        return self._database("run.sqlite")

    @property
    def checkpoint_path(self) -> Path:
        """The graph's checkpoints."""
        return self._database("checkpoints.sqlite")

    @property
    def lock_path(self) -> Path:
        """The file that the working process holds locked."""
        return self.resolve("run.lock")

    def _database(self, name: str) -> Path:
        """A database of the run; what SQLite writes beside it must be real files too."""
        for beside_it in ("-journal", "-wal", "-shm"):
            self.resolve(f"{name}{beside_it}")
        return self.resolve(name)

    def resolve(self, relative: str) -> Path:
        """The path of ``relative`` within the folder.

        Raises:
            RunError: if it would leave the folder, or passes through a link.
        """
        return within(self.path, relative)

    def write_bytes(self, relative: str, content: bytes) -> Path:
        """Replace a file durably and return its path.

        Raises:
            RunError: if ``relative`` leaves the folder.
            StorageError: if the disk refuses; the file then is as it was before.
        """
        path = self.resolve(relative)
        make_folder(path.parent)
        with self.fence(), replacing(path) as stream:
            stream.write(content)
        return path

    def write_text(self, relative: str, text: str) -> Path:
        """Replace a UTF-8 text file durably; lone surrogates are written as question marks."""
        return self.write_bytes(relative, text.encode("utf-8", errors="replace"))

    def write_json(self, relative: str, value: Any) -> Path:
        """Replace a JSON file durably, indented for people, keys sorted."""
        # Not as ASCII: an escaped lone surrogate could be written, but not be validated again.
        text = json.dumps(value, sort_keys=True, indent=2, allow_nan=False, ensure_ascii=False)
        return self.write_text(relative, text + "\n")

    @contextmanager
    def replacing_folder(self, relative: str) -> Iterator[Path]:
        """An empty folder beside ``relative`` that takes its place when the block ends well.

        Raises:
            StorageError: if the disk refuses; ``relative`` then is as it was, or not there.
        """
        target = self.resolve(relative)
        temporary = scratch(target)
        with storage_errors(target):
            temporary.mkdir()
            try:
                yield temporary
                fsync_tree(temporary)
                with self.fence():
                    swap_folder(temporary, target)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)

    def read_bytes(self, relative: str) -> bytes:
        """Content of a file of the run.

        Raises:
            RunError: if it is missing or cannot be read.
        """
        path = self.resolve(relative)
        try:
            return path.read_bytes()
        except OSError as error:
            raise RunError(f"cannot read {path}: {error.strerror or error}") from error

    def read_text(self, relative: str) -> str:
        """Text of a UTF-8 file of the run.

        Raises:
            RunError: if it is missing or not UTF-8.
        """
        try:
            return self.read_bytes(relative).decode("utf-8")
        except UnicodeDecodeError as error:
            raise _damaged(self.path / relative, "it is not UTF-8") from error

    def put_artifact(self, rows: Iterable[Mapping[str, Any]]) -> str:
        """Keep ``rows`` as JSON lines under the SHA-256 of their bytes, which is returned.

        Raises:
            StorageError: if the disk refuses.
        """
        digest = hashlib.sha256()
        folder = self.resolve("artifacts")
        make_folder(folder)
        with beside(folder, "artifact") as (stream, temporary):
            for row in rows:
                line = (canonical_json(row) + "\n").encode("ascii")
                digest.update(line)
                stream.write(line)
            name = digest.hexdigest()
            with self.fence():
                keep(stream, temporary, path=self.resolve(f"artifacts/{name}.jsonl"))
        return name

    def get_artifact(self, sha256: str) -> list[dict[str, Any]]:
        """The rows kept under ``sha256``.

        Raises:
            RunError: if they are missing, or are not what was kept.
        """
        if not _SHA256.fullmatch(sha256):
            raise RunError(f"{sha256[:80]!r} is not the SHA-256 of an artifact")
        name = f"artifacts/{sha256}.jsonl"
        content = self.read_bytes(name)
        if hashlib.sha256(content).hexdigest() != sha256:
            raise _damaged(self.path / name, "its content does not have the hash that is its name")
        return [json.loads(line) for line in content.splitlines()]

    def save_round(self, record: RoundRecord) -> None:
        """Write ``rounds/NN.json``."""
        self.write_json(f"rounds/{record.round:02d}.json", record.model_dump(mode="json"))

    def load_rounds(self) -> tuple[RoundRecord, ...]:
        """Every round's record, in order.

        Raises:
            RunError: naming the file that is damaged or missing.
        """
        stems = [path.stem for path in self.path.glob("rounds/*.json")]
        last = max((int(stem) for stem in stems if stem.isdecimal()), default=0)
        names = [f"rounds/{number:02d}.json" for number in range(1, last + 1)]
        records = tuple(self._load(name, RoundRecord) for name in names)
        for number, record in enumerate(records, start=1):
            if record.round != number:
                raise _damaged(self.path / names[number - 1], f"it holds round {record.round}")
        return records

    def save_run(self, record: RunRecord) -> None:
        """Write ``run.json``."""
        self.write_json("run.json", record.model_dump(mode="json"))

    def load_run(self) -> RunRecord:
        """The run's record.

        Raises:
            RunError: if it is damaged or missing, or the folder does not have the run's name.
        """
        record = self._load("run.json", RunRecord)
        if record.run_id != self.run_id:
            raise RunError(
                f"the folder {str(self.path)!r} holds run {record.run_id!r}: it was renamed or "
                f"copied; rename it back to {record.run_id!r}, and use that name"
            )
        return record

    def _load(self, relative: str, model: type[_Model]) -> _Model:
        try:
            return model.model_validate_json(self.read_text(relative))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "top level"
            raise _damaged(self.path / relative, f"{where}: {first['msg']}") from error


def _damaged(path: Path, what: str) -> RunError:
    return RunError(f"{path} is damaged: {what}; restore it from a copy, or start another run")
