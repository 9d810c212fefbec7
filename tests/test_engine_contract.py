"""The contract of engines, kept by each: in process, in a process of its own, scripted, served."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from pipeline.engine.base import Engine, EngineSpec
from pipeline.engine.local.hf import HFEngine
from pipeline.engine.local.models import embedded_gguf
from pipeline.engine.process.engine import ProcessEngine
from pipeline.engine.scripted import ScriptedEngine
from pipeline.engine.served.server import ServerEngine
from tests import tiny_models
from tests.engine_contract import EngineContract


class TestScripted(EngineContract):
    @classmethod
    def open(cls) -> Engine:
        return ScriptedEngine()


class TestHF(EngineContract):
    """Gemma 3 on the lean pass, Llama on transformers' own code."""

    folder: ClassVar[Path]

    @pytest.fixture(scope="class", autouse=True, params=["gemma3", "llama"])
    @classmethod
    def _folder(
        cls, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        made = getattr(tiny_models, request.param)()
        cls.folder = tiny_models.save(made, tmp_path_factory.mktemp(request.param))

    @classmethod
    def open(cls) -> Engine:
        spec = EngineSpec(model=str(cls.folder), device="cpu", dtype="float32")
        return HFEngine.open(spec, batch_size=4)


class TestProcess(EngineContract):
    """The same in a process of its own."""

    folder: ClassVar[Path]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _folder(cls, tmp_path_factory: pytest.TempPathFactory) -> None:
        cls.folder = tiny_models.save(tiny_models.llama(), tmp_path_factory.mktemp("llama"))

    @classmethod
    def open(cls) -> Engine:
        folder = str(cls.folder)
        spec = EngineSpec(model=folder, device="cpu", dtype="float32", threads=1, batch_size=4)
        return ProcessEngine(spec)


@pytest.mark.gpu
class TestCuda(TestHF):
    """On a GPU; ``make test-gpu`` runs it."""

    @classmethod
    def open(cls) -> Engine:
        spec = EngineSpec(model=str(cls.folder), device="cuda:0", dtype="float32")
        return HFEngine.open(spec, batch_size=4)


@pytest.mark.peer
class TestLlamaCppServer(EngineContract):
    """A real llama.cpp server with the embedded model."""

    independent = False  # its slots are batched with each other as requests come in
    overlong = "context"  # it counts the tokens of a prompt itself
    noise = 0.3  # sums depend on what its cache holds of the prompt
    url: ClassVar[str]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _server(cls) -> Iterator[None]:
        xllamacpp = pytest.importorskip("xllamacpp", reason="make test-peer installs it")
        params = xllamacpp.CommonParams()
        params.model.path = str(embedded_gguf(EngineSpec()))
        params.port = 0
        params.n_ctx = 4096
        params.n_parallel = 2
        params.cpuparams.n_threads = 1  # its threads spin while they wait for each other
        params.model_alias = {"gemma"}
        running = xllamacpp.Server(params)
        cls.url = f"{running.listening_address}/v1"
        yield
        del running

    @classmethod
    def open(cls) -> Engine:
        return ServerEngine.open(EngineSpec(kind="server", model="gemma", base_url=cls.url))
