"""The engine seam: two verbs, batch in and batch out, in order, never fewer than asked."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from pipeline.types import Completion, EngineInfo, GenRequest, Score, ScoreRequest

EngineKind = Literal["hf", "server", "scripted"]
DType = Literal["auto", "float32", "bfloat16", "float16"]
Quantization = Literal["none", "int8", "nf4"]


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """Which engine to open, and how: the ``engine`` section of a configuration, resolved."""

    kind: EngineKind = "hf"
    """In process on transformers, an OpenAI-compatible completions server, or a script."""
    model: str = "embedded"
    """``embedded``, a folder, a .gguf file, or a name that the server knows."""
    device: str = "auto"
    """auto, cpu, mps, cuda or cuda:N; auto takes a GPU when there is one."""
    dtype: DType = "auto"
    """auto is bfloat16 where the device computes in it, else float32."""
    quantization: Quantization = "none"
    """int8 and nf4 load through bitsandbytes."""
    device_map: str | None = None
    """transformers' device map, for a model larger than one device."""
    threads: int | None = None
    """CPU threads; None lets torch choose."""
    base_url: str | None = None
    """Address of the completions server."""
    api_key: str | None = field(default=None, repr=False)
    """The server's key, if it wants one."""
    cache_dir: Path | None = None
    """Where converted models are kept; None is $SFT_ASSAY_CACHE, else ~/.cache/sft-assay."""
    batch_size: int | None = None
    """Rows in one forward pass of an engine in process; None is what was measured to be good."""
    concurrency: int = 32
    """Requests that a server is sent side by side."""
    scorer: str | None = None
    """A local model that scores what a server wrote: ``embedded``, a folder or a .gguf file."""


class Engine(Protocol):
    """A base language model that continues and scores text.

    Same requests, same engine: same tokens. A knob that an engine cannot honour is an
    :class:`~pipeline.errors.EngineError`, never a silent default.
    """

    @property
    def info(self) -> EngineInfo:
        """What the engine is."""
        ...

    def generate(self, requests: Sequence[GenRequest]) -> list[Completion]:
        """One completion for each request, in the order of the requests."""
        ...

    def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[Score, ...]]:
        """For each request, one score for each of its continuations, in order."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text by the model's own tokenizer, special tokens not added."""
        ...

    def close(self) -> None:
        """Release the device; the engine is not used again."""
        ...


@runtime_checkable
class Leased(Protocol):
    """An engine that ends by itself what would take longer than it may."""

    def lease(self, seconds: float) -> None:
        """From now on, all further work together may take ``seconds``; a new lease replaces it.

        What runs at its end raises :class:`~pipeline.errors.EngineTimeout`.
        """
        ...


@runtime_checkable
class Stoppable(Protocol):
    """An engine whose work can be ended by somebody who does not wait for it."""

    def stop(self) -> None:
        """End what it does, from any thread or signal handler; that raises EngineLost."""
        ...


@dataclass(frozen=True, slots=True)
class Replan:
    """A smaller batch, which an engine took because memory ran out."""

    cause: str
    """What ran out, in the words of whoever noticed."""
    before: int
    """Rows in one forward pass until then,"""
    after: int
    """and from then on."""

    def describe(self) -> str:
        """It, in a phrase."""
        return f"out of memory: batch {self.before} -> {self.after}"


@runtime_checkable
class Replanning(Protocol):
    """An engine that goes on with a smaller batch when memory runs out."""

    @property
    def replans(self) -> tuple[Replan, ...]:
        """Every re-plan since it was opened, in order."""
        ...
