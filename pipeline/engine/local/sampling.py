"""Draws one token a row from logits: exactly, row by row, and without sorting the vocabulary.

The order is repetition penalty (CTRL, over prompt and generated tokens), temperature, top-k, top-p,
min-p, as in transformers' processors. The idea: a short list of the likeliest tokens in falling
order almost always holds everything that can be drawn, and whether it does can be proved, because
each rule keeps a beginning of that order. Where the proof fails, the list grows, in the end to the
whole vocabulary. The random number of a row is a hash of its seed and step, nothing else.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Final

from pipeline.engine.local.shortlist import (
    Penalty,
    ShortList,
    from_few_blocks,
    from_scores,
    total_weight,
)
from pipeline.errors import EngineError
from pipeline.types import Sampling

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

_LENGTHS: Final = (256, 4096)
"""Lengths of the short list that are tried after a few blocks, before the whole vocabulary."""
_CHUNK_BYTES: Final = {"cpu": 4 << 20}
"""Float32 logits worked on at once: what a core's cache holds, where there is one."""
_DEFAULT_CHUNK_BYTES: Final = 1 << 28


@dataclass(frozen=True, slots=True)
class _Knobs:
    """Sampling parameters of the rows of a batch, one entry a row."""

    temperature: "Tensor"
    greedy: "Tensor"
    top_p: "Tensor"
    top_k: "Tensor"
    min_p: "Tensor"
    penalty: "Tensor"
    unlimited: "Tensor"

    @classmethod
    def of(cls, samplings: Sequence[Sampling], device: str) -> "_Knobs":
        import torch

        def column(values: Sequence[float], dtype: "torch.dtype" = torch.float64) -> "Tensor":
            return torch.tensor(values, dtype=dtype, device=device)

        return cls(
            temperature=column([s.temperature or 1.0 for s in samplings]),
            greedy=column([s.temperature == 0 for s in samplings], torch.bool),
            top_p=column([s.top_p for s in samplings]),
            top_k=column([s.top_k for s in samplings], torch.long),
            min_p=column([s.min_p for s in samplings]),
            penalty=column([s.repetition_penalty for s in samplings], torch.float32),
            unlimited=column([not _limits(s) for s in samplings], torch.bool),
        )

    def take(self, index: "Tensor") -> "_Knobs":
        """The parameters of some rows."""
        return _Knobs(*(getattr(self, f.name)[index] for f in fields(self)))


def _limits(sampling: Sampling) -> bool:
    return sampling.top_p < 1 or sampling.top_k > 0 or sampling.min_p > 0


