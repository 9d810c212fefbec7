"""Engines of other projects as contenders: llama.cpp's server and vLLM."""

import os
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from benchmarks.engine.contenders import Absent, Traits
from benchmarks.engine.setup import Setup
from benchmarks.engine.through_transformers import Texts
from pipeline.engine.base import EngineSpec
from pipeline.engine.local.models import embedded_gguf
from pipeline.engine.served.server import ServerEngine
from pipeline.types import Completion, GenRequest, Score, ScoreRequest

_SLOTS: Final = 32
_SLOT_TOKENS: Final = 1024
_GPU_SHARE: Final = 0.4


class LlamaCppServer:
    """llama.cpp's own server in this process, spoken to through the ``server`` engine."""

    def __init__(self, setup: Setup) -> None:
        """Start the server on a free port."""
        if find_spec("xllamacpp") is None:
            raise Absent("xllamacpp is not installed (pip install '.[peer]')")
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(_gguf(setup))
        params.port = 0
        params.verbosity = 1  # errors
        params.n_parallel = _SLOTS
        params.n_ctx = _SLOTS * _SLOT_TOKENS
        params.cpuparams.n_threads = setup.threads
        params.model_alias = {"model"}
        self._server = xllamacpp.Server(params)
        url = f"{self._server.listening_address}/v1"
        self._engine = ServerEngine.open(
            EngineSpec(kind="server", model="model", base_url=url, concurrency=_SLOTS)
        )
        notes = [f"weights as in the .gguf file: {self._engine.info.dtype}"]
        if not setup.peer_scores:
            notes.append("scores token by token, which is measured with --peer-scores only")
        self.traits = Traits(tuple(notes), scores=setup.peer_scores)

    def generate(self, requests: Sequence[GenRequest]) -> list[Completion]:
        """One completion for each request, in order."""
        return self._engine.generate(requests)

    def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[Score, ...]]:
        """One score for each continuation of each request, in order."""
        return self._engine.score(requests)


def _gguf(setup: Setup) -> Path:
    if setup.model == "embedded":
        return embedded_gguf(EngineSpec())
    path = Path(setup.model)
    if path.suffix != ".gguf":
        raise Absent(f"it reads .gguf files, and {setup.model!r} is none")
    return path


class VLLM:
    """vLLM's offline interface, with prefix caching."""

    traits = Traits(
        ("memory not given: it runs in processes of its own and takes 40 % of a GPU at start",),
        own_memory=False,
    )

    def __init__(self, setup: Setup) -> None:
        """Load the model with vLLM's defaults, but leave others their part of the GPU."""
        if find_spec("vllm") is None:
            raise Absent("not installed")
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        vllm: Any = import_module("vllm")
        self._texts, self._settings = Texts(setup), vllm.SamplingParams
        self._model = vllm.LLM(
            model=str(setup.folder), tokenizer=str(setup.folder), dtype=setup.dtype,
            enable_prefix_caching=True, gpu_memory_utilization=_GPU_SHARE,
            generation_config="vllm", seed=0,
        )  # fmt: skip

    def generate(self, requests: Sequence[GenRequest]) -> list[Completion]:
        """One completion for each request, in order."""
        settings = [
            self._settings(
                temperature=r.sampling.temperature, top_p=r.sampling.top_p,
                repetition_penalty=r.sampling.repetition_penalty,
                max_tokens=r.sampling.max_new_tokens, stop=list(r.sampling.stop),
                seed=r.seed % 2**31,
            )
            for r in requests
        ]  # fmt: skip
        prompts = [{"prompt_token_ids": self._texts.prompt(r.prefix + r.suffix)} for r in requests]
        made = self._model.generate(prompts, settings, use_tqdm=False)
        return [
            self._texts.completion(list(out.outputs[0].token_ids), request.sampling)
            for out, request in zip(made, requests, strict=True)
        ]

    def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[Score, ...]]:
        """One score for each continuation of each request, in order."""
        rows = [
            (self._texts.prompt(r.prefix + r.suffix), self._texts.continuation(text))
            for r in requests
            for text in r.continuations
        ]
        made = self._model.generate(
            [{"prompt_token_ids": prompt + wanted} for prompt, wanted in rows],
            self._settings(max_tokens=1, prompt_logprobs=0),
            use_tqdm=False,
        )
        scores = iter(
            Score(
                sum(
                    out.prompt_logprobs[len(prompt) + i][token].logprob
                    for i, token in enumerate(wanted)
                ),
                len(wanted),
            )
            for out, (prompt, wanted) in zip(made, rows, strict=True)
        )
        return [tuple(next(scores) for _ in r.continuations) for r in requests]
