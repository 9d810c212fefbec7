"""pipeline/engine/scorer.py: a server writes, a local model scores."""

from dataclasses import replace

import pytest
from toy_server import toy_server

from agent.config import EngineSection
from agent.engines import engine_spec
from pipeline.engine.base import Engine, EngineSpec, Leased, Replan
from pipeline.engine.scorer import WithScorer, open_with_scorer
from pipeline.engine.scripted import ScriptedEngine
from pipeline.engine.served.server import ServerEngine
from pipeline.errors import EngineError, EngineTimeout
from pipeline.types import GenRequest, Sampling, ScoreRequest

ASKED = ScoreRequest("", "Instruction: Name a fruit.\nResponse:", (" An apple.", " x y"))


class Local(ScriptedEngine):
    """A model in process, as far as this file is concerned."""

    def __init__(self, spec: EngineSpec) -> None:
        super().__init__()
        self.spec = spec
        self.closed = 0
        self.leases: list[float] = []
        self.replans = (Replan("memory", 8, 4),)

    @property
    def info(self):  # type: ignore[no-untyped-def]
        return replace(super().info, digest=f"digest of {self.spec.model}", batch_size=4)

    def lease(self, seconds: float) -> None:
        self.leases.append(seconds)

    def close(self) -> None:
        self.closed += 1


def test_the_server_writes_and_counts_and_the_local_model_scores():
    opened: list[Engine] = []

    def open_engine(spec: EngineSpec) -> Engine:
        opened.append(ServerEngine.open(spec) if spec.kind == "server" else Local(spec))
        return opened[-1]

    with toy_server(ignores=["echo", "prompt_logprobs"]) as url:
        spec = EngineSpec(
            kind="server", model="toy", base_url=url, api_key="k", scorer="folder", device="cpu"
        )
        both = open_with_scorer(spec, open_engine)
        server, local = opened
        assert isinstance(local, Local) and isinstance(both, Leased)
        assert (local.spec.kind, local.spec.model, local.spec.device) == ("hf", "folder", "cpu")
        assert local.spec.base_url is None and local.spec.api_key is None
        assert server.info.scores == "labels" and both.info.scores == "any"
        assert both.info.kind == "server" and both.info.batch_size == 4
        assert both.replans == local.replans
        assert both.score([ASKED]) == ScriptedEngine().score([ASKED])
        row = GenRequest("", "the", Sampling(0.0, 4), 1)
        assert both.generate([row]) == server.generate([row])
        assert both.count_tokens(["the old bird"]) == server.count_tokens(["the old bird"]) == [3]
        both.lease(1e-9)
        assert local.leases == [1e-9]
        with pytest.raises(EngineTimeout):
            both.generate([row])
        both.close()
        assert local.closed == 1
        with pytest.raises(EngineError, match="is closed"):
            server.generate([row])


def test_another_scorer_is_another_engine():
    engine = ScriptedEngine()
    digests = {WithScorer(engine, Local(EngineSpec(model=m))).info.digest for m in ("a", "b")}
    assert len(digests) == 2 and engine.info.digest not in digests


def test_without_a_scorer_the_engine_is_itself():
    assert isinstance(open_with_scorer(EngineSpec(), Local), Local)


def test_a_scorer_that_cannot_be_opened_leaves_no_server_open():
    opened: list[Local] = []

    def open_engine(spec: EngineSpec) -> Engine:
        if spec.model == "missing":
            raise EngineError("no such folder")
        opened.append(Local(spec))
        return opened[-1]

    with pytest.raises(EngineError, match="no such folder"):
        open_with_scorer(EngineSpec(kind="server", scorer="missing"), open_engine)
    assert [engine.closed for engine in opened] == [1]


def test_both_are_closed_though_the_first_fails():
    class Stuck(ScriptedEngine):
        def close(self) -> None:
            raise EngineError("stuck")

    local = Local(EngineSpec())
    with pytest.raises(EngineError, match="stuck"):
        WithScorer(Stuck(), local).close()
    assert local.closed == 1


def test_the_configuration_names_scorer_and_concurrency():
    section = EngineSection(kind="server", scorer="embedded", concurrency=7)
    spec = engine_spec(section, {})
    assert (spec.scorer, spec.concurrency) == ("embedded", 7)
    assert engine_spec(EngineSection(), {}).concurrency == 32
    for wrong in ({"scorer": "embedded"}, {"concurrency": 0}, {"concurrency": 1025}):
        with pytest.raises(ValueError, match="scorer is for kind server|concurrency"):
            EngineSection(**wrong)
