"""pipeline/engine/local/models.py: found in a moment, converted once, checked at every load."""

import hashlib
import json
import subprocess
import sys
from fcntl import flock
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from pipeline.engine.base import EngineSpec
from pipeline.engine.local import models
from pipeline.engine.local.models import intact, prepare, resolve, sha256
from pipeline.engine.local.scratch import scratch_folder
from pipeline.errors import EngineError
from tests import tiny_models


def spec(tmp_path: Path, model: str = "embedded") -> EngineSpec:
    return EngineSpec(model=model, cache_dir=tmp_path / "cache")


@pytest.fixture
def converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A GGUF of two bytes, whose conversion is a copy; one entry for each conversion."""
    calls: list[int] = []

    def write(gguf: Path, folder: Path) -> None:
        calls.append(1)
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(gguf.read_bytes())
        (folder / "config.json").write_text("{}", encoding="utf-8")

    monkeypatch.setattr(models, "_write_safetensors", write)
    (tmp_path / "tiny.gguf").write_bytes(b"ok")
    return calls


def test_a_gguf_is_converted_once(tmp_path: Path, converted: list[int]) -> None:
    wanted = spec(tmp_path, str(tmp_path / "tiny.gguf"))
    first, second = prepare(wanted), prepare(wanted)
    assert first == second and converted == [1]
    assert first.digest == hashlib.sha256(b"ok").hexdigest()
    assert (first.folder / "model.safetensors").read_bytes() == b"ok"
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [first.folder.name]


@pytest.mark.parametrize("damage", ["change", "delete", "manifest", "no manifest"])
def test_a_damaged_copy_is_made_again(tmp_path: Path, converted: list[int], damage: str) -> None:
    wanted = spec(tmp_path, str(tmp_path / "tiny.gguf"))
    folder = prepare(wanted).folder
    match damage:
        case "change":
            (folder / "model.safetensors").write_bytes(b"ox")
        case "delete":
            (folder / "config.json").unlink()
        case "manifest":
            (folder / "manifest.json").write_text("[1]", encoding="utf-8")
        case _:
            (folder / "manifest.json").unlink()
    assert not intact(folder)
    assert prepare(wanted).folder == folder and intact(folder)
    assert converted == [1, 1]


def test_a_conversion_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(gguf: Path, folder: Path) -> None:
        folder.mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(models, "_write_safetensors", fail)
    (tmp_path / "tiny.gguf").write_bytes(b"ok")
    with pytest.raises(EngineError, match="No space left.*SFT_ASSAY_CACHE"):
        prepare(spec(tmp_path, str(tmp_path / "tiny.gguf")))
    assert list((tmp_path / "cache").iterdir()) == []


ABANDON = """
import os, signal, sys
from pathlib import Path
from pipeline.engine.local.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1])) as folder:
    (folder / "model.gguf").write_bytes(b"half of it")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_conversion_left_is_removed_by_the_next(
    tmp_path: Path, converted: list[int]
) -> None:
    cache = tmp_path / "cache"
    subprocess.run([sys.executable, "-c", ABANDON, cache], cwd=Path(__file__).parents[1])
    (left,) = cache.iterdir()
    assert (left / "model.gguf").read_bytes() == b"half of it"
    (cache / ".convert-without-a-lock").mkdir()
    with scratch_folder(cache) as at_work:
        assert [path for path in cache.iterdir()] == [at_work]
        made = prepare(spec(tmp_path, str(tmp_path / "tiny.gguf"))).folder
        assert sorted(cache.iterdir()) == sorted([at_work, made]), "a neighbour's is left alone"
    assert list(cache.iterdir()) == [made]


@pytest.mark.parametrize("moment", ["tempfile.mkdtemp", "fcntl.flock"])
def test_a_new_folder_that_a_neighbour_took_for_abandoned_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    call = {"tempfile.mkdtemp": mkdtemp, "fcntl.flock": flock}[moment]
    robbed: list[Path] = []

    def rob(*given: Any, **wanted: Any) -> Any:
        """Right after a folder was made, or its lock opened and taken."""
        found = call(*given, **wanted)
        if not robbed:
            robbed.extend(tmp_path.iterdir())
            rmtree(robbed[0])
        return found

    monkeypatch.setattr(f"pipeline.engine.local.scratch.{moment}", rob)
    with scratch_folder(tmp_path) as folder:
        assert len(robbed) == 1 and folder != robbed[0] and folder.is_dir()


