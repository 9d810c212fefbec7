"""The decode loop: a batch of rows that share a prefix, one token a step, until every row ended.

A row that ended leaves: the last rows move into the gaps, and the batch gets shorter. Which token
is drawn is the sampler's business, when a text ends is the text rule's; here tensors are kept in
step with rows.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pipeline.engine.local.cache import Prefix, RowCache
from pipeline.engine.local.loading import Loaded
from pipeline.engine.local.sampling import Sampler
from pipeline.engine.stops import Ending, first_stop, settle, stopped
from pipeline.types import Sampling

if TYPE_CHECKING:
    from torch import Tensor

PREFILL_TOKENS: Final = 2048
"""Tokens in one forward pass of prompts, so that memory does not grow with their length."""
_PADDING: Final = 0.2
"""Share of such a pass that may be padding: a pass costs as much as some hundred tokens."""
_SHRINK: Final = 0.9
"""A batch gets shorter when this share of it is left: each length of batch is a shape that kernels
are made for, once in a process."""


@dataclass(slots=True)
class Row:
    """A row on its way."""

    place: int
    """Where its result goes."""
    ids: tuple[int, ...]
    """Its own prompt tokens, after the shared prefix."""
    sampling: Sampling
    """How it is drawn."""
    seed: int
    """Its own seed."""
    made: list[int] = field(default_factory=list)
    """Tokens drawn so far, without an end token."""
    ending: Ending | None = None
    """Set when it has ended."""


def extend(loaded: Loaded, prefix: Prefix, ids: Sequence[int]) -> Prefix:
    """Keys and values of tokens that rows will share, after those of ``prefix``."""
    import torch

    if not ids:
        return prefix
    pads = torch.zeros(1, dtype=torch.long, device=loaded.device)
    cache = RowCache(prefix, pads, capacity=len(ids))
    _prefill(loaded, torch.tensor([list(ids)], device=loaded.device), [0], cache)
    return cache.as_prefix()


def start(
    loaded: Loaded, prefix: Prefix, rows: Sequence[Sequence[int]], *, room: int
) -> tuple[RowCache, "Tensor"]:
    """Compute the rows' own tokens; their cache, with ``room`` slots left, and the last logits.

    The rows come in order of falling length.
    """
    import torch

    width = len(rows[0])
    pads = [width - len(ids) for ids in rows]
    filled = [[0] * pad + list(ids) for pad, ids in zip(pads, rows, strict=True)]
    cache = RowCache(prefix, torch.tensor(pads, device=loaded.device), capacity=width + room)
    return cache, _prefill(loaded, torch.tensor(filled, device=loaded.device), pads, cache)


def _prefill(loaded: Loaded, ids: "Tensor", pads: Sequence[int], cache: RowCache) -> "Tensor":
    """Read prompts from left to right, and at each place only the rows that have begun there."""
    logits, begin = None, 0
    while begin < ids.shape[1]:
        end, rows = _stretch(pads, begin, ids.shape[1])
        last = end == ids.shape[1]
        with cache.first(rows):
            logits = loaded.forward(ids[:rows, begin:end], cache, keep=int(last))
        begin = end
    assert logits is not None, "a prompt has at least one token"
    return logits[:, -1]


def _stretch(pads: Sequence[int], begin: int, width: int) -> tuple[int, int]:
    """Where the next forward pass of prompts ends, and how many rows take part in it.

    It grows while it stays within :data:`PREFILL_TOKENS` and little of it is padding.
    """
    end, rows = begin + 1, bisect_right(pads, begin)
    padding = 0
    while end < width:
        more = bisect_right(pads, end)
        padding_then = padding + (more - rows) * (end - begin)
        tokens = more * (end + 1 - begin)
        if tokens > PREFILL_TOKENS or padding_then > _PADDING * tokens:
            break
        end, rows, padding = end + 1, more, padding_then
    return end, rows


def decode(loaded: Loaded, prefix: Prefix, shared: Sequence[int], rows: Sequence[Row]) -> None:
    """Draw every row to its end; ``shared`` are the prefix's ids, which count as seen."""
    import torch

    live = sorted(rows, key=lambda row: (-len(row.ids), row.place))
    caps = [row.sampling.max_new_tokens for row in live]
    sampler = Sampler(
        [row.sampling for row in live],
        seeds=[row.seed for row in live],
        prompts=[[*shared, *row.ids] for row in live],
        device=loaded.device,
    )
    cache, logits = start(loaded, prefix, [row.ids for row in live], room=max(caps))
    for step in range(max(caps)):
        drawn = sampler.draw(logits, step)
        _advance(loaded, live, drawn.tolist())
        keep = _survivors(live)
        if not keep:
            return
        if len(keep) <= _SHRINK * len(live):
            live = [live[i] for i in keep]
            cache.keep(keep)
            sampler.keep(keep)
            drawn = drawn[torch.tensor(keep, device=drawn.device)]
        logits = loaded.forward(drawn[:, None], cache)[:, -1]


def _survivors(rows: Sequence[Row]) -> list[int]:
    """Rows that go on, with the last ones moved into the gaps of those that ended."""
    count = sum(row.ending is None for row in rows)
    movers = [i for i in range(count, len(rows)) if rows[i].ending is None]
    return [i if rows[i].ending is None else movers.pop() for i in range(count)]


def _advance(loaded: Loaded, rows: Sequence[Row], tokens: Sequence[int]) -> None:
    """Give each row its token, and end those that are through."""
    for row, token in zip(rows, tokens, strict=True):
        if row.ending is not None:
            continue
        ended = token in loaded.eos
        if not ended:
            row.made.append(token)
        full = len(row.made) >= row.sampling.max_new_tokens
        if ended or full or _may_stop(loaded, row):
            row.ending = _end(loaded, row, eos=ended)


def _may_stop(loaded: Loaded, row: Row) -> bool:
    """Whether the newest tokens hold a stop string.

    A character takes at most four tokens, one for each byte; a few more are decoded because a
    decoder may treat the beginning of a text in its own way.
    """
    stops = row.sampling.stop
    if not stops:
        return False
    span = 4 * max(map(len, stops)) + 8
    text = _text(loaded, row.made[-span:])
    if text.startswith("\ufffd"):  # the newest tokens may begin within a character of several
        text = _text(loaded, row.made)
    return first_stop(text, stops) is not None


def _end(loaded: Loaded, row: Row, *, eos: bool) -> Ending | None:
    sampling = row.sampling
    if not eos and len(row.made) < sampling.max_new_tokens:
        text = _text(loaded, row.made)
        if (hit := first_stop(text, sampling.stop)) is None:
            return None
        return stopped(len(row.made), text, hit)
    return settle(
        lambda k: _text(loaded, row.made[:k]),
        len(row.made),
        stops=sampling.stop,
        cap=sampling.max_new_tokens,
        eos=eos,
    )


def _text(loaded: Loaded, ids: Sequence[int]) -> str:
    text: str = loaded.tokenizer.decode(list(ids), skip_special_tokens=False)
    return text
