"""Engines with real faults, which an engine's process imports by name and opens with a spec.

``spec.model`` names the fault, which strikes at ``generate``, and ``spec.device`` one of loading.
"""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from pipeline.engine.base import EngineSpec
from pipeline.engine.scripted import INFO, ScriptedEngine
from pipeline.errors import ConfigError, EngineError, SentinelError
from pipeline.types import Completion, EngineInfo, GenRequest

FITS = 3
"""Rows of a batch that fit into memory where a fault asks,"""
FIT_TOKENS = 1000
"""and tokens."""
BATCH = 16
_starved: list[bool] = []


class Faulty(ScriptedEngine):
    """The scripted engine with one fault and a batch size."""

    def __init__(self, spec: EngineSpec) -> None:
        super().__init__()
        self._fault = spec.model
        self._batch_size = spec.batch_size or BATCH

    @property
    def info(self) -> EngineInfo:
        return replace(INFO, batch_size=self._batch_size)

    def resize(self, batch_size: int) -> None:
        self._batch_size = batch_size

    def generate(self, requests: Sequence[GenRequest]) -> list[Completion]:
        rows = min(self._batch_size, len(requests))
        cap = max((r.sampling.max_new_tokens for r in requests), default=0)
        strike(self._fault, rows=rows, tokens=rows * cap)
        done = super().generate(requests)
        return done[:-1] if self._fault == "returns fewer" else done


def strike(fault: str, *, rows: int, tokens: int) -> None:
    starves = {
        "starves": rows > FITS,
        "starves on long rows": tokens > FIT_TOKENS,
        "is killed when it starves": rows > FITS,
        "starves once": not _starved,
    }
    if starves.get(fault, True):
        FAULTS[fault]()


def starve_once() -> None:
    _starved.append(True)
    raise MemoryError("no room just now")


def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave() -> None:
    print("\x1b[31mI have had enough", file=sys.stderr, flush=True)
    os._exit(3)


def fail(error: BaseException) -> None:
    raise error


class Refusal(EngineError):
    """An error that needs more than a message."""

    def __init__(self, status: int, what: str) -> None:
        super().__init__(f"{status}: {what}")


FAULTS: dict[str, Callable[[], object]] = {
    "none": lambda: None,
    "returns fewer": lambda: None,
    "prints": lambda: print("noise " * 1000),
    "works for seconds": lambda: time.sleep(2.5),
    "hangs": lambda: time.sleep(60),
    "hangs holding the GIL": lambda: ctypes.PyDLL(None).sleep(60),
    "kills itself": kill_itself,
    "segfaults": lambda: ctypes.string_at(0),
    "exits": leave,
    "has a bug": lambda: fail(ValueError("a bug of its own")),
    "loses its device": lambda: fail(RuntimeError("CUDA error: an illegal memory access")),
    "refuses": lambda: fail(SentinelError("not a base model")),
    "refuses in its own words": lambda: fail(Refusal(418, "a teapot")),
    "tells how its threads wait": lambda: fail(EngineError(os.environ["GOMP_SPINCOUNT"])),
    "starves": lambda: fail(MemoryError("no room")),
    "starves on long rows": lambda: fail(MemoryError("no room for so many tokens")),
    "is killed when it starves": kill_itself,
    "starves once": starve_once,
    "always starves": lambda: fail(MemoryError("no room at all")),
}


def faulty(spec: EngineSpec) -> ScriptedEngine:
    """The engine, or the fault that ``spec.device`` asks for while loading."""
    match spec.device:
        case "has no model":
            raise ConfigError("no such model")
        case "is too large":
            raise MemoryError("weights")
        case "loads for ever":
            time.sleep(60)
        case "loads slowly":
            time.sleep(0.5)
    return Faulty(spec)
