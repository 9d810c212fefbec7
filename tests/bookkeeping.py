"""Books for tests: a ledger in a folder, a clock that is set by hand, and children that die."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from agent.money.database import RunDatabase
from agent.money.ledger import Ledger
from agent.money.plan import Interval, Plan
from pipeline.params import GenParams

ROOT = Path(__file__).parent.parent
CAP = 300_000_000
_OPENED: list[RunDatabase] = []


class Clock:
    """Time that passes only when told to."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


def open_books(
    folder: Path,
    limit: int = CAP,
    clock: Clock | None = None,
    sub_caps: Mapping[str, int] | None = None,
) -> Ledger:
    """The ledger of ``folder``, made first if there is none, claimed as a run does."""
    database = RunDatabase(folder / "run.sqlite", create=True, clock=clock or Clock())
    _OPENED.append(database)
    ledger = Ledger.create(database, limit, sub_caps=sub_caps or {})
    database.claim()
    return ledger


def in_memory() -> Iterator[Path]:
    """A folder where fsync costs nothing, if this machine has one.

    Others that keep a disk busy make each fsync take 20 ms. To be wrapped as a fixture.
    """
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)
        while _OPENED:
            _OPENED.pop().close()


def child(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A Python process that runs ``code`` beside this one, with ``arguments`` in sys.argv."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit status, output and errors of a child."""
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def plan(**changes: object) -> Plan:
    """A plausible plan."""
    interval = Interval(expected=2.0, low=1.0, high=3.0)
    fields = {
        "run_id": "r1",
        "version": "0.1.0",
        "params": GenParams(),
        "model": "embedded",
        "model_digest": "a" * 64,
        "prompts_digest": "b" * 64,
        "config_digest": "c" * 64,
        "device": "cpu",
        "dtype": "bfloat16",
        "threads": None,
        "seed": 1,
        "examples": 200,
        "attempts": 800,
        "max_attempts": 1000,
        "micro_batch": 96,
        "batch_size": None,
        "wave": 1,
        "shard_rows": 1500,
        "usd_per_hour": 0.05,
        "max_cost_usd": 2.5,
        "cost_usd": interval,
        "seconds": interval,
        "rows": interval,
        "usd_per_row": interval,
        "validated": True,
    }
    return Plan.model_validate({**fields, **changes})
