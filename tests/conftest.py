"""What every test shares: no network, no reviewer's key, and a configuration that runs fast."""

import multiprocessing
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.engine.local.threads import wait_politely

wait_politely()  # before any test imports torch

EFFORTS = ("sample", "proof", "soak")


def pytest_addoption(parser: pytest.Parser) -> None:
    """How far the proofs of promises go: see ``tests/proofs``."""
    parser.addoption("--effort", choices=EFFORTS, default="sample", help="size of every proof")


LOOPBACK = {"127.0.0.1", "::1", "localhost"}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Only loopback and Unix sockets can be reached."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in LOOPBACK:
            raise AssertionError(f"a test tried to reach {address!r}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    for name in ("OPENAI_API_KEY", "ENGINE_API_KEY", "LANGSMITH_TRACING", "LANGCHAIN_TRACING_V2"):
        monkeypatch.delenv(name, raising=False)
    yield


@pytest.fixture(scope="session", autouse=True)
def _no_child_is_left() -> Iterator[None]:
    """The interpreter waits for children at its end, and one that hangs would hang the suite."""
    yield
    left = multiprocessing.active_children()
    for child in left:
        child.kill()
    assert not left


@pytest.fixture
def scripted_yaml(tmp_path: Path) -> Path:
    """A configuration of the scripted engine, small enough for a test."""
    path = tmp_path / "budget.yaml"
    path.write_text(
        "engine: {kind: scripted}\nscale: {examples: 120, micro_batch: 32, shard_rows: 50}\n",
        encoding="utf-8",
    )
    return path
