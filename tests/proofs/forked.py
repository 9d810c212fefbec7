"""A process that has imported everything and forks a run for every trial, so that a death is cheap.

Run as a program with a folder to work in: every line of trials is answered with a line of outcomes.
Nothing here starts a thread or a tensor before a fork. Pictures are left out: they take two thirds
of a run's time and hold nothing that another file does not.
"""

import atexit
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn, Self

from borders import ROOT, Borders, Death, Failpoint

RUN = "r"
CONFIG = {
    "engine": {"kind": "scripted"},
    "pilot": {"micro_batch": 256},
    "scale": {"examples": 60, "micro_batch": 32, "shard_rows": 50},
}
EXAMPLES = 60
MEMORY = Path("/dev/shm")
LONGEST_SECONDS = 60.0
"""Of one life; a run that hangs is a failure."""


@dataclass(frozen=True)
class Life:
    """One process of a run: it goes on until it is done, or dies."""

    death: Death | None = None
    """At a border."""
    seconds: float | None = None
    """Or after so long, by another's hand."""


@dataclass(frozen=True)
class Trial:
    """A run of several lives; one more is always added, which ends by itself."""

    lives: tuple[Life, ...]
    """Each goes on where the one before died."""
    waiting: bool = False
    """Begin with a run that waits for approval, instead of with nothing."""


@dataclass(frozen=True)
class Outcome:
    """What came of a trial."""

    died: int
    """Lives that were killed; the others ended before it was their turn."""
    passed: tuple[Failpoint, ...]
    """Borders of the last life."""
    result: dict[str, Any]
    """What must be the same however often the run was killed."""
    faults: tuple[str, ...]
    """What must never be."""
    attempts: int
    """Attempts at paid operations beyond the first one of each."""
    charged: int
    """Micro-dollars posted for attempts that died."""
    seconds: float
    """Of the last life."""


