"""Reports rendered again, in a process beside the one that checks rows.

Pictures take longer than all other checks of a small run. The one idea: rendering begins at once
from the records as they are stored, and its result counts only if those turn out to be genuine.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import IO, Protocol

from pydantic import ConfigDict, TypeAdapter

from agent.records import RoundRecord, RunRecord
from agent.report.render import render_all

Files = dict[str, bytes]
_Asked = TypeAdapter(tuple[RunRecord, tuple[RoundRecord, ...]])
_Files = TypeAdapter(Files, config=ConfigDict(ser_json_bytes="base64", val_json_bytes="base64"))


class Renders(Protocol):
    """Renders every report of a run."""

    def begin(self, run: RunRecord, rounds: Sequence[RoundRecord]) -> None:
        """Be told what will probably be asked for."""

    def files(self, run: RunRecord, rounds: Sequence[RoundRecord]) -> Files:
        """Every report by its name."""

    def close(self) -> None:
        """Be told that nothing will be asked for any more."""


class Beside:
    """Renders in a process of its own, which is there until it is asked.

    What goes in and comes out lies in files, so that neither side ever waits for the other's pipe.
    """

    def __init__(self) -> None:
        self._asked: tuple[RunRecord, tuple[RoundRecord, ...]] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._answer: IO[bytes] | None = None

    def begin(self, run: RunRecord, rounds: Sequence[RoundRecord]) -> None:
        """Start to render."""
        self._asked = (run, tuple(rounds))
        self._answer = tempfile.TemporaryFile()
        with tempfile.TemporaryFile() as question:
            question.write(_Asked.dump_json(self._asked))
            question.seek(0)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", __spec__.name],
                stdin=question, stdout=self._answer, stderr=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                start_new_session=True,  # Ctrl-C is for whoever started it
            )  # fmt: skip

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
        found: Files | None = None
        if self._process.wait() == 0:
            self._answer.seek(0)
            found = _Files.validate_json(self._answer.read())
        self.close()
        return found

    def close(self) -> None:
        """End the process, whether or not it was asked for its answer."""
        if self._answer is not None and self._process is not None:
            self._answer.close()
            self._process.kill()
            self._process.wait()
        self._asked = self._answer = self._process = None


def rendered(run: RunRecord, rounds: Sequence[RoundRecord]) -> Files:
    """Every report of a run as bytes, as it is written."""
    return {
        name: content.encode("utf-8", errors="replace") if isinstance(content, str) else content
        for name, content in render_all(run, rounds).items()
    }


if __name__ == "__main__":
    sys.stdout.buffer.write(
        _Files.dump_json(rendered(*_Asked.validate_json(sys.stdin.buffer.read())))
    )
