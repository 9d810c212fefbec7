"""Attention over a prefix that a whole batch shares, and over each row's own tokens.

The prefix's keys and values exist once, however many rows read them: their scores are one matrix
product over all rows. It plugs into transformers as an attention implementation, so that the model
code itself (projections, norms, rotary positions) stays transformers' own.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pipeline.engine.local.cache import Mask, RowCache
from pipeline.errors import EngineError

if TYPE_CHECKING:
    from torch import Tensor, nn

    Pair = tuple[Tensor, Tensor]

NAME: Final = "sft_assay_rows"
"""Under which :func:`attend` is registered with transformers."""
_UNSUPPORTED: Final = ("s_aux", "position_bias", "head_mask")


@dataclass(frozen=True, slots=True)
class Shape:
    """What attention must know of a layer."""

    layer: int
    """Its index."""
    scale: float
    """Factor of the products of queries and keys."""
    window: int | None = None
    """How far back it sees, in tokens; None for all."""
    cap: float | None = None
    """Scores are squashed to this size by a hyperbolic tangent; None for none."""


def register() -> None:
    """Make :func:`attend` known to transformers; needed once before a model is loaded."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)


def attend(
    module: "nn.Module",
    query: "Tensor",
    key: "Tensor",
    value: "Tensor",
    attention_mask: "Tensor | None",
    *,
    scaling: float | None = None,
    rows: RowCache | None = None,
    **options: Any,
) -> "tuple[Tensor, None]":
    """Grouped-query attention of the newest slots over the prefix and all slots of each row.

    Shapes as transformers' attention interface has them: query (rows, heads, count, width); key
    and value (rows, key/value heads, slots, width); the result (rows, count, heads, width).
    """
    if rows is None or any(options.get(name) is not None for name in _UNSUPPORTED):
        raise EngineError(f"attention of {type(module).__name__} cannot run in process; use server")
    out = over_rows(
        query,
        (key, value),
        rows,
        Shape(
            layer=module.layer_idx,  # type: ignore[arg-type]
            scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
            window=options.get("sliding_window"),
            cap=options.get("softcap"),
        ),
    )
    return out, None


def over_rows(query: "Tensor", own: "Pair", rows: RowCache, shape: Shape) -> "Tensor":
    """Attention of the newest slots: (rows, heads, count, width) to (rows, count, heads, width)."""
    batch, heads, count, _ = query.shape
    groups = own[0].shape[1]
    grouped = query.reshape(batch, groups, heads // groups * count, -1)
    shared = rows.prefix.layers[shape.layer] if rows.prefix.length else None
    mask = rows.mask(count, shape.window, heads=heads // groups)
    if query.device.type == "cpu" and shape.cap is None and own[0].shape == own[1].shape:
        out = _fused(grouped, own, shared, mask, scale=shape.scale)
    else:
        out = _plain(grouped, own, shared, mask, scale=shape.scale, cap=shape.cap)
    return out.view(batch, heads, count, -1).transpose(1, 2).contiguous()


def _plain(
    query: "Tensor",
    own: "Pair",
    shared: "Pair | None",
    mask: Mask,
    *,
    scale: float,
    cap: float | None,
) -> "Tensor":
    """Attention as it is written down, in four products."""
    import torch

    parts = [_scores(query @ own[0].transpose(-1, -2), mask.own, scale=scale, cap=cap)]
    length = 0
    if shared is not None:
        length = shared[0].shape[1]
        before = _over_shared(query, shared[0].transpose(-1, -2))
        parts.insert(0, _scores(before, mask.shared, scale=scale, cap=cap))
    weights = torch.cat(parts, -1).softmax(-1).to(query.dtype)
    out = weights[..., length:] @ own[1]
    if shared is not None:
        out = out + _over_shared(weights[..., :length], shared[1])
    return out


def _scores(
    products: "Tensor", bias: "Tensor | None", *, scale: float, cap: float | None
) -> "Tensor":
    import torch

    scores = products.float() * scale
    if cap is not None:
        scores = torch.tanh(scores / cap) * cap
    return scores if bias is None else scores + bias


def _fused(
    query: "Tensor", own: "Pair", shared: "Pair | None", mask: Mask, *, scale: float
) -> "Tensor":
    """Attention by torch's kernel for CPUs, over prefix and own tokens apart, then joined.

    The kernel also returns the logarithm of each softmax's denominator, and with it two results
    over disjoint keys become one over their union.
    """
    import torch

    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    batch, groups, many, _ = query.shape
    out, total = kernel(query, *own, 0.0, False, attn_mask=mask.own, scale=scale)
    if shared is None:
        return out  # type: ignore[no-any-return]
    bias = mask.shared
    if bias is not None:
        bias = bias.reshape(1, 1, batch * many, -1)
    flat = query.transpose(0, 1).reshape(1, groups, batch * many, -1)
    keys, values = shared[0][None], shared[1][None]
    before, weight = kernel(flat, keys, values, 0.0, False, attn_mask=bias, scale=scale)
    before = before.view(groups, batch, many, -1).transpose(0, 1)
    weight = weight.view(groups, batch, many).transpose(0, 1)
    share = torch.sigmoid(weight - total.view(batch, groups, many))[..., None]
    return torch.lerp(out, before, share.to(out.dtype))


def _over_shared(rows: "Tensor", shared: "Tensor") -> "Tensor":
    """Multiply (rows, groups, m, k) by (groups, k, n), all rows of a group at once."""
    batch, groups, many, _ = rows.shape
    flat = rows.transpose(0, 1).reshape(groups, batch * many, -1)
    return (flat @ shared).view(groups, batch, many, -1).transpose(0, 1)
