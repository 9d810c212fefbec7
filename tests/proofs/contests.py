"""What several processes do to one run at once, and signals do to a working one.

Carried out by the fork server of ``forked.py``, each in a process of its own.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from borders import Death
from forked import EXAMPLES, MEMORY, RUN, Life, drive, error, fork, live, look, wait

HANG_SECONDS = 60.0
_ENDED = os.WEXITED | os.WNOHANG | os.WNOWAIT
_NOTE = "PROOF_NOTE"
"""Environment variable: the file that an engine makes when it begins to hang."""


@contextmanager
def copied(waiting: Path) -> Iterator[Path]:
    """A folder of reports with a run that waits for approval."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        yield Path(shutil.copytree(waiting, Path(folder) / "reports"))


def contest(waiting: Path, processes: int) -> dict[str, int]:
    """So many processes resume one run at once: how many proceeded, and with what the rest left."""
    with copied(waiting) as reports:
        start, started = os.pipe()
        told, telling = os.pipe()
        held, holding = os.pipe()

        def contend(reports: Path) -> int:
            from agent import runner
            from agent.errors import RunLocked

            def proceed(*_: Any, **__: Any) -> runner.Ending:
                os.write(telling, b"p")
                os.close(holding)
                os.read(held, 1)  # until nobody else tries any more
                return runner.Ending(RUN, "waiting", "", 3)

            runner._work = proceed
            os.read(start, 1)
            try:
                return runner.resume(reports, RUN, lambda event: None).exit_code
            except RunLocked as refused:
                os.write(telling, b"r")
                return refused.exit_code

        pids = [fork(reports, None, contend) for _ in range(processes)]
        os.write(started, b"." * processes)
        said = b""
        while len(said) < processes:
            said += os.read(told, 1)
        os.close(holding)
        codes = [wait(pid) for pid in pids]
        for end in (start, started, told, telling, held):
            os.close(end)
        paused, refused = codes.count(3), codes.count(11)
        return {"proceeded": said.count(b"p"), "paused": paused, "refused": refused}


