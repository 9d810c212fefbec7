"""Finished cells on disk: each is added when it is finished, and a killed one is begun again."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.tuning.cells import Cell
from benchmarks.tuning.host import ROOT
from benchmarks.tuning.starts import LIMIT_ROWS
from benchmarks.tuning.truth import TRUTH_ROWS, Truth

REPORTED: Final = (101, 102, 103)
"""Seeds of the table. Nothing is tuned on them; development takes others."""
RESULTS: Final = ROOT / "benchmarks" / "results" / "tuning.json"
SCRATCH: Final = ROOT / ".cache" / "tuning"
"""Folders of runs, and the results of other seeds."""
PAGE: Final = ROOT / "docs" / "TUNING.md"
"""What is written from the results."""


@dataclass(frozen=True, slots=True)
class Bench:
    """Where a comparison keeps what it finds, and on which engine it is run."""

    results: Path = RESULTS
    """Cells of reported seeds."""
    scratch: Path = SCRATCH
    """Runs, and cells of other seeds."""
    page: Path = PAGE
    """The page with its tables."""
    engine: str = "hf"
    """hf is the embedded model; scripted is for tests."""
    limit: int = LIMIT_ROWS
    """Answered rows of a cell at most."""
    truth_rows: int = TRUTH_ROWS
    """Answered rows from which true rates are taken."""

    def file(self, seed: int) -> Path:
        """Where cells of a seed are kept: those that are not reported apart."""
        return self.results if seed in REPORTED else self.scratch / "development.json"

    def folder(self, name: str) -> Path:
        """Where the run of a cell lies."""
        return self.scratch / name.replace("/", "-")


def named(found: Cell | Truth) -> str:
    """What a cell is called; true rates are called as the cell that ended on the setting."""
    return f"{found.start}/{found.tuner}/{found.seed}"


@dataclass(slots=True)
class Kept:
    """All finished cells of one file, by name."""

    cells: dict[str, Cell] = field(default_factory=dict)
    """Tuners' cells."""
    truths: dict[str, Truth] = field(default_factory=dict)
    """True rates of the settings that cells ended on."""

    @classmethod
    def read(cls, path: Path) -> "Kept":
        """What the file holds; nothing where there is none."""
        if not path.exists():
            return cls()
        tree = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            {name: Cell(**value) for name, value in tree["cells"].items()},
            {name: Truth(**value) for name, value in tree["truths"].items()},
        )

    def add(self, path: Path, found: Cell | Truth) -> None:
        """Keep one more, whole or not at all; the file is read first, others may have added."""
        now = Kept.read(path)
        name = named(found)
        if isinstance(found, Cell):
            now.cells[name] = found
            now.truths.pop(name, None)
        else:
            now.truths[name] = found
        self.cells, self.truths = now.cells, now.truths
        _write(path, {"cells": _json(now.cells), "truths": _json(now.truths)})


def _json(found: Mapping[str, Cell] | Mapping[str, Truth]) -> dict[str, Any]:
    return {name: asdict(value) for name, value in sorted(found.items())}


def _write(path: Path, tree: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(f".{os.getpid()}")
    beside.write_text(json.dumps(tree, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    beside.replace(path)
