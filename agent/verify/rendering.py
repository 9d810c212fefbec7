"""Reports rendered again, in a process beside the one that checks rows.

Pictures take longer than all other checks of a small run. The one idea: rendering begins at once
from the records as they are stored, and its result counts only if those turn out to be genuine.
"""

import multiprocessing
import signal
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Protocol

from agent.records import RoundRecord, RunRecord
from agent.report.render import render_all

Files = dict[str, bytes]


class Renders(Protocol):
    """Renders every report of a run."""

    def begin(self, run: RunRecord, rounds: Sequence[RoundRecord]) -> None:
        """Be told what will probably be asked for."""

    def files(self, run: RunRecord, rounds: Sequence[RoundRecord]) -> Files:
        """Every report by its name."""

    def close(self) -> None:
        """Be told that nothing will be asked for any more."""


class Beside:
    """Renders in a process of its own, which is there until it is asked."""

    def __init__(self) -> None:
        self._asked: tuple[RunRecord, tuple[RoundRecord, ...]] | None = None
        self._process: multiprocessing.process.BaseProcess | None = None
        self._answer: Connection | None = None

    def begin(self, run: RunRecord, rounds: Sequence[RoundRecord]) -> None:
        """Start to render."""
        context = multiprocessing.get_context("spawn")  # a fork would keep the locks of threads
        self._answer, give = context.Pipe(duplex=False)
        self._asked = (run, tuple(rounds))
        self._process = context.Process(target=_render, args=(give, *self._asked), daemon=True)
        # The child inherits the mask: whoever started it ends it, and Ctrl-C is not for it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        self._process.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        give.close()

    def files(self, run: RunRecord, rounds: Sequence[RoundRecord]) -> Files:
        """Every report by its name; rendered here if it was not begun with these very records.

        Raises:
            ValueError: if the records hold what no report can be rendered from.
        """
        wanted = (run, tuple(rounds))
        found = self._finish() if self._asked == wanted else None
        return found if found is not None else rendered(*wanted)

    def _finish(self) -> Files | None:
        assert self._answer is not None and self._process is not None
        try:
            found: Files | None = self._answer.recv()
        except EOFError:
            found = None
        self.close()
        return found

    def close(self) -> None:
        """End the process, whether or not it was asked for its answer."""
        if self._answer is not None and self._process is not None:
            self._answer.close()
            self._process.kill()
            self._process.join()
        self._asked = self._answer = self._process = None


def _render(give: Connection, run: RunRecord, rounds: Sequence[RoundRecord]) -> None:
    give.send(rendered(run, rounds))


def rendered(run: RunRecord, rounds: Sequence[RoundRecord]) -> Files:
    """Every report of a run as bytes, as it is written."""
    return {
        name: content.encode("utf-8", errors="replace") if isinstance(content, str) else content
        for name, content in render_all(run, rounds).items()
    }
