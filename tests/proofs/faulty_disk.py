"""A run whose disk fails at the call that a test names, through the real command line.

The shim is ``faulty_disk.c``, built here once a session; where there is no C compiler the proofs
that need it are skipped. The one idea: a process that has everything imported forks a child for
each command, so that hundreds of runs with one fault each take minutes.
"""

import atexit
import contextlib
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from bookkeeping import in_memory

HERE = Path(__file__).parent
WAITING = 3
YAML = (  # wide gates, so that the second round passes after a few rows
    # A power cut charges the micro-batch under way its whole lease, so this is a short one.
    "engine: {kind: scripted, lease_seconds: 10}\n"
    "pilot: {micro_batch: 32}\n"
    "thresholds: {runaway: {max: 0.2}, repetition: {max: 0.2}, token_limit: {max: 0.2},\n"
    "  truncated: {max: 0.2}, delimiter_leak: {max: 0.2}, empty: {max: 0.2}}\n"
    "scale: {examples: 40, micro_batch: 16, shard_rows: 20}\n"
)


@dataclass(frozen=True, slots=True)
class Reply:
    """How one command ended."""

    code: int
    """Its exit code."""
    out: str
    """Its standard output."""
    err: str
    """Its standard error."""
    calls: int
    """Watched calls that it made."""
    failed: str
    """The call that failed first; empty if none did."""


def build(folder: Path) -> Path:
    """The shim, compiled; skips the test where that cannot be done."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("the faulty disk needs Linux and a C compiler")
    library = folder / "faulty_disk.so"
    source = HERE / "faulty_disk.c"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl", "-pthread"]
    subprocess.run(command, check=True, capture_output=True)
    return library


class Disk:
    """Commands on run ``r`` in any reports folder below ``folder``."""

    def __init__(self, folder: Path, server: "subprocess.Popen[str]") -> None:
        self.folder = folder
        self._server = server
        self.config = folder / "budget.yaml"
        self.config.write_text(YAML, encoding="utf-8")

    def command(self, reports: Path, *argv: str, **order: Any) -> Reply:
        """Run one command line; ``fail_at``, ``error`` and ``forever`` or ``log`` set the shim."""
        out, err = self.folder / "out", self.folder / "err"
        order |= {"argv": argv, "folder": str(reports), "out": str(out), "err": str(err)}
        assert self._server.stdin is not None and self._server.stdout is not None
        print(json.dumps(order), file=self._server.stdin, flush=True)
        reply = json.loads(self._server.stdout.readline())
        texts = [p.read_text(encoding="utf-8", errors="replace") for p in (out, err)]
        return Reply(reply["code"], *texts, calls=reply["calls"], failed=reply["failed"])

    def run(self, reports: Path, **order: Any) -> Reply:
        """The command ``run``."""
        argv = ("run", "--config", str(self.config), "--run-id", "r", "--reports", str(reports))
        return self.command(reports, *argv, **order)

    def approve(self, reports: Path, **order: Any) -> Reply:
        """The command ``approve``, for the plan that the run was left waiting with."""
        plan = json.loads((reports / "r" / "run.json").read_text(encoding="utf-8"))["plan"]
        argv = ("approve", "r", "--plan", plan["hash"], "--accept-need", "--accept-shortfall")
        return self.command(reports, *argv, "--reports", str(reports), **order)

    def resume(self, reports: Path, **order: Any) -> Reply:
        """The command ``resume``."""
        return self.command(reports, "resume", "r", "--reports", str(reports), **order)

    def finish(self, reports: Path) -> list[Reply]:
        """Go on as a person would, until the run is done; at most five commands."""
        replies: list[Reply] = []
        while len(replies) < 5:
            replies.append(self._next(reports))
            if replies[-1].code not in (0, 3):
                break
            if replies[-1].code == 0:
                break
        return replies

    def _next(self, reports: Path) -> Reply:
        record = reports / "r" / "run.json"
        if not record.exists():
            return self.run(reports)
        waits = json.loads(record.read_text(encoding="utf-8"))["status"] == "waiting"
        if not waits:
            return self.resume(reports)
        reply = self.approve(reports)
        given = reply.code == 2 and "go on with: resume" in reply.err
        return self.resume(reports) if given else reply


@contextmanager
def faulty_disk(folder: Path) -> Iterator[Disk]:
    """A disk below ``folder`` that does what it is told."""
    library = build(folder)
    environment = {**os.environ, "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, HERE / "faulty_disk_server.py"],
        cwd=HERE.parents[1], env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as server:  # fmt: skip
        try:
            yield Disk(folder, server)
        finally:
            assert server.stdin is not None
            server.stdin.close()
            try:
                server.wait(timeout=60)
            finally:
                server.kill()


def rows_of(reports: Path) -> str:
    """SHA-256 over every file of the published data set that holds rows."""
    dataset = reports / "r" / "dataset"
    names = sorted(str(p.relative_to(dataset)) for p in dataset.rglob("*") if p.is_file())
    manifest = json.loads((dataset / "manifest.json").read_text(encoding="utf-8"))
    written = {f["path"]: f["sha256"] for f in manifest["files"]}
    assert set(names) - {"manifest.json"} == set(written), "the manifest names every file"
    digest = hashlib.sha256()
    for name, expected in sorted(written.items()):
        found = hashlib.sha256((dataset / name).read_bytes()).hexdigest()
        assert found == expected, f"{name} is not what the manifest says"
        if name != "README.md":
            digest.update(f"{name} {found}\n".encode())
    return digest.hexdigest()


def faults_of(reports: Path) -> list[str]:
    """Everything wrong with a run that is done: books, artifacts, what is pending or left."""
    from agent.money.audit import audit
    from agent.money.database import RunDatabase
    from agent.store import RunStore

    store = RunStore.open(reports, "r")
    with RunDatabase(store.database_path) as database:
        found = [str(f) for f in audit(database)]
        pending = database.query("SELECT op_id FROM operations WHERE state = 'pending'")
        found += [f"{row[0]} is pending" for row in pending]
        bodies = [json.loads(row[0]) for row in database.query("SELECT body FROM results")]
    for body in bodies:
        if isinstance(name := body.get("artifact"), str):
            store.get_artifact(name)
    found += [f"{p.name} was left" for p in store.path.rglob(".*") if p.name.endswith(".tmp")]
    return found


def fresh(disk: Disk, name: str) -> Path:
    """An empty reports folder."""
    reports = disk.folder / name
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir()
    return reports


@functools.cache
def shared_disk() -> Disk:
    """One disk for all tests of this process, closed when it ends."""
    memory = in_memory()
    stack = contextlib.ExitStack()
    atexit.register(next, memory, None)
    atexit.register(stack.close)
    return stack.enter_context(faulty_disk(next(memory)))


class Undisturbed:
    """A run without a fault: what it wrote, and how many calls that took."""

    def __init__(self, disk: Disk) -> None:
        self.reports = fresh(disk, "undisturbed")
        self.logs = (disk.folder / "run.log", disk.folder / "approve.log")
        first = disk.run(self.reports, log=str(self.logs[0]))
        assert first.code == WAITING, first.err
        self.waiting = disk.folder / "waiting"
        shutil.copytree(self.reports, self.waiting)
        second = disk.approve(self.reports, log=str(self.logs[1]))
        assert second.code == 0, second.err
        self.calls = {"run": first.calls, "approve": second.calls}
        self.rows = rows_of(self.reports)
        assert faults_of(self.reports) == []


@functools.cache
def undisturbed_run() -> Undisturbed:
    """The one of :func:`shared_disk`."""
    return Undisturbed(shared_disk())
