"""The machine of a run: prepared in a process that ends before anything is timed, and described.

The model is converted or made, its sizes are read, and the machine's rates are measured there.
"""

import os
import platform
import subprocess
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import cast

from benchmarks.engine import random_model
from benchmarks.engine.floor import Rates, Weights, measure_rates, read_weights
from benchmarks.engine.setup import Setup
from pipeline.engine.base import DType
from pipeline.engine.local.models import cache_folder, prepare

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for on the command line, before the machine is known."""

    model: str
    """embedded, or a folder."""
    random_weights: str | None
    """Size of a model to make instead."""
    device: str
    """auto, cpu or cuda:N."""
    dtype: str
    """auto, or a number format."""
    threads: int | None
    """CPU threads; None lets torch choose."""
    rows: int
    """Rows in each phase of a round."""
    sequential_rows: int
    """Rows without batches."""
    peer_scores: bool
    """Whether slow scorers score."""
    quick: bool
    """Whether rates may be rough."""


@dataclass(frozen=True, slots=True)
class Host:
    """What figures depend on."""

    name: str
    """Name of the GPU, or of the processor."""
    cores: int
    """Cores that this process may use."""
    threads: int
    """CPU threads of every contender."""
    torch: str
    """Version."""
    transformers: str
    """Version."""
    date: str
    """UTC, to the second."""
    revision: str
    """Of the source tree; "+" where it holds changes."""
    dtype: str
    """Number format of the weights."""
    model: str
    """Name of the model."""
    weights: Weights
    """Its size."""
    rates: Rates
    """What the machine can do."""


def prepare_host(wish: Wish) -> tuple[Setup, Host]:
    """Make everything ready for contenders, in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        setup, host = pool.submit(_prepare, wish).result()
    return setup, replace(host, revision=_revision())


def _prepare(wish: Wish) -> tuple[Setup, Host]:
    import torch

    from pipeline.engine.local.loading import choose_device, choose_dtype

    if wish.threads is not None:
        torch.set_num_threads(wish.threads)
    device = choose_device(wish.device)
    dtype = cast(DType, str(choose_dtype(wish.dtype, device)).removeprefix("torch."))
    setup = Setup(
        model=wish.model, folder=Path(wish.model), device=device, dtype=dtype,
        threads=torch.get_num_threads(), rows=wish.rows, sequential_rows=wish.sequential_rows,
        peer_scores=wish.peer_scores,
    )  # fmt: skip
    if wish.random_weights is not None:
        folder = cache_folder(setup.spec) / f"random-{wish.random_weights}-{dtype}"
        made = random_model.make(wish.random_weights, folder, device=device, dtype=dtype)
        setup = replace(setup, model=str(made))
    checkpoint = prepare(setup.spec)
    setup = replace(setup, folder=checkpoint.folder)
    weights = read_weights(checkpoint.folder, dtype=dtype)
    on_gpu = setup.on_cuda
    return setup, Host(
        name=torch.cuda.get_device_name(device) if on_gpu else _processor(),
        cores=_cores(), threads=setup.threads, torch=torch.__version__,
        transformers=version("transformers"),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        revision="", dtype=dtype, model=checkpoint.name, weights=weights,
        rates=measure_rates(weights, device=device, dtype=dtype, quick=wish.quick),
    )  # fmt: skip


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    known = Path("/proc/cpuinfo")
    for line in known.read_text(encoding="utf-8").splitlines() if known.is_file() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _revision() -> str:
    """The commit, with a "+" where tracked files differ from it; empty outside git."""

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=ROOT, check=False, capture_output=True, text=True
        )
        return done.stdout.strip()

    return git("rev-parse", "--short", "HEAD") + "+" * bool(git("status", "--porcelain", "-uno"))
