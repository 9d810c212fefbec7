"""Log-probabilities of continuations, with logits computed only where a continuation needs them.

Continuations of a single token share one forward pass of their prompt; longer ones are rows of
their own. Rows are taken in groups of equal prefix, similar length, and bounded memory.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pipeline.engine.local.cache import Prefix, RowCache
from pipeline.engine.local.loading import Loaded
from pipeline.errors import EngineError
from pipeline.types import Score

if TYPE_CHECKING:
    from torch import Tensor

TOKENS: Final = 2048
"""Tokens in one forward pass, at most."""
_TOKENS_A_ROW: Final = 32
"""Tokens in one forward pass for each row of a batch, so that a smaller batch takes less memory."""


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


def groups(rows: Sequence[Item], *, batch_size: int) -> Iterator[list[Item]]:
    """Rows of similar length, in groups that fit into memory.

    A group has as many rows of logits as a batch has while it is decoded, but at least one row.
    """
    most = min(TOKENS, _TOKENS_A_ROW * batch_size)
    group: list[Item] = []
    for row in sorted(rows, key=lambda item: (item.kept, len(item.inputs))):
        longest = max([row, *group], key=lambda item: len(item.inputs))
        tokens = (len(group) + 1) * len(longest.inputs)
        logits = (len(group) + 1) * row.kept
        if group and (tokens > most or logits > batch_size):
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def score_group(
    loaded: Loaded, prefix: Prefix, group: Sequence[Item], *, batch_size: int
) -> list[tuple[int, int, Score]]:
    """Place, column and score of every continuation of a group.

    A group of one row may be longer than what is computed at once; it is read in parts.
    """
    import torch

    width = max(len(item.inputs) for item in group)
    first = width - max(item.kept for item in group)
    filled = [[0] * (width - len(item.inputs)) + list(item.inputs) for item in group]
    pads = torch.tensor([width - len(item.inputs) for item in group], device=loaded.device)
    cache = RowCache(prefix, pads, capacity=width)
    ids = torch.tensor(filled, device=loaded.device)
    found: list[list[list[float]]] = [[] for _ in group]
    for begin, end in _parts(first, width, rows=len(group), batch_size=batch_size):
        keep = max(0, end - max(begin, first))
        logits = loaded.forward(ids[:, begin:end], cache, keep=keep)
        for item, row, scores in zip(group, logits, found, strict=True):
            done = max(0, end - keep - (width - item.kept))
            here = max(0, min(keep, end - (width - item.kept)))
            if here:
                scores += _scores(item, row[keep - here :], done)
    return [
        (item.place, column, Score(math.fsum(s[i] for s in scores), item.kept))
        for item, scores in zip(group, found, strict=True)
        for i, column in enumerate(item.columns)
    ]


def _parts(first: int, width: int, *, rows: int, batch_size: int) -> Iterator[tuple[int, int]]:
    """Where forward passes begin and end, with logits from ``first`` on: mostly one for all."""
    step = max(1, TOKENS // rows)
    if width <= step and (width - first) * rows <= batch_size:
        yield 0, width
        return
    wanted = max(1, min(step, batch_size // rows))
    begin = 0
    while begin < width:
        end = min(begin + step, first) if begin < first else min(begin + wanted, width)
        yield begin, end
        begin = end


def _scores(item: Item, logits: "Tensor", done: int) -> list[list[float]]:
    """Log-probabilities of targets, a list for each place, an entry for each continuation.

    Args:
        item: The row.
        logits: Of some of its last places, shape (places, vocabulary).
        done: Target of the first of these places.
    """
    import torch

    # A row of the vocabulary for each thread stays in its core's cache; all at once do not.
    together = torch.get_num_threads() if logits.device.type == "cpu" else len(logits)
    parts = torch.split(logits, together)
    totals = torch.cat([part.float().logsumexp(1) for part in parts])
    if not bool(totals.isfinite().all()):
        raise EngineError(
            f"row {item.place}: logits are not numbers; the weights are damaged or overflow in "
            f"this dtype: try engine.dtype float32 or bfloat16"
        )
    targets = [ids[done : done + len(logits)] for ids in item.targets]
    place = torch.tensor(targets, device=logits.device).T
    return (logits.gather(1, place).float() - totals[:, None]).tolist()
