"""agent/engines.py: which device is paid for, without loading what only the engine needs."""

import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from agent import engines
from agent.config import EngineSection


@pytest.mark.parametrize(
    ("device", "kind", "expected"),
    [
        ("cuda:1", "hf", "cuda"),
        ("mps", "hf", "mps"),
        ("auto", "scripted", "cpu"),
        ("auto", "server", "server"),
    ],
)
def test_a_named_device_is_taken_at_its_word(device, kind, expected):
    assert engines.device_type(EngineSection(device=device, kind=kind)) == expected


@pytest.mark.parametrize(
    ("built", "seen", "expected"),
    [
        ("cuda = None\nhip = None\n", True, "cpu"),
        ("cuda = '12.8'\nhip = None\n", True, "cuda"),
        ("cuda = '12.8'\nhip = None\n", False, "cpu"),
        ("cuda = None\nhip = '6.4'\n", True, "cuda"),
    ],
    ids=["cpu build", "cuda build", "cuda build without a card", "rocm build"],
)
def test_auto_asks_torch_only_where_it_was_built_for_a_gpu(
    tmp_path: Path, monkeypatch, built, seen, expected
):
    (tmp_path / "version.py").write_text(built, encoding="utf-8")
    spec = ModuleSpec("torch", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(engines, "find_spec", lambda name: spec)
    monkeypatch.setattr(engines, "_sees_gpu", lambda: seen)
    assert engines.device_type(EngineSection(device="auto")) == expected


def test_without_torch_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    assert engines.device_type(EngineSection(device="auto")) == "cpu"


def test_a_cpu_build_is_recognised_without_importing_it():
    torch = pytest.importorskip("torch")
    if torch.version.cuda or torch.version.hip:
        pytest.skip("torch was built for a GPU here")
    code = (
        "import sys; from agent.engines import device_type; from agent.config import EngineSection;"
        "print(device_type(EngineSection(device='auto')), 'torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout.split() == ["cpu", "False"]
