"""P7 and P8: a disk that fails at any call, is full, or forgets what was not fsynced."""

import errno
import json
import random
import re
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from bookkeeping import in_memory, open_books
from faulty_disk import (
    HERE,
    WAITING,
    Disk,
    Reply,
    Undisturbed,
    faults_of,
    fresh,
    rows_of,
    shared_disk,
    undisturbed_run,
)
from power_cut import MODES, Model, lost_records, read_log, restore

from agent.errors import StorageError
from agent.money.audit import audit
from agent.money.journal import Journal, Outcome

memory = pytest.fixture(in_memory)
STORAGE = 12
ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT)


@pytest.fixture
def disk() -> Disk:
    return shared_disk()


@pytest.fixture
def undisturbed() -> Undisturbed:
    return undisturbed_run()


def spread(count: int, points: int, offset: float) -> list[int]:
    """``points`` of 1 .. count, evenly; all of them if there are no more."""
    if points >= count:
        return list(range(1, count + 1))
    return [1 + int((i + offset) * count / points) for i in range(points)]


def check_failure(reply: Reply, *, at: str) -> None:
    """It failed as a disk fault does: its exit code, one message, what to do, no traceback."""
    said = reply.err.strip().splitlines()[-1] if reply.err.strip() else ""
    assert reply.code == STORAGE, f"{at}: exit code {reply.code}: {reply.err[-800:]}"
    assert "Traceback" not in reply.err + reply.out, f"{at}: {reply.err[-800:]}"
    assert said.startswith("error: cannot "), f"{at}: {said}"
    assert re.search(r"then (resume|render|try|start)", said), f"{at}: what to do? {said}"
    assert "the output" not in said, f"{at}: it is not the output that failed: {said}"


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """A file system in memory of that size; skips the test where it cannot be had."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a file system of a given size needs the right to mount one")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


class TestP8:
    """Disk full or I/O error at any write."""

    def test_any_call_may_fail(
        self,
        disk: Disk,
        undisturbed: Undisturbed,
        effort: Callable[..., int],
        figure: Callable[[str, str], None],
    ) -> None:
        points = effort(sample=2, proof=50, soak=10_000)
        ways: Counter[str] = Counter()
        kinds: set[str] = set()
        for turn, (what, k) in enumerate(self._points(undisturbed, points)):
            for error in ERRORS if points >= 10_000 else (ERRORS[turn % 3],):
                kind, ended = self._fail(disk, undisturbed, what, k, error)
                ways[ended] += 1
                kinds.add(kind)
        assert ways["stopped"] > 0.5 * ways.total(), "faults that nobody sees prove nothing"
        figure(
            "P8",
            f"{ways.total()} of {sum(undisturbed.calls.values())} calls failed, in {len(kinds)} "
            f"kinds of call and file, with 3 errnos: {ways['stopped']} stopped with exit code 12 "
            f"and what to do, {ways['unharmed']} did no harm; 0 corrupt artifacts accepted, "
            f"all {ways.total()} ended with the undisturbed rows by SHA-256",
        )

    @staticmethod
    def _points(undisturbed: Undisturbed, points: int) -> list[tuple[str, int]]:
        half = max(1, points // 3)
        run = spread(undisturbed.calls["run"], half, 0.55)
        approve = spread(undisturbed.calls["approve"], max(1, points - half), 0.7)
        return [("run", k) for k in run] + [("approve", k) for k in approve]

    def _fail(
        self, disk: Disk, undisturbed: Undisturbed, what: str, k: int, error: int
    ) -> tuple[str, str]:
        """One command whose k-th call fails; a full disk stays full, an I/O error may pass."""
        reports = fresh(disk, "faulty")
        if what == "approve":
            shutil.copytree(undisturbed.waiting, reports, dirs_exist_ok=True)
        command = disk.run if what == "run" else disk.approve
        reply = command(reports, fail_at=k, error=error, forever=int(error != errno.EIO))
        at = f"{what}, call {k} ({reply.failed}), {errno.errorcode[error]}"
        done = reply.code in (0, WAITING)
        if not done:
            check_failure(reply, at=at)
        last = reply
        if reply.code != 0:
            last = disk.finish(reports)[-1]
        assert last.code == 0, f"{at}: then {last.code}: {last.err[-800:]}"
        assert rows_of(reports) == undisturbed.rows, at
        assert faults_of(reports) == [], at
        kind = re.sub(r"[0-9a-f]{8,}|\d+", "#", reply.failed)
        return kind, "unharmed" if done else "stopped"

    def test_a_commit_that_was_made_although_it_failed(self, memory: Path) -> None:
        ledger = open_books(memory)
        real = ledger.database.transaction

        @contextmanager
        def failing() -> Iterator[None]:
            with real():
                yield
            if ledger.database._depth == 0:
                raise StorageError("cannot use it: the disk reports an error, then resume the run")

        def work() -> Outcome:
            ledger.database.transaction = failing  # type: ignore[method-assign]
            return Outcome({}, 0)

        with pytest.raises(StorageError):
            Journal(ledger).once("a", worst_case=10, stage="pilot", do=work)
        ledger.database.transaction = real  # type: ignore[method-assign]
        found = Journal(ledger).find("a")
        assert found is not None, "the disk failed after the commit"
        assert audit(ledger.database) == () and ledger.totals().pending == 0

    def test_a_file_system_that_is_really_full(
        self,
        disk: Disk,
        undisturbed: Undisturbed,
        effort: Callable[..., int],
        figure: Callable[[str, str], None],
    ) -> None:
        sizes = effort(sample=0, proof=3, soak=30)
        if not sizes:
            pytest.skip("for the larger sizes")
        used = sum(p.stat().st_size for p in undisturbed.reports.rglob("*") if p.is_file())
        for number in range(sizes):
            kilobytes = int(used / 1024 * (0.1 + 0.7 * number / sizes))
            with mounted(disk.folder / "small", f"{kilobytes}k") as reports:
                # Without the preflight's own look at the disk, which would stop it at once.
                reply = disk.run(reports, unwarned=True)
                if reply.code == WAITING:
                    reply = disk.approve(reports, unwarned=True)
                check_failure(reply, at=f"{kilobytes} KB")
                subprocess.run(["mount", "-o", "remount,size=1g", str(reports)], check=True)
                assert disk.finish(reports)[-1].code == 0, f"{kilobytes} KB"
                assert rows_of(reports) == undisturbed.rows
                assert faults_of(reports) == []
        figure(
            "P8",
            f"{sizes} file systems really full, at {sizes} sizes below the {used:,} bytes of a "
            "run: exit code 12, and the undisturbed rows by SHA-256 when there was space",
        )

    @pytest.mark.parametrize("argv", [("status",), ("status", "--json"), ("ledger",), ("report",)])
    def test_an_output_that_is_full(self, undisturbed: Undisturbed, argv: tuple[str, ...]) -> None:
        before = rows_of(undisturbed.reports)
        with Path("/dev/full").open("wb") as full:
            command = [sys.executable, "-m", "agent", argv[0], "r", *argv[1:]]
            ended = subprocess.run(
                [*command, "--reports", str(undisturbed.reports)],
                cwd=HERE.parents[1], stdout=full, stderr=subprocess.PIPE, text=True, check=False,
            )  # fmt: skip
        assert ended.returncode == STORAGE, ended.stderr
        assert ended.stderr.startswith("error: cannot write the output: No space left on device")
        assert "Traceback" not in ended.stderr and "Exception ignored" not in ended.stderr
        assert rows_of(undisturbed.reports) == before


class TestP7:
    """What was acknowledged survives a power cut."""

    def test_at_every_border(
        self,
        disk: Disk,
        undisturbed: Undisturbed,
        effort: Callable[..., int],
        figure: Callable[[str, str], None],
    ) -> None:
        every = effort(sample=60, proof=4, soak=1)
        resumed = effort(sample=1, proof=24, soak=10_000)
        chance = random.Random(7)
        cuts, resumes, checked = 0, 0, 0
        calls = [call for log in undisturbed.logs for call in read_log(log)]
        borders = [i for i, call in enumerate(calls) if call.kind != "A"]
        stride = max(1, len(borders) // max(1, resumed))
        model = Model(disk.folder / "undisturbed")
        for border, index in enumerate(borders):
            following = borders[border + 1] if border + 1 < len(borders) else len(calls)
            for call in calls[index:following]:
                model.follow(call)
            if border % every == every - 1 or border == len(borders) - 1:
                for mode in MODES:
                    held = model.after_a_cut(mode, chance)
                    checked += self._nothing_lost(disk, model, held, f"border {border}, {mode}")
                    cuts += 1
            if border % stride == stride - 1:
                mode = MODES[(border // stride) % len(MODES)]
                self._resumes(disk, undisturbed, model.after_a_cut(mode, chance), border, mode)
                resumes += 1
        assert checked > cuts, "most cuts come after something was acknowledged"
        figure(
            "P7",
            f"{cuts} power cuts at {len(borders)} borders, 4 modes: 0 of {checked} acknowledged "
            f"records lost, 0 unreadable states; all {resumes} resumed ones ended with the "
            "undisturbed rows by SHA-256",
        )

    def _nothing_lost(self, disk: Disk, model: Model, held: dict[str, bytes], at: str) -> int:
        assert lost_records(model, held) == [], at
        if model.books is None:
            return len(model.past)
        folder = fresh(disk, "cut")
        restore({n: c for n, c in held.items() if n.startswith("r/run.sqlite")}, folder)
        with closing(sqlite3.connect(folder / "r" / "run.sqlite")) as database:
            database.execute("PRAGMA journal_mode=TRUNCATE")
            chain = dict(database.execute("SELECT seq, hash FROM entries").fetchall())
            results = dict(database.execute("SELECT op_id, body FROM results").fetchall())
            said = {
                i: (p, s) for i, p, s in database.execute("SELECT id, plan, state FROM approvals")
            }
        lost = [f"entry {seq}" for seq, digest in model.books["chain"] if chain.get(seq) != digest]
        lost += [f"result {op}" for op, body in model.books["results"] if results.get(op) != body]
        for approval, plan, state in model.books["approvals"]:
            if approval not in said or (state == "used" and said[approval] != (plan, "used")):
                lost.append(approval)
        assert lost == [], at
        for body in results.values():
            if name := json.loads(body).get("artifact"):
                assert f"r/artifacts/{name}.jsonl" in held, f"{at}: the journal names {name}"
        return len(model.past) + sum(map(len, model.books.values()))

    def _resumes(
        self, disk: Disk, undisturbed: Undisturbed, held: dict[str, bytes], border: int, mode: str
    ) -> None:
        reports = fresh(disk, "cut")
        restore(held, reports)
        last = disk.finish(reports)[-1]
        at = f"border {border}, {mode}"
        assert last.code == 0, f"{at}: {last.code}: {last.err[-800:]}"
        assert rows_of(reports) == undisturbed.rows, at
        assert faults_of(reports) == [], at
