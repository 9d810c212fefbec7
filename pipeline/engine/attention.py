"""Attention over a prefix that a whole batch shares, and over each row's own tokens.

The prefix's keys and values exist once, however many rows read them: their scores are one matrix
product over all rows. Each row's own tokens stand at the right end of the batch's slots, padded on
the left, so position = prefix length + slot - padding, and a sliding window is exact whatever the
padding. It plugs into transformers as an attention implementation, so that the model code itself
(projections, norms, rotary positions) stays transformers' own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pipeline.errors import EngineError

if TYPE_CHECKING:
    from torch import Tensor, nn

    Pair = tuple[Tensor, Tensor]

NAME: Final = "sft_assay_rows"
"""Under which :func:`attend` is registered with transformers."""
_HIDDEN: Final = -1e30
"""Finite, so that a padding slot which sees nothing does not turn into NaN."""
_UNSUPPORTED: Final = ("s_aux", "position_bias", "head_mask")


@dataclass(frozen=True, slots=True)
class Prefix:
    """Keys and values of tokens that a whole batch shares, a pair for each layer."""

    length: int
    """Tokens."""
    layers: tuple[tuple["Tensor", "Tensor"], ...]
    """Keys and values, each (key/value heads, tokens, width)."""


EMPTY: Final = Prefix(0, ())


@dataclass(frozen=True, slots=True)
class Mask:
    """What is added to attention scores, shape (rows, 1, count, keys); None where nothing is."""

    shared: "Tensor | None"
    """Over the prefix."""
    own: "Tensor | None"
    """Over each row's own slots."""


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


class RowCache:
    """What a batch remembers while it grows: the shared prefix, and each row's own tokens.

    It is handed to a model as ``past_key_values`` (for ``update``) and as ``rows`` (for
    :func:`attend`). Slots are filled for all rows at once, from the left.
    """

    is_compileable = False

    def __init__(self, prefix: Prefix, pads: "Tensor", *, capacity: int) -> None:
        """An empty cache.

        Args:
            prefix: What all rows share.
            pads: Slots of padding at the left of each row, shape (rows,).
            capacity: Slots a row can use.
        """
        self.prefix = prefix
        self.pads = pads
        self.used = 0
        self._capacity = capacity
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}
        self._masks: dict[int | None, Mask] = {}
        self._padded = bool(pads.any())

    def positions(self, count: int) -> "Tensor":
        """Positions of the next ``count`` slots of each row, shape (rows, count)."""
        import torch

        slots = torch.arange(self.used, self.used + count, device=self.pads.device)
        return (self.prefix.length + slots - self.pads[:, None]).clamp_(min=0)

    def advance(self, count: int) -> None:
        """Note that a forward pass has filled ``count`` slots in every layer."""
        self.used += count
        self._masks.clear()

    def update(
        self, keys: "Tensor", values: "Tensor", layer: int, *_: Any, **__: Any
    ) -> "tuple[Tensor, Tensor]":
        """Store the keys and values of new slots; return those of all slots, old and new."""
        if layer not in self._layers:
            shape = (keys.shape[0], keys.shape[1], self._capacity)
            self._layers[layer] = (
                keys.new_empty(*shape, keys.shape[-1]),
                values.new_empty(*shape, values.shape[-1]),
            )
        end = self.used + keys.shape[2]
        rows, stored_keys, stored_values = keys.shape[0], *self._layers[layer]
        stored_keys[:rows, :, self.used : end] = keys
        stored_values[:rows, :, self.used : end] = values
        return stored_keys[:rows, :, :end], stored_values[:rows, :, :end]

    def get_seq_length(self, layer: int = 0) -> int:
        """Tokens before the next slot, padding counted."""
        return self.prefix.length + self.used

    def keep(self, sources: Sequence[int]) -> None:
        """Leave only the rows in ``sources``, in that order; row i moves from ``sources[i]``."""
        moves = [(source, i) for i, source in enumerate(sources) if source != i]
        if moves:
            source, target = (self.pads.new_tensor(column) for column in zip(*moves, strict=True))
            for stored in (tensor for pair in self._layers.values() for tensor in pair):
                stored[target, :, : self.used] = stored[source, :, : self.used]
            self.pads[target] = self.pads[source]
        self.pads = self.pads[: len(sources)]

    def as_prefix(self) -> Prefix:
        """The prefix with the tokens of a single row after it, as a prefix for others."""
        import torch

        assert self.pads.shape[0] == 1 and not self._padded
        layers = []
        for layer in sorted(self._layers):
            pair = [stored[0, :, : self.used] for stored in self._layers[layer]]
            if self.prefix.length:
                pair = [torch.cat(both, 1) for both in zip(self.prefix.layers[layer], pair)]
            layers.append((pair[0].clone(), pair[1].clone()))
        return Prefix(self.prefix.length + self.used, tuple(layers))

    def mask(self, count: int, window: int | None) -> "Mask":
        """What queries of the newest ``count`` slots may not see.

        A padding slot sees whatever it likes, for nobody sees it.
        """
        if window is not None and self.prefix.length + self.used + count <= window:
            window = None
        if window not in self._masks:
            self._masks[window] = self._mask(count, window)
        return self._masks[window]

    def _mask(self, count: int, window: int | None) -> "Mask":
        import torch

        own = None
        slots = torch.arange(self.used + count, device=self.pads.device)
        if count > 1 or self._padded or window is not None:
            hidden = slots > slots[-count:, None]
            if window is not None:
                hidden = hidden | (slots[-count:, None] - slots >= window)
            own = _bias(hidden | (slots < self.pads[:, None])[:, None])
        if window is None:
            return Mask(None, own)
        at = self.prefix.length + slots[-count:] - self.pads[:, None]
        distance = at[:, :, None] - torch.arange(self.prefix.length, device=at.device)
        return Mask(_bias(distance >= window), own)


def _bias(hidden: "Tensor") -> "Tensor":
    """Zero, or a number that hides; shape (rows, 1, count, keys)."""
    return hidden[:, None].float().mul_(_HIDDEN)


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
    mask = rows.mask(count, shape.window)
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
    return scores if bias is None else scores + _for_heads(bias, scores.shape[2])


def _for_heads(bias: "Tensor", many: int) -> "Tensor":
    """The bias of one head, for all that share its keys."""
    return bias.repeat(1, 1, many // bias.shape[2], 1)


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
    bias = None if mask.own is None else _for_heads(mask.own, many)
    out, total = kernel(query, *own, 0.0, False, attn_mask=bias, scale=scale)
    if shared is None:
        return out  # type: ignore[no-any-return]
    bias = mask.shared
    if bias is not None:
        bias = _for_heads(bias, many).reshape(1, 1, batch * many, -1)
    flat = query.transpose(0, 1).reshape(1, groups, batch * many, -1)
    keys, values = shared[0][None], shared[1][None]
    before, weight = kernel(flat, keys, values, 0.0, False, attn_mask=bias, scale=scale)
    before = before.view(groups, batch, many, -1).transpose(0, 1)
    weight = weight.view(groups, batch, many).transpose(0, 1)
    share = torch.sigmoid(weight - total.view(batch, groups, many))[..., None]
    return torch.lerp(out.float(), before.float(), share).to(query.dtype)


def _over_shared(rows: "Tensor", shared: "Tensor") -> "Tensor":
    """Multiply (rows, groups, m, k) by (groups, k, n), all rows of a group at once."""
    batch, groups, many, _ = rows.shape
    flat = rows.transpose(0, 1).reshape(groups, batch * many, -1)
    return (flat @ shared).view(groups, batch, many, -1).transpose(0, 1)
