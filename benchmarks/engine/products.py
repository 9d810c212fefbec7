"""The products of a forward pass alone: weights and nothing else, one after another.

What is left of the floor when the tensor library's own kernels make the products in the shapes of
a batch: no norms, no attention, no sampling. An engine on these kernels cannot be faster.
"""

import time
from collections.abc import Callable
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from benchmarks.engine.floor import Pass
from pipeline.engine.local.lean import LeanGemma3

if TYPE_CHECKING:
    from torch import Tensor

_TIMES: Final = 3


class Products:
    """The products of a lean forward pass, timed once for each shape."""

    def __init__(self, lean: LeanGemma3) -> None:
        """Those of a loaded model."""
        self._lean = lean
        self._known: dict[tuple[int, int], float] = {}

    def seconds(self, made: Pass) -> float:
        """Median seconds of all products of one pass."""
        shape = (made.rows * made.slots, made.rows * made.kept)
        if shape not in self._known:
            self._known[shape] = self._measure(*shape)
        return self._known[shape]

    def _measure(self, tokens: int, logits: int) -> float:
        import torch

        lean = self._lean
        with torch.inference_mode():
            hidden = _noise(lean, tokens, lean._embed.shape[1])
            heads = _noise(lean, tokens, lean._queries * lean._width)
            wide = lean._layers[0].gated(hidden)
            last = hidden[:1].expand(logits, -1).contiguous()

            def work() -> None:
                for layer in lean._layers:
                    layer.qkv(hidden)
                    layer.out(heads)
                    layer.gated(hidden)
                    layer.down(wide)
                if logits:
                    lean._head(last)

            return _median(work)


def of(run: Any) -> Products | None:
    """The products of a forward pass, where it is the lean one on the processor."""
    if not isinstance(run, LeanGemma3) or run._embed.device.type != "cpu":
        return None
    return Products(run)


def _noise(lean: LeanGemma3, rows: int, width: int) -> "Tensor":
    import torch

    return torch.randn(rows, width).to(lean._embed.dtype)


def _median(work: Callable[[], None]) -> float:
    taken = []
    for _ in range(1 + _TIMES):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return median(taken[1:])
