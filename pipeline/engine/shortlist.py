"""The likeliest tokens of a row, and how much all its tokens weigh, without sorting them.

A weight is exp((score - highest) / temperature). The idea: cut a row into blocks; the largest
scores lie in the blocks with the largest peaks, and what lies in no such block is below their
least peak. So a few blocks give the short list exactly, and the total between two bounds; only
where the bounds are apart is every token's weight added up.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch import Tensor

BLOCK: Final = 128
"""Tokens in a block."""
_LEAST: Final = -80.0
"""Logarithm of the least weight that is added up: a vocabulary of such tokens weighs 1e-29."""
_TIGHT: Final = 1e-3
"""Bounds this close, relative to their size, are hardly ever worth an exact total."""


@dataclass(frozen=True, slots=True)
class ShortList:
    """The beginning of each row's tokens in falling order."""

    values: "Tensor"
    """Scores, shape (rows, length)."""
    ids: "Tensor"
    """Token ids."""
    low: "Tensor"
    """Total weight of all tokens is at least this, shape (rows,), in float64,"""
    high: "Tensor"
    """and at most this; the same object where it is exact."""
    whole: bool = False
    """Whether it holds every token."""


def shortlist(scores: "Tensor", temperature: "Tensor", length: int) -> ShortList:
    """The ``length`` likeliest tokens of each row of ``scores`` (rows, vocabulary).

    Args:
        scores: Float32; overwritten.
        temperature: Shape (rows, 1), float32.
        length: At least 1; the vocabulary or more for all tokens.
    """
    import torch

    rows, width = scores.shape
    blocks, rest = divmod(width, BLOCK)
    if length >= width:
        values, ids = scores.sort(dim=1, descending=True)
    elif rest or length * 4 > blocks:
        values, ids = scores.topk(length)
    else:
        cut = scores.view(rows, blocks, BLOCK)
        peaks, chosen = cut.amax(2).topk(length)
        inside = cut.gather(1, chosen[:, :, None].expand(-1, -1, BLOCK)).view(rows, -1)
        values, places = inside.topk(length)
        ids = chosen.gather(1, places >> 7) * BLOCK + places % BLOCK
        low = total_weight(inside, values[:, :1], temperature)
        floor = ((peaks[:, -1:] - values[:, :1]) / temperature).double().exp()[:, 0]
        high = low + (width - inside.shape[1]) * floor
        loose = high > low * (1 + _TIGHT)
        if bool(loose.any()):
            exact = total_weight(scores, values[:, :1], temperature)
            low, high = torch.where(loose, exact, low), torch.where(loose, exact, high)
        return ShortList(values, ids, low, high)
    total = total_weight(scores, values[:, :1], temperature)
    return ShortList(values, ids, total, total, whole=length >= width)


def total_weight(scores: "Tensor", highest: "Tensor", temperature: "Tensor") -> "Tensor":
    """Sum of the weights of each row, shape (rows,), float64; ``scores`` is overwritten."""
    # Exponentials that are subnormal cost a hundred times as much, and add nothing.
    scaled = scores.sub_(highest).div_(temperature).clamp_(min=_LEAST)
    return scaled.exp_().sum(1).double()