def overtake(waiting: Path, asked: list[Any]) -> dict[str, Any]:
    """A runner stops at a border, its lock is lost, another one takes over; then it wakes up."""
    number, side = asked
    from agent.money import database

    database.WAIT_SECONDS = 0.2  # type: ignore[misc]
    with copied(waiting) as reports:
        said_yes, _ = live(reports, Life(), _say_yes)
        assert said_yes == 0, error(reports)
        sleeper = fork(reports, Death(number, side, by=signal.SIGSTOP), drive)
        _, status = os.waitpid(sleeper, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            return {"stopped": False}
        lock = reports / RUN / "run.lock"
        shutil.copy2(lock, lock.with_suffix(".copy"))  # its time tells when the sleeper stopped
        lock.with_suffix(".copy").replace(lock)
        taken, _ = live(reports, Life())
        refusal = error(reports)
        before = _content(reports / RUN)
        os.kill(sleeper, signal.SIGCONT)
        woken = wait(sleeper)
        if taken:  # it slept in the middle of a transaction, and nobody could take over
            return {"stopped": True, "taken": False, "refusal": refusal, "woken": woken,
                    "result": look(reports / RUN).result}  # fmt: skip
        after = _content(reports / RUN)
        changed = sorted(n for n in before.keys() | after.keys() if before.get(n) != after.get(n))
        return {"stopped": True, "taken": True, "changed": changed, "woken": woken,
                "said": error(reports), "result": look(reports / RUN).result}  # fmt: skip


def _say_yes(reports: Path) -> None:
    """Approve the plan and die, so that the next process has only to go on."""
    from agent import runner
    from agent.session import open_session

    plan = runner.offer(reports, RUN, EXAMPLES)
    with open_session(reports, RUN) as session:
        session.approvals.authorise(session.approvals.approve(plan.hash), session.ledger)


def _content(run: Path) -> dict[str, str]:
    """Every file by its hash; the checkpoints by their rows, since a reader may tidy the file."""
    found = {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in run.rglob("*")
        if path.is_file() and not path.name.startswith(("checkpoints.sqlite", "run.lock"))
    }
    digest = hashlib.sha256()
    with closing(sqlite3.connect(run / "checkpoints.sqlite")) as checkpoints:
        for line in checkpoints.iterdump():
            digest.update(line.encode())
    return found | {"checkpoints": digest.hexdigest()}


def terminate(waiting: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """A working run is sent signals, then resumed: how it left, how fast, and what came of it.

    The first comes at a ``border``, or ``after`` so many seconds of an engine that ``hangs``.
    """
    with copied(waiting) as reports:
        note, (first, *more) = reports / "note", asked["signals"]
        death = None if asked["hangs"] else Death(*asked["border"], by=first, note=str(note))
        pid = fork(reports, death, _commanded(asked["hangs"], asked["grace"], note))
        while not note.exists() and not os.waitid(os.P_PID, pid, _ENDED):
            time.sleep(0.001)
        if asked["hangs"]:
            time.sleep(asked["after"])
            os.kill(pid, first)
        struck = time.monotonic()
        for number in more:
            time.sleep(0.02)
            os.kill(pid, number)
        status = wait(pid, 30)
        seconds = time.monotonic() - struck
        noted = json.loads((reports / RUN / "run.json").read_text(encoding="utf-8"))["status"]
        last, _ = live(reports, Life())
        found = look(reports / RUN)
        return {"status": status, "seconds": seconds, "noted": noted, "last": last,
                "said": error(reports), "faults": found.faults, "result": found.result,
                "attempts": found.attempts}  # fmt: skip


def _commanded(hangs: str, grace: list[float] | None, note: Path) -> Callable[[Path], int]:
    """What the command line does: signals are caught first, and the ending is the exit code."""

    def work(reports: Path) -> int:
        from agent import signals

        signals.catch()
        from agent import runner, session
        from pipeline.engine.base import EngineSpec
        from pipeline.engine.process.engine import ProcessEngine
        from pipeline.engine.scripted import ScriptedEngine

        if grace is not None:
            given = {"grace": grace[0], "last": grace[1]}
            signals.Interruptible.__init__.__kwdefaults__.update(given)  # type: ignore[union-attr]
        os.environ[_NOTE] = str(note)
        if hangs == "process":
            opened = lambda _: ProcessEngine(EngineSpec(), factory="contests:hanging")  # noqa: E731
            session.open_session.__wrapped__.__kwdefaults__["engine"] = opened  # type: ignore[attr-defined]
        elif hangs == "thread":
            ScriptedEngine.generate = _hang  # type: ignore[method-assign]
        quiet: Callable[[Any], None] = lambda event: None  # noqa: E731
        ending = runner.resume(reports, RUN, quiet)
        if ending.status == "waiting":
            plan = runner.offer(reports, RUN, EXAMPLES)
            ending = runner.approve(reports, RUN, plan.hash, quiet, accept_shortfall=True)
        return ending.exit_code

    return work


def _hang(*_: Any) -> Any:
    Path(os.environ[_NOTE]).touch()
    time.sleep(HANG_SECONDS)


def hanging(_: Any) -> Any:
    """An engine, in a process of its own, that never answers."""
    from pipeline.engine.scripted import ScriptedEngine

    ScriptedEngine.generate = _hang  # type: ignore[method-assign]
    return ScriptedEngine()


def tampered(waiting: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """A run whose checkpoints were changed behind its back goes on: what came of it.

    Asked is the hostile ``kind`` and ``content`` (hexadecimal) of the latest checkpoint, or a
    ``flip`` of one bit of the file, after the run was killed at a late ``border``.
    """
    with copied(waiting) as reports:
        file = reports / RUN / "checkpoints.sqlite"
        if "flip" in asked:
            live(reports, Life(Death(*asked["border"])))
            _flip(file, random.Random(asked["flip"]))
        else:
            with closing(sqlite3.connect(file)) as checkpoints:
                place = "writes SET value" if asked["write"] else "checkpoints SET checkpoint"
                content = bytes.fromhex(asked["content"])
                checkpoints.execute(f"UPDATE {place} = ?, type = ?", (content, asked["kind"]))
                checkpoints.commit()
        status, _ = live(reports, Life())
        aside = file.with_name(f"{file.name}.damaged").exists()
        found = look(reports / RUN) if status == 0 else None
        return {"status": status, "said": error(reports), "aside": aside,
                "faults": found.faults if found else [], "result": found.result if found else None,
                "attempts": found.attempts if found else 0}  # fmt: skip


def _flip(file: Path, chance: random.Random) -> None:
    """One bit of the file, or of what SQLite keeps beside it."""
    beside = file.with_name(f"{file.name}-wal")
    if beside.exists() and beside.stat().st_size and chance.random() < 0.5:
        file = beside
    content = bytearray(file.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    file.write_bytes(content)