def test_weights_that_cannot_be_written_are_told_as_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(gguf: Path, folder: Path) -> None:
        save_file({"a": np.zeros(3)}, folder / "model.safetensors")  # of no folder at all

    monkeypatch.setattr(models, "_convert_gguf", write)
    (tmp_path / "tiny.gguf").write_bytes(b"ok")
    with pytest.raises(EngineError, match="I/O error.*free some disk space.*SFT_ASSAY_CACHE"):
        prepare(spec(tmp_path, str(tmp_path / "tiny.gguf")))


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + b"\0" * 64)
    with pytest.raises(EngineError, match="cannot convert the .gguf model"):
        prepare(spec(tmp_path, str(path)))


def test_the_embedded_model_is_found_without_torch() -> None:
    code = (
        "import sys; from pipeline.engine.local.models import resolve, EngineSpec;"
        "print(resolve(EngineSpec()).kind, 'torch' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert run.stdout.split() == ["embedded", "False"]


def test_an_embedded_model_that_is_not_installed_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "_PACKAGE", "no_such_package_at_all")
    with pytest.raises(EngineError, match=r"python -m pip install 'sft-assay\[demo\]'"):
        resolve(spec(tmp_path))


def test_an_embedded_model_with_a_changed_part_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = tmp_path / "part00"
    part.write_bytes(b"not the model")
    monkeypatch.setattr(models, "_embedded_parts", lambda: (part,))
    with pytest.raises(EngineError, match="corrupt.*--force-reinstall"):
        prepare(spec(tmp_path))
    with pytest.raises(EngineError, match="corrupt"):
        models.embedded_gguf(spec(tmp_path))
    assert [p for p in (tmp_path / "cache").rglob("*") if p.is_file()] == []


@pytest.mark.parametrize("name", ["nowhere", "org/name", "some.bin", "n" * 300, "~nosuchuser/x"])
def test_what_is_not_there_is_refused_with_what_may_be(tmp_path: Path, name: str) -> None:
    with pytest.raises(EngineError, match="expected 'embedded', a folder .* or a .gguf file"):
        resolve(spec(tmp_path, name if name.startswith("~") else str(tmp_path / name)))


def test_a_folder_needs_safetensors(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(EngineError, match="pickled weights are never loaded"):
        resolve(spec(tmp_path, str(tmp_path)))


def test_a_folder_is_used_as_it_is(tmp_path: Path) -> None:
    folder = tiny_models.save(tiny_models.llama(), tmp_path / "tiny")
    found = prepare(spec(tmp_path, str(folder)))
    assert (found.folder, found.name) == (folder, "tiny")
    hashes: dict[str, Any] = {"model.safetensors": sha256(folder / "model.safetensors")}
    assert found.digest == hashlib.sha256(json.dumps(hashes).encode()).hexdigest()
    assert not (tmp_path / "cache").exists()


def test_the_cache_folder_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SFT_ASSAY_CACHE", str(tmp_path / "here"))
    assert models.cache_folder(EngineSpec()) == tmp_path / "here"
    assert models.cache_folder(spec(tmp_path)) == tmp_path / "cache"
    monkeypatch.setenv("SFT_ASSAY_CACHE", "")
    assert models.cache_folder(EngineSpec()) == Path.home() / ".cache" / "sft-assay"


def test_without_a_home_the_cache_folder_is_to_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.delenv("SFT_ASSAY_CACHE", raising=False)
    with pytest.raises(EngineError, match="no home folder.*set SFT_ASSAY_CACHE"):
        models.cache_folder(EngineSpec())
    monkeypatch.setenv("SFT_ASSAY_CACHE", str(tmp_path))
    assert models.cache_folder(EngineSpec()) == tmp_path
