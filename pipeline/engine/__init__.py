"""Engines: base language models behind two verbs, ``generate`` and ``score``."""

from typing import assert_never

from pipeline.engine.base import Engine, EngineSpec
from pipeline.engine.scorer import open_with_scorer


def open_engine(spec: EngineSpec) -> Engine:
    """Load the model that ``spec`` names, or connect to its server; the caller closes it.

    A model on this machine is loaded in a process of its own, and the first verb waits for it; what
    is wrong with it is said then.

    Raises:
        EngineError: naming what is missing or cannot be done, and what to do about it.
    """
    return open_with_scorer(spec, _open)


def _open(spec: EngineSpec) -> Engine:
    """The engine of ``spec`` without a scorer beside it."""
    match spec.kind:
        case "hf":
            from pipeline.engine.process.engine import ProcessEngine

            return ProcessEngine(spec)
        case "server":
            from pipeline.engine.served.server import ServerEngine

            return ServerEngine.open(spec)
        case "scripted":
            from pipeline.engine.scripted import ScriptedEngine

            return ScriptedEngine()
        case _:
            assert_never(spec.kind)
