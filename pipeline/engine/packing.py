"""Products with fixed weights, laid out once for a processor's matrix units.

Without this, every product of a bfloat16 layer on a CPU lays its weights out anew; a decode step is
little else than such products. The values are the same; only their order in memory changes. Where
torch has no such operators, or they answer differently, plain products are used.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from torch import Tensor, nn

Product = Callable[["Tensor"], "Tensor"]
"""Multiplies rows of its argument by fixed weights."""
_TOLERANCE: Final = 0.02
"""Largest difference of a packed product, relative to the largest value of the plain one."""


def product(weights: "Sequence[Tensor]") -> Product:
    """The product with linear layers' weights, joined along their outputs; without bias."""
    import torch

    weight = weights[0].detach() if len(weights) == 1 else torch.cat([*weights]).detach()
    if not _packable(weight):
        return lambda rows: torch.nn.functional.linear(rows, weight)
    linear = torch.ops.mkldnn._linear_pointwise
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)
    return lambda rows: linear(rows, packed, None, "none", [], "")  # type: ignore[no-any-return]


def pack_linears(model: "nn.Module") -> None:
    """Let each linear layer of a model compute with packed weights, where that is possible."""
    from torch import nn

    tied: Any = model.get_input_embeddings().weight  # type: ignore[operator]
    for layer in model.modules():
        if type(layer) is nn.Linear and layer.bias is None and _packable(layer.weight):
            layer.forward = product([layer.weight])  # type: ignore[method-assign]
            if layer.weight is not tied:
                layer.weight = nn.Parameter(layer.weight.new_empty(0), requires_grad=False)


def _packable(weight: "Tensor") -> bool:
    import torch

    return weight.dtype is torch.bfloat16 and weight.device.type == "cpu" and _works()


@cache
def _works() -> bool:
    """Whether the operators exist and agree with a plain product."""
    import torch

    ops = torch.ops.mkldnn
    if not (hasattr(ops, "_linear_pointwise") and hasattr(ops, "_reorder_linear_weight")):
        return False
    fixed = torch.Generator().manual_seed(0)
    weight = torch.randn(64, 32, generator=fixed).bfloat16()
    rows = torch.randn(3, 2, 32, generator=fixed).bfloat16()
    plain = torch.nn.functional.linear(rows, weight).float()
    try:
        packed = ops._reorder_linear_weight(weight, None)
        ours = ops._linear_pointwise(rows, packed, None, "none", [], "").float()
    except RuntimeError:
        return False
    return bool((ours - plain).abs().max() <= _TOLERANCE * plain.abs().max())
