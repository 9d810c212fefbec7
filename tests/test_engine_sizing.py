"""pipeline/engine/local/sizing.py: the batch size is measured once, bounded by memory, and kept."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.engine.base import EngineSpec
from pipeline.engine.local import sizing
from pipeline.engine.local.hf import HFEngine
from pipeline.engine.local.loading import Loaded
from tests import tiny_models


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save(tiny_models.llama(), tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Loaded:
    spec = EngineSpec(model=str(folder), device="cpu", dtype="float32")
    found = HFEngine.open(spec, batch_size=1)._loaded
    assert found is not None
    return found


def played(monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float], row_bytes: int = 1) -> None:
    """A device whose steps take what is told."""
    monkeypatch.setattr(sizing, "_step", lambda _, rows: (seconds[rows], row_bytes))


def test_the_size_is_where_more_rows_are_hardly_faster(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    played(monkeypatch, {16: 1.0, 32: 1.1, 64: 1.3, 128: 2.3, 256: 4.6})
    found = sizing.measure(loaded)
    assert found.batch_size == 64, "128 rows are 13 % faster by the row, and 15 % are asked for"
    assert list(found.seconds) == [16, 32, 64, 128]


def test_a_device_that_is_never_filled_ends_at_the_largest_size(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    played(monkeypatch, {16 * 2**i: 1.0 for i in range(7)})
    assert sizing.measure(loaded).batch_size == sizing.LARGEST


def test_rows_that_would_not_fit_are_not_tried(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizing, "free_bytes", lambda _: 1000 * 64)
    played(monkeypatch, {16 * 2**i: 1.0 for i in range(7)}, row_bytes=1000)
    assert sizing.measure(loaded).batch_size == 32, "half of what is free holds 32 rows"


def test_memory_of_a_row_is_that_of_its_keys_values_and_logits(loaded: Loaded) -> None:
    config = tiny_models.llama().config
    keys = config.num_key_value_heads * config.head_dim * 4
    expected = 1024 * 2 * config.num_hidden_layers * keys + 8 * config.vocab_size
    assert sizing.measure(loaded).row_bytes == expected
    assert sizing.free_bytes("cpu") > 1 << 26


def test_it_is_measured_once_per_model_and_device_and_recorded(
    folder: Path, loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = EngineSpec(model=str(folder), device="cpu", dtype="float32", cache_dir=tmp_path)
    played(monkeypatch, {16: 1.0, 32: 2.0})
    first = HFEngine.open(spec)
    assert first.info.batch_size == 16
    (file,) = (tmp_path / "sizes").iterdir()
    assert json.loads(file.read_bytes())["measured_for"][0] == first.info.digest
    monkeypatch.setattr(sizing, "_step", lambda *_: pytest.fail("measured again"))
    assert HFEngine.open(spec).info.batch_size == 16
    assert HFEngine.open(replace(spec, batch_size=7)).info.batch_size == 7
    played(monkeypatch, {16: 1.0, 32: 1.0, 64: 2.0})
    assert sizing.measured(loaded, tmp_path, digest="another model").batch_size == 32


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"batch_size": 5000, "seconds": {}, "row_bytes": 1, "free_bytes": 1}',
        b'{"batch_size": 64.0, "seconds": {}, "row_bytes": 1, "free_bytes": 1}',
        b'{"batch_size": 64, "seconds": {}, "row_bytes": true, "free_bytes": 1}',
    ],
)
def test_a_damaged_record_is_measured_again(
    loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes
) -> None:
    played(monkeypatch, {16: 1.0, 32: 2.0})
    sizing.measured(loaded, tmp_path, digest="a")
    (file,) = (tmp_path / "sizes").iterdir()
    file.write_bytes(damage)
    played(monkeypatch, {16: 1.0, 32: 1.0, 64: 2.0})
    assert sizing.measured(loaded, tmp_path, digest="a").batch_size == 32
    assert json.loads(file.read_bytes())["batch_size"] == 32


def test_a_folder_that_cannot_be_written_does_no_harm(
    loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sizes").write_text("a file, not a folder", encoding="utf-8")
    played(monkeypatch, {16: 1.0, 32: 2.0})
    assert sizing.measured(loaded, tmp_path, digest="a").batch_size == 16


def test_memory_is_looked_at_whenever_a_model_is_loaded(
    loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A size that memory bounded is not kept, and one that was kept is bounded again."""
    seconds = {16 * 2**i: 1.0 for i in range(7)}
    played(monkeypatch, seconds, row_bytes=1000)
    monkeypatch.setattr(sizing, "free_bytes", lambda _: 1000 * 64)
    assert sizing.measured(loaded, tmp_path, digest="a").batch_size == 32
    assert not (tmp_path / "sizes").exists()
    monkeypatch.setattr(sizing, "free_bytes", lambda _: 1 << 40)
    assert sizing.measured(loaded, tmp_path, digest="a").batch_size == sizing.LARGEST
    monkeypatch.setattr(sizing, "free_bytes", lambda _: 1000 * 20)
    assert sizing.measured(loaded, tmp_path, digest="a").batch_size == 10
