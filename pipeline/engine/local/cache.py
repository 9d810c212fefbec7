"""What a batch remembers while it grows: a prefix that all rows share, and each row's own tokens.

Each row's own tokens stand at the right end of the batch's slots, padded on the left, so
position = prefix length + slot - padding, and a sliding window is exact whatever the padding. Rows
that ended leave without the others being copied. How attention reads it is not known here.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from torch import Tensor

_HIDDEN: Final = -1e30
"""Finite, so that a padding slot which sees nothing does not turn into NaN."""


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
    """What is added to attention scores, shape (rows, 1, heads of a key x count, keys).

    None where nothing is.
    """

    shared: "Tensor | None"
    """Over the prefix."""
    own: "Tensor | None"
    """Over each row's own slots."""


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
        self._rows = len(pads)
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
        import torch

        if layer not in self._layers:
            shape = (self._rows, keys.shape[1], self._capacity)
            # Slots that nobody fills are read, and weighed with zero: they must hold numbers.
            make = torch.zeros if self._padded else torch.empty
            self._layers[layer] = (
                make(*shape, keys.shape[-1], dtype=keys.dtype, device=keys.device),
                make(*shape, values.shape[-1], dtype=values.dtype, device=values.device),
            )
        end = self.used + keys.shape[2]
        rows, stored_keys, stored_values = keys.shape[0], *self._layers[layer]
        stored_keys[:rows, :, self.used : end] = keys
        stored_values[:rows, :, self.used : end] = values
        return stored_keys[:rows, :, :end], stored_values[:rows, :, :end]

    def bytes_per_slot(self) -> int:
        """Memory that one slot of one row takes, over all layers."""
        stored = [tensor for pair in self._layers.values() for tensor in pair]
        return sum(t.nbytes for t in stored) // (self._rows * self._capacity)

    def get_seq_length(self, layer: int = 0) -> int:
        """Tokens before the next slot, padding counted."""
        return self.prefix.length + self.used

    @contextmanager
    def first(self, count: int) -> Iterator[None]:
        """Within it, only the first ``count`` rows take part in forward passes."""
        everybody = self.pads
        self.pads = everybody[:count]
        try:
            yield
        finally:
            self.pads = everybody
            self._masks.clear()

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
                before = self.prefix.layers[layer]
                pair = [torch.cat([before[i], pair[i]], 1) for i in (0, 1)]
            layers.append((pair[0].clone(), pair[1].clone()))
        return Prefix(self.prefix.length + self.used, tuple(layers))

    def mask(self, count: int, window: int | None, *, heads: int) -> "Mask":
        """What queries of the newest ``count`` slots may not see.

        A padding slot sees whatever it likes, for nobody sees it.

        Args:
            count: Newest slots.
            window: How far back a query sees; None for all.
            heads: Query heads that share a key's head.
        """
        if window is not None and self.prefix.length + self.used + count <= window:
            window = None
        if window not in self._masks:
            self._masks[window] = self._mask(count, window, heads)
        return self._masks[window]

    def _mask(self, count: int, window: int | None, heads: int) -> "Mask":
        import torch

        own = None
        slots = torch.arange(self.used + count, device=self.pads.device)
        if count > 1 or self._padded or window is not None:
            hidden = slots > slots[-count:, None]
            if window is not None:
                hidden = hidden | (slots[-count:, None] - slots >= window)
            own = _bias(hidden | (slots < self.pads[:, None])[:, None], heads)
        if window is None:
            return Mask(None, own)
        at = self.prefix.length + slots[-count:] - self.pads[:, None]
        distance = at[:, :, None] - torch.arange(self.prefix.length, device=at.device)
        return Mask(_bias(distance >= window, heads), own)


def _bias(hidden: "Tensor", heads: int) -> "Tensor":
    """Zero, or a number that hides; shape (rows, 1, heads x count, keys)."""
    return hidden[:, None].float().mul_(_HIDDEN).repeat(1, 1, heads, 1)