class Sampler:
    """Draws for the rows of a batch, and remembers which tokens each has seen."""

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

        self._seeds = np.array([seed % 2**64 for seed in seeds], dtype=np.uint64)
        self._knobs = _Knobs.of(samplings, device)
        penalised = any(s.repetition_penalty != 1 for s in samplings)
        self._seen = _rectangle(prompts, device) if penalised else None

    def keep(self, sources: Sequence[int]) -> None:
        """Leave only the rows in ``sources``, in that order."""
        index = self._knobs.top_k.new_tensor(sources)
        self._knobs = self._knobs.take(index)
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
        for short in self._short_lists(logits):
            drawn, known = self._draw_from(short(rows), rows, chance)
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
        short = self._from_scores(logits, everything, logits.shape[1])
        weights, kept = self._kept(everything, short.values, short.low)
        kept[:, 1:] &= ~self._knobs.greedy[:, None]
        weights = weights * kept
        out = torch.zeros(logits.shape, dtype=torch.float64, device=logits.device)
        return out.scatter_(1, short.ids, weights / weights.sum(1, keepdim=True))

    def _short_lists(self, logits: "Tensor") -> "Iterator[Callable[[Tensor], ShortList]]":
        """Ways to make the short lists of some rows, each surer and dearer than the one before."""
        few = from_few_blocks(logits, self._heat, self._penalty())
        if few is not None:
            yield lambda _: few
            yield lambda rows: few.take(rows, self._totals(logits, rows, few.values[rows, :1]))
        for length in (*_LENGTHS, logits.shape[1]):
            yield partial(self._from_scores, logits, length=length)

    def _draw_from(
        self, short: ShortList, rows: "Tensor", chance: "Tensor"
    ) -> "tuple[Tensor, Tensor]":
        """Tokens of ``rows`` from short lists, and for which rows the list was long enough."""
        if not bool((sound := short.values[:, 0].isfinite()).all()):
            found = rows[~sound].tolist()
            raise EngineError(
                f"rows {found} of the batch have logits that are not numbers; the weights are "
                f"damaged or overflow in this dtype: try engine.dtype float32 or bfloat16"
            )
        place, known = self._places(rows, short, short.low, chance)
        if short.high is not short.low:
            # A larger total moves a place to the right only, so two that agree are the true one.
            place_high, known_high = self._places(rows, short, short.high, chance)
            known = known & known_high & (place == place_high)
        return short.ids.gather(1, place[:, None])[:, 0], known

    def _places(
        self, rows: "Tensor", short: ShortList, total: "Tensor", chance: "Tensor"
    ) -> "tuple[Tensor, Tensor]":
        """Where in the short list each row's token is, and whether it must be there."""
        import torch

        weights, kept = self._kept(rows, short.values, total)
        kept &= torch.arange(kept.shape[1], device=rows.device) < short.certain[:, None]
        count = kept.sum(1)
        mass = (weights * kept).cumsum(1)
        # Where top-k reaches beyond the list, what it would share its mass with is not known.
        ended = (count < short.certain) & (self._knobs.top_k[rows] <= short.certain)
        complete = ended | short.whole
        target = chance[rows] * torch.where(complete, mass[:, -1], total)
        greedy = self._knobs.greedy[rows]
        known = (
            complete
            | (self._knobs.unlimited[rows] & (target < mass[:, -1]))
            | (greedy & (short.certain > 0))
        )
        place = (mass <= target[:, None]).sum(1).clamp_(max=count - 1).clamp_(min=0)
        return place.masked_fill_(greedy, 0), known

    def _kept(self, rows: "Tensor", values: "Tensor", total: "Tensor") -> "tuple[Tensor, Tensor]":
        """Weights relative to the likeliest token's, and which tokens the rules keep."""
        import torch

        values = values.double()
        weights = ((values - values[:, :1]) / self._knobs.temperature[rows, None]).exp()
        top_k = self._knobs.top_k[rows]
        last = (top_k.clamp(1, values.shape[1]) - 1)[:, None]
        among = (values >= values.gather(1, last)) | (top_k == 0)[:, None]
        total = torch.where(top_k == 0, total, (weights * among).sum(1))
        before = weights.cumsum(1) - weights
        top_p = self._knobs.top_p[rows, None]
        nucleus = (before < top_p * total[:, None]) | (top_p >= 1)
        kept = among & nucleus & (weights >= self._knobs.min_p[rows, None])
        kept[:, 0] = True
        return weights, kept

    def _from_scores(self, logits: "Tensor", rows: "Tensor", length: int) -> ShortList:
        import torch

        parts = [
            from_scores(self._scores(logits, part), self._heat[part], length)
            for part in self._portions(logits, rows)
        ]
        total = torch.cat([part.low for part in parts])
        return ShortList(
            values=torch.cat([part.values for part in parts]),
            ids=torch.cat([part.ids for part in parts]),
            certain=torch.cat([part.certain for part in parts]),
            low=total,
            high=total,
            whole=length >= logits.shape[1],
        )

    def _totals(self, logits: "Tensor", rows: "Tensor", highest: "Tensor") -> "Tensor":
        """Total weights of all tokens of ``rows``, relative to the likeliest one's."""
        import torch

        portions = self._portions(logits, rows)
        highs = torch.split(highest, len(portions[0]))
        return torch.cat(
            [
                total_weight(self._scores(logits, part), high, self._heat[part])
                for part, high in zip(portions, highs, strict=True)
            ]
        )

    def _portions(self, logits: "Tensor", rows: "Tensor") -> "tuple[Tensor, ...]":
        """Rows in portions whose float32 logits are worked on at once."""
        import torch

        size = _CHUNK_BYTES.get(logits.device.type, _DEFAULT_CHUNK_BYTES)
        return torch.split(rows, max(1, size // (4 * logits.shape[1])))

    @property
    def _heat(self) -> "Tensor":
        """Temperatures, shape (rows, 1), float32."""
        return self._knobs.temperature[:, None].float()

    def _scores(self, logits: "Tensor", rows: "Tensor") -> "Tensor":
        """Float32 logits of ``rows`` after the repetition penalty; a copy."""
        scores = logits[rows].float()
        penalty = self._penalty()
        if penalty is not None:
            penalty = penalty.take(rows)
            scores.scatter_(1, penalty.seen, penalty.of(scores.gather(1, penalty.seen)))
        return scores

    def _penalty(self) -> Penalty | None:
        return None if self._seen is None else Penalty(self._seen, self._knobs.penalty[:, None])


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
