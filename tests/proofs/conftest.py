"""Proofs of what the program promises: one test a promise, in three sizes.

``make test`` runs a sample of each, ``make proofs`` the size that a promise is stated with, ``make
soak`` ten times that or more. What the two larger ones measured is kept, and shown in
docs/RELIABILITY.md.
"""

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

FIGURES = Path(__file__).parents[2] / "benchmarks" / "results" / "promises.json"
"""What every proof measured last: by test, the promise, its figure, the size and when."""
LONGEST_SECONDS = {"sample": 120, "proof": 2700, "soak": 4 * 3600}
"""Of one proof; the suite's own timeout is for a sample."""

Effort = Callable[..., int]
Figure = Callable[[str, str], None]

_MEASURED = pytest.StashKey[dict[str, dict[str, Any]]]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A proof of full size may take long."""
    seconds = LONGEST_SECONDS[config.getoption("--effort")]
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(seconds))


@pytest.fixture
def effort(request: pytest.FixtureRequest) -> Effort:
    """``effort(sample=5, proof=60, soak=500)``: how many, for the size that was asked for."""
    size: str = request.config.getoption("--effort")

    def many(*, sample: int, proof: int, soak: int) -> int:
        return {"sample": sample, "proof": proof, "soak": soak}[size]

    return many


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Iterator[Figure]:
    """``figure("P1", "0 of 8,000 ...")``: what this proof measured, kept if it passes."""
    size: str = request.config.getoption("--effort")
    found: dict[str, dict[str, Any]] = {}
    began = time.monotonic()

    def note(promise: str, measured: str) -> None:
        found[f"{request.node.nodeid} {promise}"] = {
            "promise": promise,
            "figure": measured,
            "effort": size,
            "seconds": round(time.monotonic() - began, 1),
            "on": datetime.now(UTC).date().isoformat(),
        }

    yield note
    print("\n".join(f"{f['promise']}: {f['figure']}" for f in found.values()))
    request.config.stash.setdefault(_MEASURED, {}).update(found)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Keep the figures of a whole size; those of a failed run are not figures."""
    found = session.config.stash.get(_MEASURED, {})
    if session.config.getoption("--effort") == "sample" or exitstatus or not found:
        return
    kept = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
    text = json.dumps(kept | found, indent=2, sort_keys=True, ensure_ascii=False)
    FIGURES.write_text(text + "\n", encoding="utf-8")
