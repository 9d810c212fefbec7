"""local/hf.py on a CUDA device: ``make test-gpu``; nothing here runs without one."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.engine.base import EngineSpec
from pipeline.engine.local.hf import HFEngine
from pipeline.engine.process.engine import ProcessEngine
from pipeline.types import GenRequest, Sampling, ScoreRequest
from tests import tiny_models

pytestmark = pytest.mark.gpu
GREEDY = Sampling(0.0, 40)
WARM = Sampling(0.9, 40, top_p=0.95, repetition_penalty=1.1)
TEXTS = [f"Instruction: name {i} things\nResponse:" for i in range(24)]


def requests(sampling: Sampling) -> list[GenRequest]:
    return [GenRequest("A prefix for all.\n", text, sampling, i) for i, text in enumerate(TEXTS)]


@pytest.fixture(scope="module", params=["gemma3", "llama"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = getattr(tiny_models, request.param)()
    return tiny_models.save(made, tmp_path_factory.mktemp(request.param))


def test_a_gpu_writes_and_scores_what_a_processor_does(folder: Path) -> None:
    spec = EngineSpec(model=str(folder), dtype="float32")
    here = HFEngine.open(replace(spec, device="cpu"), batch_size=8)
    there = HFEngine.open(replace(spec, device="cuda:0"), batch_size=8)
    assert here.generate(requests(GREEDY)) == there.generate(requests(GREEDY))
    drawn = [engine.generate(requests(WARM)) for engine in (here, there)]
    same = [a == b for a, b in zip(*drawn, strict=True)]
    assert sum(same) >= len(same) - 1, "sums in another order may move a draw across a border"
    asked = [ScoreRequest("p", text, (" yes", " a longer continuation")) for text in TEXTS]
    for ours, theirs in zip(here.score(asked), there.score(asked), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert a.logprob == pytest.approx(b.logprob, abs=1e-3)


def starved(spec: EngineSpec) -> HFEngine:
    """An engine that may use some 400 MB of its GPU beside the model."""
    import torch

    engine = HFEngine.open(spec)
    total = torch.cuda.get_device_properties(0).total_memory
    limit = torch.cuda.memory_allocated() + (400 << 20)
    torch.cuda.set_per_process_memory_fraction(limit / total, 0)
    return engine


@pytest.mark.model
def test_out_of_memory_halves_the_batch_and_the_work_is_done() -> None:
    spec = EngineSpec(device="cuda:0", batch_size=1024)
    engine = ProcessEngine(spec, factory=f"{__name__}:starved")
    try:
        done = engine.generate(requests(WARM) * 40)
        assert len(done) == 40 * len(TEXTS)
        assert engine.replans and engine.info.batch_size == engine.replans[-1].after
    finally:
        engine.close()


@pytest.mark.model
@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_a_quantised_model_writes_and_scores(quantization: str) -> None:
    pytest.importorskip("bitsandbytes")
    spec = EngineSpec(device="cuda:0", quantization=quantization)  # type: ignore[arg-type]
    engine = HFEngine.open(spec, batch_size=16)
    assert engine.info.dtype == quantization
    assert all(row.token_ids for row in engine.generate(requests(WARM)))
    ((likely, unlikely),) = engine.score([ScoreRequest("", "The sky is", (" blue", " xylophone"))])
    assert likely.mean > unlikely.mean
