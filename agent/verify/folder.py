"""What lies in a run's folder: names, bytes, and the records among them, however damaged.

Nothing here raises on what it finds. The one idea: a file that cannot be read as what its name
says is a difference like any other, in one line.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from agent.records import RoundRecord, RunRecord
from agent.verify.findings import Difference, Group, shown

RECORD: Final = "run.json"
BOOKS: Final = "run.sqlite"
OWN: Final = frozenset(
    {
        BOOKS, f"{BOOKS}-journal", "run.lock", "checkpoints.sqlite", "checkpoints.sqlite-wal",
        "checkpoints.sqlite-shm", "checkpoints.sqlite-journal", "checkpoints.sqlite.damaged",
    }
)  # fmt: skip
"""Files that are no reports, nor hold what reports rest on, but for the books."""
_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(slots=True)
class Folder:
    """The files of a run."""

    path: Path
    """Where they lie."""
    names: tuple[str, ...]
    """Every file below it, by its path."""
    links: tuple[str, ...]
    """Links, which no run makes and nothing here follows."""
    damaged: dict[str, Difference] = field(default_factory=dict)
    """Records that cannot be read."""

    def read(self, name: str) -> bytes | None:
        """A file's content; None if it is not there, or cannot be read."""
        if name not in self.names:
            return None
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            self.damaged[name] = Difference("", "a readable file", error.strerror or str(error))
            return None

    def run(self) -> RunRecord | None:
        """``run.json``, if it can be read."""
        return self._load(RECORD, RunRecord)

    def rounds(self) -> dict[int, RoundRecord]:
        """The rounds' records that can be read, by the number in their names."""
        names = {n: int(n[7:-5]) for n in self.names if _is_round(n)}
        read = {number: self._load(name, RoundRecord) for name, number in names.items()}
        return {number: record for number, record in sorted(read.items()) if record is not None}

    def _load(self, name: str, model: type[_Model]) -> _Model | None:
        content = self.read(name)
        if content is None:
            self.damaged.setdefault(name, Difference("", "a record", "no such file"))
            return None
        try:
            return model.model_validate_json(content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            self.damaged[name] = Difference(shown(where), "a valid record", shown(first["msg"]))
        return None


def look(path: Path) -> Folder:
    """The files below ``path``."""
    names, links = [], []
    for place, folders, files in os.walk(path):
        for name in (*folders, *files):
            entry = Path(place) / name
            relative = entry.relative_to(path).as_posix()
            if entry.is_symlink():
                links.append(relative)
            elif name in files:
                names.append(relative)
    return Folder(path, tuple(sorted(names)), tuple(sorted(links)))


def _is_round(name: str) -> bool:
    return name.startswith("rounds/") and name.endswith(".json") and name[7:-5].isdecimal()


def group_of(name: str) -> Group:
    """What a file is about, by its name."""
    top, _, rest = name.partition("/")
    if name == BOOKS:
        return "ledger"
    if top == "artifacts":
        return "artifacts"
    if top.startswith("dataset"):
        return "data set"
    if name == RECORD or (top == "rounds" and rest.endswith(".json")):
        return "records"
    return "reviews" if top == "rounds" else "reports"
