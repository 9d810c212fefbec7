"""Ctrl-C, SIGTERM, SIGHUP: what a person or a machine that goes may ask of a working run.

What draining and stopping mean is the caller's. The one idea: the signal's number arrives in a
pipe, whatever the main thread does, and a thread that only waits there answers it; since a run may
be killed anywhere, another one, which nothing can hold up, ends the process when its time is over.
"""

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Final, Self

EXIT: Final = 130
"""Exit code of a process that was interrupted."""
_CAUGHT: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_AT_ONCE: Final = (signal.SIGTERM, signal.SIGHUP)
"""What leaves little time: the machine goes, or the terminal is gone already."""
hung_up: Final = threading.Event()
"""Set once SIGHUP came: the terminal is gone, and what is printed may fail."""
_GRACE_SECONDS: Final = 8.0
_LAST_SECONDS: Final = 9.5


def leave(number: int, _: FrameType | None) -> None:
    """Handler for when no run is under way in this process: say so, and end."""
    name = signal.Signals(number).name
    if number == signal.SIGHUP:
        hung_up.set()
    with suppress(OSError):
        print(f"{name}: stopped; a run that was begun goes on with: python -m agent resume last",
              file=sys.stderr)  # fmt: skip
    raise SystemExit(EXIT)


def catch(*, at_prompts: bool = False) -> None:
    """From now on a signal ends this process with a message instead of a traceback.

    ``at_prompts`` leaves Ctrl-C to the command line, which takes it for a no where it asks.
    A SIGHUP that is ignored, as under nohup, stays ignored.
    """
    for number in _heeded():
        signal.signal(number, leave)
    if at_prompts:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _heeded() -> list[signal.Signals]:
    nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [n for n in _CAUGHT if not (nohup and n is signal.SIGHUP)]


def let_go_of_output() -> None:
    """Give up what cannot be written any more, so that it fails neither the run nor the exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)


@dataclass(frozen=True, slots=True)
class Answers:
    """What is done when a signal comes."""

    drain: Callable[[str], None]
    """Ask for a stop at the next border; it is given the signal's name."""
    stop: Callable[[], None]
    """Give up the work under way."""
    say: Callable[[str], None]
    """Tell the person."""
    last_words: str
    """Printed if the process has to be ended from here."""


class Interruptible:
    """While it is entered, the first signal drains, and what must not wait has a deadline.

    SIGTERM, SIGHUP and a second signal leave at most ten seconds: the former two give the border
    eight of them before the work under way is given up, the latter none.
    """

    def __init__(
        self, answers: Answers, *, grace: float = _GRACE_SECONDS, last: float = _LAST_SECONDS
    ) -> None:
        """Wait for nothing yet; ``grace`` and ``last`` are seconds from the signal."""
        self.asked = False
        """Whether a stop was asked for."""
        self._answers = answers
        self._grace = grace
        self._last = last
        self._stop_at: float | None = None
        self._hurry = threading.Event()
        self._left = threading.Event()
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self  # only the main thread may set handlers; whoever owns it decides
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        threading.Thread(target=self._end, daemon=True).start()
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        # What a handler is there for is done by the thread; without one the process would end.
        self._before = {n: signal.signal(n, lambda *_: None) for n in _heeded()}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if not self._before:
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._write)
        self._watcher.join(1.0)
        self._left.set()
        self._hurry.set()

    def _watch(self) -> None:
        while True:
            left = None if self._stop_at is None else max(0.0, self._stop_at - time.monotonic())
            if not select.select([self._read], [], [], left)[0]:
                self._stop_at = None
                self._answers.stop()
                self._answers.say("no border was reached in time: the micro-batch is given up")
                continue
            numbers = os.read(self._read, 64)
            if not numbers:
                break
            for number in numbers:
                if number in _CAUGHT:
                    self._answer(signal.Signals(number))
        os.close(self._read)

    def _answer(self, number: signal.Signals) -> None:
        again, self.asked = self.asked, True
        if number is signal.SIGHUP:
            hung_up.set()
        if again or number in _AT_ONCE:
            self._hurry.set()
        if again:
            self._stop_at = None
            self._answers.stop()
            self._answers.say("stopping now; the micro-batch under way is given up")
            return
        if number in _AT_ONCE:
            self._stop_at = time.monotonic() + self._grace
        self._answers.drain(number.name)
        self._answers.say("stopping at the next border; once more stops at once")

    def _end(self) -> None:
        self._hurry.wait()
        if not self._left.wait(self._last):
            with suppress(OSError):
                os.write(2, f"\n{self._answers.last_words}\n".encode())
            os._exit(EXIT)
