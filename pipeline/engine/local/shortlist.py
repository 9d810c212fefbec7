"""The likeliest tokens of a row, and how much all its tokens weigh, without sorting them.

A weight is exp((score - highest) / temperature). The idea: cut a row into blocks; the largest
scores lie in the blocks with the largest peaks, and what lies in no such block is below the
largest peak among the others. So a few blocks give the short list exactly, and the total between
two bounds. Where that is not enough, every token's weight is added up.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch import Tensor

BLOCK: Final = 128
"""Tokens in a block."""
_PART: Final = 64
"""Tokens in a part of a block; the finer the parts, the tighter the bounds of the total."""
FEW: Final = 64
"""Blocks that are looked into at first, and length of the short list from them."""
_LEAST: Final = -80.0
"""Logarithm of the least weight that is added up: a vocabulary of such tokens weighs 1e-29."""


@dataclass(frozen=True, slots=True)
class ShortList:
    """The beginning of each row's tokens in falling order."""

    values: "Tensor"
    """Scores, shape (rows, length)."""
    ids: "Tensor"
    """Token ids."""
    certain: "Tensor"
    """How many of them, from the first on, surely have this rank, shape (rows,)."""
    low: "Tensor"
    """Total weight of all tokens is at least this, shape (rows,), in float64,"""
    high: "Tensor"
    """and at most this; the same object where it is exact."""
    whole: bool = False
    """Whether it holds every token."""

    def take(self, rows: "Tensor", total: "Tensor") -> "ShortList":
        """The lists of some rows, with the exact total weight of each."""
        parts = (self.values[rows], self.ids[rows], self.certain[rows])
        return ShortList(*parts, total, total, self.whole)


@dataclass(frozen=True, slots=True)
class Penalty:
    """The repetition penalty of rows: which tokens each has seen, and the factor."""

    seen: "Tensor"
    """Token ids, shape (rows, tokens); a token may stand there more than once."""
    factor: "Tensor"
    """CTRL's penalty, shape (rows, 1); 1 is off."""

    def of(self, found: "Tensor") -> "Tensor":
        """Scores of seen tokens after the penalty."""
        import torch

        return torch.where(found > 0, found / self.factor, found * self.factor)

    def take(self, rows: "Tensor") -> "Penalty":
        """The penalty of some rows."""
        return Penalty(self.seen[rows], self.factor[rows])


def from_few_blocks(
    logits: "Tensor", temperature: "Tensor", penalty: Penalty | None
) -> ShortList | None:
    """A short list from the blocks with the largest peaks; None for a vocabulary too small.

    Args:
        logits: Shape (rows, vocabulary), in any float format; read once, not changed.
        temperature: Shape (rows, 1), float32.
        penalty: Of these rows. Where it raises scores (a factor below 1) nothing is certain.
    """
    import torch

    rows, width = logits.shape
    blocks = width // BLOCK
    if blocks < 4 * FEW:
        return None
    body = logits[:, : blocks * BLOCK].view(rows, blocks, BLOCK)
    parts = _peaks(body.view(rows, blocks, BLOCK // _PART, _PART)).float()
    top, order = torch.maximum(parts[:, :, 0], parts[:, :, 1]).topk(FEW + 1)
    chosen, others = order[:, :FEW], top[:, FEW]
    tail = logits[:, blocks * BLOCK :]
    none = logits.new_full((rows, 1), -torch.inf)
    inside = torch.cat(
        [body[torch.arange(rows, device=logits.device)[:, None], chosen].flatten(1), tail, none], 1
    ).float()
    if penalty is not None:
        _penalise(inside, chosen, penalty, blocks=blocks)
    values, places = inside.topk(FEW)
    values = values.masked_fill_(logits.sum(1).isnan()[:, None], torch.nan)
    ids = _ids(places, chosen, blocks=blocks)
    low = total_weight(inside, values[:, :1], temperature)
    parts.scatter_(1, chosen[:, :, None].expand(-1, -1, BLOCK // _PART), -torch.inf)
    unseen = total_weight(parts.flatten(1), values[:, :1], temperature)
    high = low + _PART * unseen
    certain = (values >= others[:, None]).sum(1)
    if penalty is not None:
        certain = certain * (penalty.factor[:, 0] >= 1)
    return ShortList(values, ids, certain, low, high)


def _peaks(body: "Tensor") -> "Tensor":
    """The largest score of each part of each block, shape (rows, blocks, parts).

    Processors compare 16-bit integers much faster than 16-bit floats. Read as integers, floats
    that are not negative keep their order, and negative ones are below them in reverse.
    """
    import torch

    if body.device.type != "cpu" or body.element_size() != 2:
        return body.amax(3)
    bits = body.view(torch.int16)
    highest, lowest = bits.amax(3), bits.amin(3)
    return torch.where(highest >= 0, highest, lowest).view(body.dtype)


def _penalise(inside: "Tensor", chosen: "Tensor", penalty: Penalty, *, blocks: int) -> None:
    """Apply the penalty to seen tokens within the chosen blocks and the tail."""
    import torch

    rows, width = inside.shape
    nowhere = width - 1
    starts = chosen.new_full((rows, blocks + 1), -1)
    slots = torch.arange(chosen.shape[1], device=chosen.device).expand_as(chosen)
    starts.scatter_(1, chosen, slots * BLOCK)
    starts[:, blocks] = chosen.shape[1] * BLOCK
    start = starts.gather(1, penalty.seen // BLOCK)
    place = torch.where(start < 0, nowhere, start + penalty.seen % BLOCK)
    inside.scatter_(1, place, penalty.of(inside.gather(1, place)))


def _ids(places: "Tensor", chosen: "Tensor", *, blocks: int) -> "Tensor":
    """Token ids of places within the chosen blocks, or within the tail after them."""
    import torch

    few = chosen.shape[1]
    slot = places // BLOCK
    block = chosen.gather(1, slot.clamp(max=few - 1))
    return torch.where(slot < few, block, slot - few + blocks) * BLOCK + places % BLOCK


def from_scores(scores: "Tensor", temperature: "Tensor", length: int) -> ShortList:
    """The ``length`` likeliest tokens of each row of ``scores`` (rows, vocabulary).

    Args:
        scores: Float32; overwritten.
        temperature: Shape (rows, 1), float32.
        length: At least 1; the vocabulary or more for all tokens.
    """
    rows, width = scores.shape
    blocks, rest = divmod(width, BLOCK)
    if length >= width:
        values, ids = scores.sort(dim=1, descending=True)
    elif rest or length * 4 > blocks:
        values, ids = scores.topk(length)
    else:
        cut = scores.view(rows, blocks, BLOCK)
        chosen = cut.amax(2).topk(length).indices
        inside = cut.gather(1, chosen[:, :, None].expand(-1, -1, BLOCK)).view(rows, -1)
        values, places = inside.topk(length)
        ids = _ids(places, chosen, blocks=blocks)
    total = total_weight(scores, values[:, :1], temperature)
    certain = ids.new_full((rows,), values.shape[1])
    return ShortList(values, ids, certain, total, total, whole=length >= width)


def total_weight(scores: "Tensor", highest: "Tensor", temperature: "Tensor") -> "Tensor":
    """Sum of the weights of each row, shape (rows,), float64; ``scores`` is overwritten."""
    # Exponentials that are subnormal cost a hundred times as much, and add nothing.
    scaled = scores.sub_(highest).div_(temperature).clamp_(min=_LEAST)
    return scaled.exp_().sum(1).double()
