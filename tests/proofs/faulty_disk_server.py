"""Runs command lines in forked children of a process that has everything imported.

Started under the preloaded shim of ``faulty_disk.c`` by ``faulty_disk.py``; one JSON object a line
each way. With ``log`` set, the child also marks what it has acknowledged: every committed ledger
transaction, and every checkpoint that the graph went past.
"""

import contextlib
import ctypes
import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LONGEST_SECONDS = 120
WARM = (
    "agent.__main__",
    "agent.graph",
    "agent.report.render",
    "agent.stages.merging",
    "matplotlib.figure",
    "pyarrow.parquet",
    "scipy.stats",
)


def main() -> None:
    shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
    shim.disk_calls.restype = ctypes.c_long
    shim.disk_failed.restype = ctypes.c_char_p
    shim.disk_arm.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int, ctypes.c_int]
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    warm()
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            obey(shim, order)
        _, status = os.waitpid(pid, 0)
        reply = {
            "code": os.waitstatus_to_exitcode(status),
            "calls": shim.disk_calls(),
            "failed": shim.disk_failed().decode(errors="replace"),
        }
        print(json.dumps(reply), file=replies, flush=True)


def warm() -> None:
    """Import what a run imports on its way."""
    for name in WARM:
        importlib.import_module(name)


def obey(shim: Any, order: dict[str, Any]) -> None:
    """Run one command line as the real one does, and leave as its process would."""
    code = 70
    try:
        signal.alarm(LONGEST_SECONDS)
        for number, name in ((1, "out"), (2, "err")):
            handle = os.open(order[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(handle, number)
        if order.get("log"):
            shim.disk_log(order["folder"].encode(), order["log"].encode())
            marking(shim)
        else:
            at, error = order.get("fail_at", 0), order.get("error", 0)
            shim.disk_arm(order["folder"].encode(), at, error, order.get("forever", 0))
        from agent.__main__ import main as command
        from agent.stages import preflight

        if order.get("unwarned"):
            preflight.FREE_BYTES = 0  # type: ignore[misc]

        sys.argv = ["agent", *order["argv"]]
        command()
        code = 0
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except BaseException:  # noqa: BLE001 - what a person would see is what is tested
        traceback.print_exc()
        code = 1
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        os._exit(code)


def marking(shim: Any) -> None:
    """Mark every acknowledgement in the log."""
    from langgraph.checkpoint.sqlite import SqliteSaver

    from agent.money.database import RunDatabase

    real_transaction, real_put = RunDatabase.transaction, SqliteSaver.put

    @contextlib.contextmanager
    def transaction(self: RunDatabase) -> Iterator[None]:
        with real_transaction(self):
            yield
        if self._depth == 0 and self.query("SELECT 1 FROM sqlite_master WHERE name = 'approvals'"):
            shim.disk_mark(json.dumps({"books": books(self)}).encode())

    def put(self: SqliteSaver, *arguments: Any, **named: Any) -> Any:
        found = real_put(self, *arguments, **named)
        shim.disk_mark(json.dumps({"past": True}).encode())
        return found

    RunDatabase.transaction = transaction  # type: ignore[method-assign]
    SqliteSaver.put = put  # type: ignore[method-assign]


def books(database: Any) -> dict[str, Any]:
    """What a ledger has said yes to: the end of its chain, its results, its approvals."""
    return {
        "chain": [list(r) for r in database.query("SELECT seq, hash FROM entries ORDER BY seq")],
        "results": [list(r) for r in database.query("SELECT op_id, body FROM results")],
        "approvals": [list(r) for r in database.query("SELECT id, plan, state FROM approvals")],
    }


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main()
