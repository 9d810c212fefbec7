"""Weights of linear layers packed once for a processor's matrix units.

Without this, every product of a bfloat16 layer on a CPU lays its weights out anew; a decode step is
little else than such products. The values are the same; only their order in memory changes. Where
torch has no such operators, or they answer differently, layers stay as they are.
"""

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import torch
    from torch import nn

_TOLERANCE: Final = 0.02
"""Largest difference of a packed product, relative to the largest value of the plain one."""


def pack_linears(model: "nn.Module") -> int:
    """Replace the forward pass of each bfloat16 linear layer on a CPU; how many were replaced."""
    import torch
    from torch import nn

    if not torch.backends.mkldnn.is_available() or not _works():
        return 0
    layers = [
        layer
        for layer in model.modules()
        if type(layer) is nn.Linear
        and layer.weight.dtype is torch.bfloat16
        and layer.weight.device.type == "cpu"
    ]
    shared = {id(model.get_input_embeddings().weight)}  # type: ignore[operator]
    for layer in layers:
        _pack(layer, release=id(layer.weight) not in shared)
    return len(layers)


def _pack(layer: Any, *, release: bool) -> None:
    import torch

    linear = torch.ops.mkldnn._linear_pointwise
    packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), None)
    bias = None if layer.bias is None else layer.bias.detach()

    def forward(x: "torch.Tensor") -> "torch.Tensor":
        out: torch.Tensor = linear(x, packed, bias, "none", [], "")
        return out

    layer.forward = forward
    if release:
        layer.weight = torch.nn.Parameter(layer.weight.new_empty(0), requires_grad=False)


def _works() -> bool:
    """Whether the operators exist and agree with a plain product."""
    import torch

    ops = torch.ops.mkldnn
    if not (hasattr(ops, "_linear_pointwise") and hasattr(ops, "_reorder_linear_weight")):
        return False
    torch_state = torch.Generator().manual_seed(0)
    weight = torch.randn(64, 32, generator=torch_state).bfloat16()
    rows = torch.randn(3, 2, 32, generator=torch_state).bfloat16()
    plain = torch.nn.functional.linear(rows, weight).float()
    try:
        packed = ops._reorder_linear_weight(weight, None)
        ours = ops._linear_pointwise(rows, packed, None, "none", [], "").float()
    except RuntimeError:
        return False
    return bool((ours - plain).abs().max() <= _TOLERANCE * plain.abs().max())
