"""Engines: base language models behind two verbs, ``generate`` and ``score``."""

from typing import assert_never

from pipeline.engine.base import Engine, EngineSpec
from pipeline.engine.threads import wait_politely


def open_engine(spec: EngineSpec) -> Engine:
    """Load the model that ``spec`` names, or connect to its server; the caller closes it.

    Raises:
        EngineError: naming what is missing or cannot be done, and what to do about it.
    """
    match spec.kind:
        case "hf":
            wait_politely()
            from pipeline.engine.hf import HFEngine

            return HFEngine.open(spec)
        case "server":
            from pipeline.engine.server import ServerEngine

            return ServerEngine.open(spec)
        case "scripted":
            from pipeline.engine.scripted import ScriptedEngine

            return ScriptedEngine()
        case _:
            assert_never(spec.kind)
