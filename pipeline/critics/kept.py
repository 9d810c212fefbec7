"""Certificates kept from run to run, by the hash of all that they depend on.

That is the model and its number format, the rubrics and examples, the controls, and the code that
scores. The one idea: a kept result either is whole and of exactly these, or it is made again.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from pipeline.critics.control_scores import ControlScores, score_controls
from pipeline.engine.base import Engine
from pipeline.types import EngineInfo

_FOLDERS: Final = (
    ("pipeline", "critics"), ("pipeline", "engine"),
    ("prompts", "rubrics"), ("prompts", "controls"), ("prompts", "fewshot"),
)  # fmt: skip
_FILES: Final = (("pipeline", "good_pairs.py"), ("prompts", "library.py"))
_SOURCES: Final = (".py", ".txt", ".jsonl")
_PACKAGES: Final = ("torch", "transformers")
_UNKNOWN: Final = ("scripted", "server")
"""Kinds of engine whose digest is not that of their weights: nothing is kept of them."""


def kept_scores(engine: Engine, cache: Path | None) -> tuple[ControlScores, bool]:
    """What the critics make of people's texts, and whether that was known before.

    Args:
        engine: The base model; it scores nothing when the result is kept.
        cache: The engine's cache folder; None keeps nothing.

    Raises:
        EngineError: if the engine cannot score.
    """
    if cache is None or engine.info.kind in _UNKNOWN:
        return score_controls(engine), False
    file = cache / "certificates" / f"{fingerprint(engine.info)}.json"
    if (found := _read(file)) is not None:
        return found, True
    made = score_controls(engine)
    _write(file, made)
    return made, False


def fingerprint(info: EngineInfo) -> str:
    """SHA-256 of everything that scores of controls depend on."""
    facts: list[str | None] = [
        info.kind, info.model, info.digest, info.dtype, info.device, info.scores,
        *map(_version, _PACKAGES),
    ]  # fmt: skip
    found = hashlib.sha256(json.dumps(facts).encode())
    every = [(f"{p}/{f}", files(p) / f) for p, f in (*_FOLDERS, *_FILES)]
    for name, source in (s for path, start in every for s in _sources(path, start)):
        content = source.read_bytes()
        found.update(f"\n{name} {len(content)}\n".encode() + content)
    return found.hexdigest()


def _sources(name: str, start: Traversable) -> Iterator[tuple[str, Traversable]]:
    """Every source at or below ``start``, which is called ``name``, in a fixed order."""
    if start.is_file():
        if start.name.endswith(_SOURCES):
            yield name, start
        return
    for entry in sorted(start.iterdir(), key=lambda e: e.name):
        yield from _sources(f"{name}/{entry.name}", entry)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _read(file: Path) -> ControlScores | None:
    """What was kept; None where there is nothing, or nothing of use."""
    try:
        body = json.loads(file.read_bytes())
        content = json.dumps(body["scores"], sort_keys=True, allow_nan=False)
        if hashlib.sha256(content.encode()).hexdigest() != body["sha256"]:
            return None
        return ControlScores.from_json(body["scores"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _write(file: Path, scores: ControlScores) -> None:
    """Keep them whole or not at all; where that cannot be, they are made again the next time."""
    value = scores.to_json()
    digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
    beside = file.with_suffix(f".{os.getpid()}")
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps({"sha256": digest, "scores": value}), encoding="utf-8")
        beside.replace(file)