class Forks:
    """The server, as seen from a test; a context manager."""

    def __init__(self, *, workers: int = 2) -> None:
        self._workers = workers
        self.early: tuple[Failpoint, ...] = ()
        """Borders of a run up to its approval."""

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None)
        path = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
        self._process = subprocess.Popen(
            [sys.executable, __file__, self._folder.name, str(self._workers)],
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.early = tuple(Failpoint(**point) for point in self._answer())
        return self

    @property
    def waiting(self) -> Path:
        """A folder of reports with a run that waits for approval; to be copied."""
        return Path(self._folder.name) / "waiting"

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(LONGEST_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        finally:
            self._folder.cleanup()

    def carry_out(self, trials: Sequence[Trial]) -> list[Outcome]:
        """The outcome of every trial, in order."""
        return [_outcome(f) for f in self.call("forked:carry_out", [asdict(t) for t in trials])]

    def call(self, function: str, asked: Sequence[Any]) -> list[Any]:
        """What ``module:function`` answers to each thing asked, each in a process of its own."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([function, list(asked)]) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> list[Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the fork server ended: {self._process.wait()}"
        found: list[Any] = json.loads(line)
        return found


@cache
def forks() -> Forks:
    """One server for all tests of this process."""
    opened = Forks().__enter__()
    atexit.register(opened.__exit__)
    return opened


def _outcome(found: dict[str, Any]) -> Outcome:
    passed = tuple(Failpoint(**point) for point in found.pop("passed"))
    faults = tuple(found.pop("faults"))
    return Outcome(passed=passed, faults=faults, **found)


def _trial(asked: dict[str, Any]) -> Trial:
    lives = []
    for life in asked["lives"]:
        death = life["death"]
        if death is not None:
            at = Failpoint(**death["at"]) if death["at"] else None
            death = Death(death["number"], death["side"], at)
        lives.append(Life(death, life["seconds"]))
    return Trial(tuple(lives), asked["waiting"])


def drive(reports: Path) -> None:
    """Whatever is left to do, until the data set is there: start or resume, and say yes."""
    from agent import runner
    from agent.config_file import check_config

    quiet: Callable[[Any], None] = lambda event: None  # noqa: E731
    if (reports / RUN / "run.json").exists():
        ending = runner.resume(reports, RUN, quiet)
    else:
        ending = runner.start(reports, check_config(CONFIG, source="here"), RUN, quiet)
    if ending.status == "waiting":
        plan = runner.offer(reports, RUN, EXAMPLES)
        ending = runner.approve(reports, RUN, plan.hash, quiet, accept_shortfall=True)
    assert ending.status == "done", ending


def to_approval(reports: Path) -> None:
    """A run that waits for approval; for trials of what comes after."""
    from agent import runner
    from agent.config_file import check_config

    config = check_config(CONFIG, source="here")
    ending = runner.start(reports, config, RUN, lambda event: None)
    assert ending.status == "waiting", ending


def without_pictures(replace_in: Callable[[Any, str, Any], None] = setattr) -> None:
    """Leave the drawing out, and keep the files."""
    from agent.report import plots

    for name in ("metrics_over_rounds", "token_lengths", "spend"):
        replace_in(plots, name, lambda *_: b"\x89PNG")


def _warm_up(waiting: Path) -> None:
    """Import and compute whatever every run needs, and make a run that waits for approval."""
    import pyarrow.parquet
    import scipy.special
    import scipy.stats

    import agent.graph
    import agent.runner
    from agent.stages.preflight import _detectors
    from agent.store import RunStore

    assert agent.graph and agent.runner and pyarrow.parquet and scipy.stats and scipy.special
    without_pictures()
    waiting.mkdir()
    status, _ = live(waiting, Life(), to_approval)
    assert status == 0, error(waiting)
    for record in RunStore.open(waiting, RUN).load_rounds():
        _detectors(record.params.response.stop, 0.95)


def live(
    reports: Path, life: Life, work: Callable[[Path], int | None] = drive
) -> tuple[int, float]:
    """Exit status of one process of the run, and how long it lived; -9 is its death."""
    began = time.monotonic()
    pid = fork(reports, life.death, work)
    if life.seconds is not None:
        time.sleep(life.seconds)
        os.kill(pid, signal.SIGKILL)
    return wait(pid), time.monotonic() - began


def fork(reports: Path, death: Death | None, work: Callable[[Path], int | None]) -> int:
    """The id of a process that does ``work``, and dies where it is told to."""
    return os.fork() or _be(reports, death, work)


def wait(pid: int, seconds: float = LONGEST_SECONDS) -> int:
    """Exit status of a process; 99 if it had to be killed, since it did not end."""
    deadline = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return 99
        time.sleep(0.001)


def _be(reports: Path, death: Death | None, work: Callable[[Path], int | None]) -> NoReturn:
    status = 70
    try:
        borders = Borders(death)
        borders.install()
        status = work(reports) or 0
        passed = [asdict(point) for point in borders.passed]
        (reports / "passed.json").write_text(json.dumps(passed), encoding="utf-8")
    except SystemExit as left:
        status = int(left.code or 0)
    except BaseException as error:
        (reports / "error.txt").write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
        raise
    finally:
        os._exit(status)


def carry_out(waiting: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """All lives of a trial, and what is left in the end."""
    trial = _trial(asked)
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        reports = Path(folder)
        if trial.waiting:
            shutil.copytree(waiting, reports, dirs_exist_ok=True)
        faults, died = [], 0
        for life in trial.lives:
            status, _ = live(reports, life)
            died += status == -9
            if status not in (0, -9):
                faults.append(f"a life ended with {status}: {error(reports)}")
        status, seconds = live(reports, Life())
        if status:
            faults.append(f"the last life ended with {status}: {error(reports)}")
        passed = json.loads((reports / "passed.json").read_text(encoding="utf-8"))
        found = look(reports / RUN)
        return asdict(
            replace(found, died=died, passed=passed, seconds=seconds,
                    faults=(*faults, *found.faults, *_too_many(found.attempts, died)))
        )  # fmt: skip


def error(reports: Path) -> str:
    """What the last process that failed said."""
    with suppress(OSError):
        return (reports / "error.txt").read_text(encoding="utf-8")
    return "no error"


def _too_many(attempts: int, died: int) -> Iterator[str]:
    if attempts > died:
        yield f"{attempts} micro-batches were bought again after {died} deaths"


def look(run: Path) -> Outcome:
    """What a finished run holds, and what is wrong with it."""
    from agent.money.audit import audit
    from agent.money.chain import read
    from agent.money.database import RunDatabase
    from agent.money.journal import Journal
    from agent.money.ledger import Ledger
    from agent.store import RunStore

    store = RunStore.open(run.parent, run.name)
    with RunDatabase(run / "run.sqlite") as database:
        ledger, journal = Ledger(database), Journal(Ledger(database))
        rows, totals = ledger.rows(), ledger.totals()
        posts = Counter(e.entry.op_id for e in read(database) if e.entry.kind == "post")
        paid = [row for row in rows if not row.op_id.startswith("engine-release")]
        operations = Counter(row.op_id.partition("#")[0] for row in paid)
        bought = {op: journal.find(op) for op in operations}
        faults = [
            *(str(fault) for fault in audit(database)),
            *(f"{op} was posted {n} times" for op, n in posts.items() if n > 1),
            *(f"{row.op_id} is {row.state}" for row in rows if row.state == "pending"),
            *(f"{op} was paid and has no result" for op, found in bought.items() if found is None),
        ]
    if totals.pending:
        faults.append(f"{totals.pending} micro-dollars are pending")
    if totals.confirmed != sum(row.actual or 0 for row in rows if row.state == "posted"):
        faults.append("the sum confirmed is not the sum of the attempts")
    good = {found.attempt for found in bought.values() if found is not None}
    dead = [row for row in paid if row.op_id not in good]
    results = {op: _facts(found.result) for op, found in bought.items() if found is not None}
    train = (run / "dataset" / "train.jsonl").read_bytes()
    if len(set(train.splitlines())) != EXAMPLES:
        faults.append(f"{len(set(train.splitlines()))} distinct rows, not {EXAMPLES}")
    faults += [f"{row.op_id} was charged for nothing known" for row in dead if not row.note]
    faults += [f"left behind: {path.name}" for path in run.rglob("*.tmp")]
    return Outcome(
        died=0,
        passed=(),
        result={
            "rows": hashlib.sha256(train).hexdigest(),
            "results": results,
            "rounds": [_round(record) for record in store.load_rounds()],
            "status": store.load_run().status,
        },
        faults=tuple(faults),
        attempts=len(paid) - len(operations),
        charged=sum(row.actual or 0 for row in dead),
        seconds=0.0,
    )


def _facts(result: dict[str, Any]) -> dict[str, Any]:
    """A journal's result, without the time that it took."""
    return {k: v for k, v in result.items() if k not in ("seconds", "replans")}


def _round(record: Any) -> str:
    """A round's record, without its money and the figures that follow from time."""
    kept = record.model_dump(mode="json", exclude={"spend"})
    if kept.get("review"):
        kept["review"].pop("cost_usd")
    text = json.dumps(kept, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def main(folder: Path, workers: int) -> None:
    """Answer every line of trials, ``workers`` trials at a time."""
    waiting = folder / "waiting"
    _warm_up(waiting)
    print((waiting / "passed.json").read_text(encoding="utf-8"), flush=True)
    for line in sys.stdin:
        function, every = json.loads(line)
        answers = [folder / f"{number}.json" for number in range(len(every))]
        running: set[int] = set()
        for asked, answer in zip(every, answers, strict=True):
            while len(running) >= workers:
                running.discard(os.wait()[0])
            running.add(os.fork() or _answer(function, waiting, asked, answer))
        while running:
            running.discard(os.wait()[0])
        print("[" + ",".join(a.read_text(encoding="utf-8") for a in answers) + "]", flush=True)


def _answer(function: str, waiting: Path, asked: Any, to: Path) -> NoReturn:
    to.write_text("null", encoding="utf-8")
    try:
        module, name = function.split(":")
        found = getattr(import_module(module), name)(waiting, asked)
        to.write_text(json.dumps(found), encoding="utf-8")
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
