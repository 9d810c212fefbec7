"""Products with fixed weights, laid out once for a processor's matrix units.

Without this, every product of a bfloat16 layer on a CPU lays its weights out anew; a decode step is
little else than such products. The values are the same; only their order in memory changes. Where
torch has no such operators, or they answer differently, plain products are used.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from torch import Tensor

Product = Callable[["Tensor"], "Tensor"]
"""Multiplies rows of its argument by fixed weights."""
_NARROW, _PORTION = 1024, 256
"""Products of so few outputs run at half their speed with 257 to 1,024 rows (oneDNN in torch 2.13)
and are made in portions of 256."""
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
    if weight.shape[0] > _NARROW:
        return lambda rows: linear(rows, packed, None, "none", [], "")

    def in_portions(rows: "Tensor") -> "Tensor":
        flat = rows.flatten(0, -2)
        if not _PORTION < len(flat) <= 4 * _PORTION:
            return linear(rows, packed, None, "none", [], "")  # type: ignore[no-any-return]
        parts = torch.split(flat, _PORTION)
        made = torch.cat([linear(part, packed, None, "none", [], "") for part in parts])
        return made.view(*rows.shape[:-1], -1)

    return in_portions


def gated(gate: "Tensor", up: "Tensor") -> Product:
    """The product of up with gelu (tanh form) of gate, for the weights of two linear layers."""
    import torch

    gate, up = gate.detach(), up.detach()
    if not _packable(gate):
        both = product([gate, up])

        def plain(rows: "Tensor") -> "Tensor":
            left, right = both(rows).chunk(2, -1)
            return torch.nn.functional.gelu(left, approximate="tanh") * right

        return plain
    linear = torch.ops.mkldnn._linear_pointwise
    packed_gate, packed_up = (
        torch.ops.mkldnn._reorder_linear_weight(weight, None) for weight in (gate, up)
    )

    def fused(rows: "Tensor") -> "Tensor":
        left = linear(rows, packed_gate, None, "gelu", [], "tanh")
        out: Tensor = linear.binary(rows, left, packed_up, None, "mul")
        return out

    return fused


def pack_linears(model: Any) -> None:
    """Let each linear layer of a model compute with packed weights, where that is possible."""
    from torch import nn

    tied = model.get_input_embeddings().weight
    for layer in model.modules():
        if type(layer) is nn.Linear and layer.bias is None and _packable(layer.weight):
            layer.forward = product([layer.weight])
            if layer.weight is not tied:
                layer.weight = nn.Parameter(layer.weight.new_empty(0), requires_grad=False)


def _packable(weight: "Tensor") -> bool:
    import torch

    return weight.dtype is torch.bfloat16 and weight.device.type == "cpu" and _works()


@cache
def _works() -> bool:
    """Whether the operators exist and agree with plain products."""
    import torch

    ops = torch.ops.mkldnn
    if not (hasattr(ops, "_linear_pointwise") and hasattr(ops, "_reorder_linear_weight")):
        return False
    fixed = torch.Generator().manual_seed(0)
    weight = torch.randn(64, 32, generator=fixed).bfloat16()
    rows = torch.randn(3, 2, 32, generator=fixed).bfloat16()
    plain = torch.nn.functional.linear(rows, weight)
    expected = torch.nn.functional.gelu(plain, approximate="tanh") * plain
    try:
        packed = ops._reorder_linear_weight(weight, None)
        left = ops._linear_pointwise(rows, packed, None, "gelu", [], "tanh")
        found = ops._linear_pointwise.binary(rows, left, packed, None, "mul")
    except (RuntimeError, AttributeError):
        return False
    return bool((found - expected).abs().max() <= _TOLERANCE * expected.abs().max())
