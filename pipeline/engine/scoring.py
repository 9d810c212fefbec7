"""Log-probabilities of continuations, with logits computed only where a continuation needs them.

Continuations of a single token share one forward pass of their prompt; longer ones are rows of
their own. Rows are taken in groups of equal prefix, similar length, and bounded memory.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pipeline.engine.cache import Prefix, RowCache
from pipeline.engine.loading import Loaded
from pipeline.errors import EngineError
from pipeline.types import Score

if TYPE_CHECKING:
    from torch import Tensor

LOGIT_BYTES: Final = 256 << 20
"""Memory that the logits of one forward pass may take."""
ROW_TOKENS: Final = 2048
"""Tokens in one forward pass."""


@dataclass(frozen=True, slots=True)
class Item:
    """One prompt with the continuations that are scored together after it."""

    place: int
    """Index of its request."""
    columns: tuple[int, ...]
    """Indices of its continuations within the request."""
    prompt: tuple[int, ...]
    """Tokens between the shared prefix and the continuation; at least one."""
    targets: tuple[tuple[int, ...], ...]
    """Tokens of each continuation: several of one token, or one of any length."""

    @property
    def inputs(self) -> tuple[int, ...]:
        """What the model reads: all but the last target."""
        return self.prompt + self.targets[0][:-1]

    @property
    def kept(self) -> int:
        """How many last positions need logits."""
        return len(self.targets[0])


def items(
    place: int, prompt: tuple[int, ...], continuations: Sequence[tuple[int, ...]]
) -> Iterator[Item]:
    """The rows that score one request."""
    single = tuple(i for i, ids in enumerate(continuations) if len(ids) == 1)
    if single:
        yield Item(place, single, prompt, tuple(continuations[i] for i in single))
    for i, ids in enumerate(continuations):
        if len(ids) > 1:
            yield Item(place, (i,), prompt, (ids,))


def groups(rows: Sequence[Item], *, vocabulary: int) -> Iterator[list[Item]]:
    """Rows of similar length, in groups that fit into memory."""
    group: list[Item] = []
    for row in sorted(rows, key=lambda item: (item.kept, len(item.inputs))):
        longest = max([row, *group], key=lambda item: len(item.inputs))
        tokens = (len(group) + 1) * len(longest.inputs)
        logits = (len(group) + 1) * row.kept * vocabulary * 4
        if group and (tokens > ROW_TOKENS or logits > LOGIT_BYTES):
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def score_group(
    loaded: Loaded, prefix: Prefix, group: Sequence[Item]
) -> list[tuple[int, int, Score]]:
    """Place, column and score of every continuation of a group."""
    import torch

    width = max(len(item.inputs) for item in group)
    filled = [[0] * (width - len(item.inputs)) + list(item.inputs) for item in group]
    pads = torch.tensor([width - len(item.inputs) for item in group], device=loaded.device)
    cache = RowCache(prefix, pads, capacity=width)
    ids = torch.tensor(filled, device=loaded.device)
    logits = loaded.forward(ids, cache, keep=max(item.kept for item in group))
    return [
        (item.place, column, score)
        for item, row in zip(group, logits, strict=True)
        for column, score in zip(item.columns, _scores(item, row[-item.kept :]), strict=True)
    ]


def _scores(item: Item, logits: "Tensor") -> list[Score]:
    """Scores of a row's targets from its logits, shape (kept, vocabulary)."""
    import torch

    # Rows of the vocabulary one by one stay in a core's cache; all at once do not.
    totals = torch.stack([row.float().logsumexp(0) for row in logits])
    if not bool(totals.isfinite().all()):
        raise EngineError(
            f"row {item.place}: logits are not numbers; the weights are damaged or overflow in "
            f"this dtype: try engine.dtype float32 or bfloat16"
        )
    if item.kept == 1:
        target = torch.tensor([ids[0] for ids in item.targets], device=logits.device)
        found = (logits[0, target].float() - totals[0]).tolist()
        return [Score(value, 1) for value in found]
    target = torch.tensor(item.targets[0], device=logits.device)
    each = (logits.gather(1, target[:, None])[:, 0].float() - totals).tolist()
    return [Score(math.fsum(each), item.kept)]
