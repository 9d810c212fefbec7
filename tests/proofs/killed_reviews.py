"""Processes that ask for a review and die of SIGKILL at a chosen point, from one warm parent.

The parent imports everything once and forks for every order, so that a death costs milliseconds.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from bookkeeping import ROOT

POINTS: Final = (
    "reserved, not sent",
    "in the air",
    "answered, not kept",
    "kept, not settled",
    "settled, not read",
    "read, not remembered",
    "remembered",
)
"""Where a process dies; in the air, the test kills it."""


class Nursery:
    """Forks processes that work on a run, and waits for them."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def begin(self, root: Path, point: str) -> int:
        """The id of a process that asks for the review of round 1 and dies at ``point``."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{root}\t{point}\n")
        self._process.stdin.flush()
        return int(self._line())

    def end(self) -> int:
        """The signal that the process died of; 0 if it went home."""
        return int(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@contextmanager
def nursery() -> Iterator[Nursery]:
    """A warm parent."""
    process = subprocess.Popen(
        [sys.executable, __file__],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Nursery(process)
    finally:
        process.communicate(timeout=60)


def review_once(root: Path) -> None:
    """Open the run ``r`` as a process does, and have round 1 reviewed."""
    from agent.session import open_session
    from agent.stages import reviewing

    with open_session(root, "r") as session:
        reviewing.ask(session, 1, lambda event: None)


def _die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _after(work: Callable[..., Any]) -> Callable[..., Any]:
    def fatal(*args: Any, **kwargs: Any) -> None:
        work(*args, **kwargs)
        _die()

    return fatal


def _arm(point: str) -> None:
    """Make this process die at ``point``."""
    from agent.money.journal import Journal
    from agent.reviewers import llm
    from agent.reviewers.reply import Reply
    from agent.stages.requests import Requests

    targets: dict[str, tuple[Any, str, Callable[..., Any]]] = {
        "reserved, not sent": (llm, "post_chat", _die),
        "answered, not kept": (Requests, "_keep", _die),
        "kept, not settled": (Requests, "_settle", _die),
        "settled, not read": (Reply, "review", _die),
        "read, not remembered": (Journal, "once", _die),
        "remembered": (Journal, "once", _after(Journal.once)),
    }
    if point in targets:
        setattr(*targets[point])


def _serve() -> None:
    import httpx2  # noqa: F401
    import openai  # noqa: F401

    import agent.stages.reviewing  # noqa: F401

    for line in sys.stdin:
        root, point = line.rstrip("\n").split("\t")
        child = os.fork()
        if child == 0:
            _arm(point)
            review_once(Path(root))
            os._exit(0)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, flush=True)


if __name__ == "__main__":
    _serve()
