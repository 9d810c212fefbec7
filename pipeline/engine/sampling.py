"""Draws one token a row from logits: exactly, row by row, and without sorting the vocabulary.

The order is repetition penalty (CTRL, over prompt and generated tokens), temperature, top-k, top-p,
min-p, as in transformers' processors. The idea: a short list of the likeliest tokens in falling
order almost always holds everything that can be drawn, and whether it does can be proved, because
each rule keeps a beginning of that order. Where the proof fails, the list grows, in the end to the
whole vocabulary. The random number of a row is a hash of its seed and step, nothing else.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from pipeline.errors import EngineError
from pipeline.types import Sampling

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

_SHORT: Final = (256, 4096)
"""Lengths of the short list that are tried before the whole vocabulary."""
_BLOCK: Final = 128
_LEAST: Final = -80.0
"""Logarithm of the least weight: a vocabulary of such tokens weighs 1e-29."""
_CHUNK_BYTES: Final = {"cpu": 4 << 20}
"""Float32 logits worked on at once: what a core's cache holds, where there is one."""
_DEFAULT_CHUNK_BYTES: Final = 1 << 28


class Sampler:
    """Sampling parameters and seen tokens of the rows of a batch."""

    def __init__(
        self,
        samplings: Sequence[Sampling],
        *,
        seeds: Sequence[int],
        prompts: Sequence[Sequence[int]],
        device: str,
    ) -> None:
        """One entry in each sequence for each row; prompts hold every token of the prompt."""
        import numpy as np
        import torch

        def column(values: Sequence[float]) -> "Tensor":
            return torch.tensor(values, dtype=torch.float64, device=device)

        self._seeds = np.array([seed % 2**64 for seed in seeds], dtype=np.uint64)
        self._temperature = column([s.temperature or 1.0 for s in samplings])
        self._greedy = torch.tensor([s.temperature == 0 for s in samplings], device=device)
        self._top_p = column([s.top_p for s in samplings])
        self._top_k = torch.tensor([s.top_k for s in samplings], device=device)
        self._min_p = column([s.min_p for s in samplings])
        self._penalty = column([s.repetition_penalty for s in samplings]).float()
        self._penalised = any(s.repetition_penalty != 1 for s in samplings)
        self._seen = _rectangle(prompts, device) if self._penalised else None

    def keep(self, sources: Sequence[int]) -> None:
        """Leave only the rows in ``sources``, in that order."""
        index = self._top_k.new_tensor(sources)
        for name in ("temperature", "greedy", "top_p", "top_k", "min_p", "penalty"):
            setattr(self, f"_{name}", getattr(self, f"_{name}")[index])
        self._seeds = self._seeds[list(sources)]
        if self._seen is not None:
            self._seen = self._seen[index]

    def draw(self, logits: "Tensor", step: int) -> "Tensor":
        """The ``step``-th token of each row, from its logits of shape (rows, vocabulary).

        Raises:
            EngineError: if a row's logits are not numbers; nothing is drawn then.
        """
        import torch

        chance = torch.from_numpy(uniform(self._seeds, step)).to(logits.device)
        rows = torch.arange(len(logits), device=logits.device)
        tokens = torch.empty_like(rows)
        for length in (*_SHORT, logits.shape[1]):
            drawn, known = self._draw_from(logits, rows, chance, length)
            tokens[rows[known]] = drawn[known]
            rows = rows[~known]
            if not len(rows):
                break
        if self._seen is not None:
            self._seen = torch.cat([self._seen, tokens[:, None]], 1)
        return tokens

    def distribution(self, logits: "Tensor") -> "Tensor":
        """Every token's probability to be drawn, shape (rows, vocabulary)."""
        import torch

        everything = torch.arange(len(logits), device=logits.device)
        values, ids, total = self._short_list(logits, everything, logits.shape[1])
        weights, kept = self._kept(everything, values, total)
        kept[:, 1:] &= ~self._greedy[:, None]
        weights = weights * kept
        out = torch.zeros(logits.shape, dtype=torch.float64, device=logits.device)
        return out.scatter_(1, ids, weights / weights.sum(1, keepdim=True))

    def _draw_from(
        self, logits: "Tensor", rows: "Tensor", chance: "Tensor", length: int
    ) -> "tuple[Tensor, Tensor]":
        """Tokens of ``rows`` from short lists, and for which rows the list was long enough."""
        values, ids, total = self._short_list(logits, rows, length)
        if (broken := values[:, 0].isnan()).any():
            found = rows[broken].tolist()
            raise EngineError(
                f"rows {found} of the batch have logits that are not numbers; the weights are "
                f"damaged or overflow in this dtype: try engine.dtype float32 or bfloat16"
            )
        weights, kept = self._kept(rows, values, total)
        whole = values.shape[1] == logits.shape[1]
        complete = ~kept[:, -1] if not whole else kept[:, 0]
        unlimited = (self._top_p >= 1) & (self._top_k == 0) & (self._min_p == 0)
        mass = (weights * kept).cumsum(1)
        target = chance[rows] * self._either(complete, mass[:, -1], total)
        known = complete | (unlimited[rows] & (target < mass[:, -1])) | self._greedy[rows]
        place = (mass <= target[:, None]).sum(1).clamp_(max=kept.sum(1) - 1)
        place.masked_fill_(self._greedy[rows], 0)
        return ids.gather(1, place[:, None])[:, 0], known

    @staticmethod
    def _either(condition: "Tensor", one: "Tensor", other: "Tensor") -> "Tensor":
        return one.where(condition, other)

    def _kept(
        self, rows: "Tensor", values: "Tensor", total: "Tensor"
    ) -> "tuple[Tensor, Tensor]":
        """Weights relative to the likeliest token's, and which tokens the rules keep."""
        values = values.double()
        scaled = (values - values[:, :1]) / self._temperature[rows, None]
        weights = scaled.exp()
        top_k = self._top_k[rows]
        last = (top_k.clamp(1, values.shape[1]) - 1)[:, None]
        among = (values >= values.gather(1, last)) | (top_k == 0)[:, None]
        total = self._either(top_k == 0, total, (weights * among).sum(1))
        before = weights.cumsum(1) - weights
        top_p = self._top_p[rows, None]
        nucleus = (before < top_p * total[:, None]) | (top_p >= 1)
        kept = among & nucleus & (weights >= self._min_p[rows, None])
        kept[:, 0] = True
        return weights, kept

    def _short_list(
        self, logits: "Tensor", rows: "Tensor", length: int
    ) -> "tuple[Tensor, Tensor, Tensor]":
        """The likeliest tokens of ``rows``: values and ids in falling order, and total weight."""
        import torch

        size = _CHUNK_BYTES.get(logits.device.type, _DEFAULT_CHUNK_BYTES)
        step = max(1, size // (4 * logits.shape[1]))
        parts = [self._short_chunk(logits, part, length) for part in rows.split(step)]
        values, ids, total = (torch.cat(column) for column in zip(*parts, strict=True))
        return values, ids, total

    def _short_chunk(
        self, logits: "Tensor", rows: "Tensor", length: int
    ) -> "tuple[Tensor, Tensor, Tensor]":
        import torch

        scores = logits[rows].float()
        if self._seen is not None:
            seen, penalty = self._seen[rows], self._penalty[rows, None]
            found = scores.gather(1, seen)
            scores.scatter_(1, seen, torch.where(found > 0, found / penalty, found * penalty))
        values, ids = largest(scores, length)
        scores.sub_(values[:, :1]).div_(self._temperature[rows, None].float())
        # Exponentials that are subnormal cost a hundred times as much, and add nothing.
        total = scores.clamp_(min=_LEAST).exp_().sum(1)
        return values, ids, total.double()


def largest(scores: "Tensor", length: int) -> "tuple[Tensor, Tensor]":
    """The ``length`` largest of each row in falling order, with their places.

    Wide rows are cut into blocks: the largest values lie in the blocks with the largest peaks.
    """
    import torch

    rows, width = scores.shape
    blocks, rest = divmod(width, _BLOCK)
    if length >= width:
        values, ids = scores.sort(dim=1, descending=True)
        return values, ids
    if length * 4 > blocks or rest:
        values, ids = scores.topk(length)
        return values, ids
    cut = scores.view(rows, blocks, _BLOCK)
    chosen = cut.amax(2).topk(length, sorted=False).indices
    inside = cut.gather(1, chosen[:, :, None].expand(-1, -1, _BLOCK)).view(rows, -1)
    values, places = inside.topk(length)
    ids = chosen.gather(1, torch.div(places, _BLOCK, rounding_mode="floor"))
    return values, ids * _BLOCK + places % _BLOCK


def uniform(seeds: "NDArray[np.uint64]", step: int) -> "NDArray[np.float64]":
    """A number in [0, 1) for each seed at one step: splitmix64's finaliser over both, twice."""
    import numpy as np

    stride = np.uint64(step * 0x9E3779B97F4A7C15 % 2**64)
    mixed = _mix(_mix(seeds) + stride)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(value: "NDArray[np.uint64]") -> "NDArray[np.uint64]":
    import numpy as np

    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _rectangle(prompts: Sequence[Sequence[int]], device: str) -> "Tensor":
    """Token ids of each row once, filled up with one of the row's own."""
    import torch

    once = [list(dict.fromkeys(prompt)) for prompt in prompts]
    width = max(map(len, once))
    return torch.tensor([ids + ids[-1:] * (width - len(ids)) for ids in once], device=device)
