"""The parent's hold on an engine's process: start it, ask it, end it.

What is asked is not known here. The one idea: a single loop reads, writes and looks at the clock,
so that nothing the process does, or fails to do, holds its parent longer than it may.
"""

import math
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

from pipeline.engine.local.threads import large_pages
from pipeline.errors import EngineError, EngineLost, EngineOutOfMemory
from prompts.render import plain

HEADER: Final = struct.Struct(">Q")
"""Before each answer: its length in bytes. A sign of life is a header alone, of length 0."""
_CHUNK: Final = 1 << 20
_GLANCE_SECONDS: Final = 0.5
"""How often silence is noted while waiting."""
_DYING_SECONDS: Final = 5.0
"""What the operating system may take to end a process; nothing waits longer for it."""
_LAST_WORDS: Final = 2000
"""Bytes of its output that are read when it died,"""
_LAST_LINES: Final = 8
"""and lines of them that are quoted."""


class Child:
    """A process that runs ``pipeline.engine.process.worker``, in a session of its own.

    Ctrl-C in the terminal does not reach it, and it dies with its parent, however that dies.
    """

    def __init__(self, first: object, *, silence: float) -> None:
        """Start it with ``first`` as its first message, and wait for nothing.

        Args:
            first: What the worker is to open.
            silence: Seconds without a sign of life after which it is taken to hang.
        """
        self.ended = False
        """Whether it is gone; every method but :meth:`end` is then over."""
        self._killed = False
        self._kills = kills_for_memory()
        self._silence = silence
        self._unsent = bytearray()
        self._received = bytearray()
        try:
            self._open()
        except OSError as error:
            raise EngineError(f"cannot start a process for the engine: {error}") from error
        self._socket.setblocking(False)
        self.tell(first)

    def _open(self) -> None:
        """Start the process; what is opened for it is kept until the end, or closed if it fails."""
        with ExitStack() as kept, ExitStack() as handed:
            self._output = kept.enter_context(tempfile.TemporaryFile())
            self._socket, theirs = socket.socketpair()
            kept.enter_context(self._socket)
            handed.enter_context(theirs)
            lifeline, ours = os.pipe()
            kept.callback(os.close, ours)
            handed.callback(os.close, lifeline)
            self._process = _start(theirs.fileno(), lifeline, self._output.fileno())
            self._kept = kept.pop_all()

    @property
    def pid(self) -> int:
        """Its process id, and that of its group."""
        return self._process.pid

    def tell(self, message: object) -> None:
        """Send a message, or as much of it as the process takes now; the rest while hearing."""
        self._unsent += pickle.dumps(message)
        with suppress(OSError):  # a process that is gone is noticed when it is heard
            self._flush()

    def hear(self, until: float) -> Any:
        """The next answer; the process is ended if there is none, whatever the reason.

        Raises:
            TimeoutError: at ``until``, by the monotonic clock.
            EngineLost: if it ended by itself, or gave no sign of life.
            EngineOutOfMemory: if the operating system killed it for its memory.
        """
        try:
            return pickle.loads(self._next(until))
        except BaseException:
            self.end()
            raise

    def kill(self) -> None:
        """Kill it and all that it started; whoever hears it is told, in whatever thread."""
        if not self.ended:
            self._killed = True
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill it, and take back what it held; may be repeated."""
        if self.ended:
            return
        self.kill()
        self.ended = True
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_DYING_SECONDS)
        self._kept.close()

    def _next(self, until: float) -> bytes:
        quiet = 0.0
        while (answer := self._answer()) is None:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            wait = min(left, _GLANCE_SECONDS)
            # Counted is what was waited, not what passed: this process, or the machine, may have
            # been stopped meanwhile, and the other one with it.
            quiet = 0.0 if self._exchange(wait) else quiet + wait
            if quiet >= self._silence:
                raise EngineLost(
                    f"the engine gave no sign of life for {self._silence:g} s, and was stopped; "
                    f"resume the run to try again{self._last_words()}"
                )
        return answer

    def _answer(self) -> bytes | None:
        """The first whole answer of those received; signs of life before it are dropped."""
        received = self._received
        while len(received) >= HEADER.size:
            end = HEADER.size + HEADER.unpack_from(received)[0]
            if len(received) < end:
                return None
            answer = bytes(received[HEADER.size : end])
            del received[:end]
            if answer:
                return answer
        return None

    def _exchange(self, seconds: float) -> bool:
        """Send and receive what can be, after at most ``seconds``; whether anything could be."""
        poller = select.poll()
        poller.register(self._socket, select.POLLIN | (select.POLLOUT if self._unsent else 0))
        found = poller.poll(math.ceil(seconds * 1000))
        try:
            if found and found[0][1] & select.POLLOUT:
                self._flush()
            if found and found[0][1] & ~select.POLLOUT:
                self._receive()
        except ConnectionError as error:
            raise self._death() from error
        return bool(found)

    def _flush(self) -> None:
        sent = self._socket.send(self._unsent[:_CHUNK])
        del self._unsent[:sent]

    def _receive(self) -> None:
        chunk = self._socket.recv(_CHUNK)
        if not chunk:
            raise ConnectionResetError
        self._received += chunk

    def _death(self) -> EngineError:
        """Why the process ended by itself."""
        status: int | None = None
        with suppress(subprocess.TimeoutExpired):
            status = self._process.wait(_DYING_SECONDS)
        if self._killed:
            return EngineLost("the engine was stopped")
        kills = kills_for_memory()
        if status == -signal.SIGKILL and (kills is None or kills != self._kills):
            return EngineOutOfMemory(
                "the engine's process was killed by the system, probably because memory ran out"
            )
        how = "its connection closed" if status is None else f"exit status {status}"
        if status is not None and status < 0:
            how = f"signal {-status}, {signal.strsignal(-status)}"
        return EngineLost(
            f"the engine's process ended by itself ({how}); resume the run to try again"
            f"{self._last_words()}"
        )

    def _last_words(self) -> str:
        """The end of what it printed, to be put behind a message."""
        handle = self._output.fileno()
        start = max(0, os.fstat(handle).st_size - _LAST_WORDS)
        words = os.pread(handle, _LAST_WORDS, start).decode(errors="replace")
        lines = [plain(line) for line in words.splitlines() if line.strip(" ^~")]
        return "\n".join([". Its last words:", *lines[-_LAST_LINES:]]) if lines else ""


def kills_for_memory() -> int | None:
    """Processes that the kernel has killed because memory ran out; None where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    counts = dict(line.split(" ", 1) for line in lines)
    return int(counts["oom_kill"]) if "oom_kill" in counts else None


def _start(channel: int, lifeline: int, output: int) -> "subprocess.Popen[bytes]":
    """The process, with this one's path of modules and not the working directory's."""
    path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "pipeline.engine.process.worker", str(channel), str(lifeline)],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        pass_fds=(channel, lifeline),
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": path} | large_pages(os.environ),
    )
