"""The floor: the least time in which a machine can make given forward passes.

A pass reads every weight that it uses once, and multiplies every token with the body's weights and
every wanted row of logits with the head's. The slower of the two, at rates measured on the same
machine, is its floor; attention, sampling and everything else count as nothing.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import torch

BYTES: Final = {"float32": 4, "bfloat16": 2, "float16": 2}
_EMBEDDINGS: Final = ("embed_tokens.weight", "wte.weight", "embed_in.weight")
_HEADS: Final = ("lm_head.weight", "embed_out.weight")
_SMALLEST_BUFFER: Final = 16 << 20
_LARGEST_BUFFER: Final = 4 << 30
_TIMES: Final = 7


class Pass(NamedTuple):
    """One forward pass."""

    rows: int
    """Rows of the batch."""
    slots: int
    """Tokens of each row, padding counted."""
    kept: int
    """Last tokens of each row whose logits were wanted."""


@dataclass(frozen=True, slots=True)
class Weights:
    """How large a model is."""

    body: int
    """Parameters that every token is multiplied with."""
    head: int
    """Parameters that every row of logits costs; those of the embedding, where both are one."""
    bytes_each: int
    """Bytes of a parameter."""

    @property
    def bytes(self) -> int:
        """What one pass reads."""
        return (self.body + self.head) * self.bytes_each


@dataclass(frozen=True, slots=True)
class Rates:
    """What the machine can do."""

    bytes_per_second: float
    """Reading a buffer as large as the weights, once."""
    flops_per_second: float
    """Multiplying square matrices of the run's dtype."""


def pass_seconds(made: Pass, weights: Weights, rates: Rates) -> float:
    """Least seconds of one pass; without logits the head is not read."""
    read = weights.bytes if made.kept else weights.body * weights.bytes_each
    tokens, logits = made.rows * made.slots, made.rows * made.kept
    multiplied = 2 * (weights.body * tokens + weights.head * logits)
    return max(read / rates.bytes_per_second, multiplied / rates.flops_per_second)


def floor_seconds(passes: Counter[Pass], weights: Weights, rates: Rates) -> float:
    """Least seconds of all passes, one after another."""
    return sum(n * pass_seconds(made, weights, rates) for made, n in passes.items())


def read_weights(folder: Path, *, dtype: str) -> Weights:
    """Sizes from the headers of a folder's safetensors."""
    from safetensors import safe_open

    body = embedding = head = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():
                size = prod(file.get_slice(name).get_shape())
                if name.endswith(_EMBEDDINGS):
                    embedding += size
                elif name.endswith(_HEADS):
                    head += size
                else:
                    body += size
    return Weights(body, head or embedding, BYTES[dtype])


def measure_rates(weights: Weights, *, device: str, dtype: str, quick: bool) -> Rates:
    """Best of several ways and sizes, each the best of several times."""
    import torch

    kind: torch.dtype = getattr(torch, dtype)
    sizes = [512] if quick else [1024, 2048, 4096] + [8192] * device.startswith("cuda")
    return Rates(
        bytes_per_second=_bandwidth(weights, device),
        flops_per_second=max(_multiplication(size, device, kind) for size in sizes),
    )


def _bandwidth(weights: Weights, device: str) -> float:
    import torch

    size = min(max(weights.bytes, _SMALLEST_BUFFER), _LARGEST_BUFFER)
    buffer = torch.ones(size // 4 // 1024, 1024, device=device)
    vector = torch.ones(1024, device=device)
    ways: tuple[Callable[[], object], ...] = (buffer.sum, buffer.amax, lambda: buffer @ vector)
    return buffer.nbytes / min(_best(way, device) for way in ways)


def _multiplication(size: int, device: str, dtype: "torch.dtype") -> float:
    import torch

    a = torch.ones(size, size, device=device, dtype=dtype)
    return 2 * size**3 / _best(lambda: a @ a, device)


def _best(work: Callable[[], object], device: str) -> float:
    """Least seconds of several times, after two that warm up."""
    import torch

    seconds = []
    for _ in range(2 + _TIMES):
        began = time.perf_counter()
        work()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return min(seconds[2:])
