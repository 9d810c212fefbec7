"""The process in which an engine computes: an answer a request, a sign of life a second.

Started by :mod:`pipeline.engine.process.child` and spoken to over a socket, since libraries print
to standard output. The one idea: it ends with its parent, and an error after which it cannot be
trusted is not caught, so that it ends by that too.
"""

import faulthandler
import fcntl
import gc
import os
import pickle
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

from pipeline.engine.local.threads import wait_politely
from pipeline.engine.process.child import HEADER
from pipeline.errors import AgentError, EngineOutOfMemory

BEAT_SECONDS: Final = 1.0
"""How often it shows that it is alive."""
_OUT_OF_MEMORY: Final = (
    "out of memory",
    "can't allocate memory",
    "ALLOC_FAILED",
    "std::bad_alloc",
    "could not create a memory object",
)
"""What the errors of devices, torch's allocator for CPUs, cuBLAS, C++ and oneDNN say."""
_FIRST_TO_GO: Final = "500"
"""Which process the kernel kills first when memory runs out: this one, not the run's."""


class Channel:
    """The worker's end of the connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._stream = connection.makefile("rb")
        self._lock = threading.Lock()

    def receive(self) -> Any:
        """The next message.

        Raises:
            EOFError: when the parent has closed the connection.
        """
        return pickle.load(self._stream)

    def beat(self) -> None:
        """Show that this process is alive."""
        self._send(b"")

    def answer(self, value: object) -> None:
        """Send a value, or an error that the parent is to raise."""
        self._send(pickle.dumps(value))

    def _send(self, body: bytes) -> None:
        with self._lock:
            self._connection.sendall(HEADER.pack(len(body)) + body)


def serve(channel: Channel) -> None:
    """Open the engine that the first message names, then answer until the parent hangs up."""
    factory, spec = channel.receive()
    engine = attempt(lambda: _named(factory)(spec))
    if isinstance(engine, AgentError):
        channel.answer(engine)
        return
    channel.answer(engine.info)
    while True:
        verb, *arguments = channel.receive()
        channel.answer(attempt(partial(getattr(engine, verb), *arguments)))


def attempt(do: Callable[[], Any]) -> Any:
    """What ``do`` returns, or its error if that is one to tell and the process is sound."""
    try:
        return do()
    except AgentError as error:
        # A class of the tree itself: others may need more than a message to be made again.
        tree = (c for c in type(error).__mro__ if c.__module__ == AgentError.__module__)
        return next(tree)(str(error))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        failure = EngineOutOfMemory(f"{type(error).__name__}: {str(error)[:300]}")
    # The error is gone by now, and with it the tensors of the frames that it came through.
    _free_memory()
    return failure


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on whatever device; a smaller batch may then fit."""
    return isinstance(error, MemoryError) or any(says in str(error) for says in _OUT_OF_MEMORY)


def _free_memory() -> None:
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _named(factory: str) -> Any:
    """What ``module:name`` stands for."""
    module, _, name = factory.partition(":")
    return attrgetter(name)(import_module(module))


def _watch(channel: Channel, lifeline: int) -> None:
    """Beat until the parent is gone, then end."""
    poller = select.poll()
    poller.register(lifeline, 0)  # the end of a pipe is always told
    try:
        while not poller.poll(BEAT_SECONDS * 1000):
            channel.beat()
    finally:
        os._exit(1)


def _die_with_parent(lifeline: int) -> None:
    """Have the kernel end this process with its parent, even while no thread of Python can run."""
    if sys.platform == "linux":
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC)
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO, encoding="ascii")


def main() -> None:
    """Serve the parent whose descriptors are on the command line."""
    faulthandler.enable()
    wait_politely()
    connection, lifeline = int(sys.argv[1]), int(sys.argv[2])
    for handle in (connection, lifeline):
        os.set_inheritable(handle, False)
    _die_with_parent(lifeline)
    channel = Channel(socket.socket(fileno=connection))
    threading.Thread(target=_watch, args=(channel, lifeline), daemon=True).start()
    with suppress(EOFError):
        serve(channel)


if __name__ == "__main__":
    main()
