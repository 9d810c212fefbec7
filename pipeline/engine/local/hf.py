"""A base model in this process, on transformers: the two verbs over batches that share prefixes.

Requests are sorted into batches of equal prefix and similar length; the prefix is computed once and
kept for the next batch. What happens inside a batch is in ``decode.py`` and ``scoring.py``.

Tokenisation: the ids of ``prefix`` (with the model's own BOS, if it was trained with one), of
``suffix`` and of a continuation are found separately, without other special tokens, and joined, so
that a row has the same tokens whatever it is batched with.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from os.path import commonprefix
from typing import TYPE_CHECKING, Any, Final

from pipeline.engine.base import EngineSpec
from pipeline.engine.checks import check_requests, check_scores
from pipeline.engine.ends import pieces, token_ends
from pipeline.engine.local.cache import EMPTY, Prefix
from pipeline.engine.local.decode import Row, decode, extend
from pipeline.engine.local.loading import Loaded, load
from pipeline.engine.local.models import cache_folder, prepare
from pipeline.engine.local.scoring import Item, groups, items, score_group
from pipeline.engine.local.sizing import measured
from pipeline.engine.local.threads import keep_memory
from pipeline.errors import EngineError
from pipeline.types import Completion, EngineInfo, GenRequest, Score, ScoreRequest

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_PREFIXES: Final = 8
"""Prefixes kept: those of instructions, responses and two rubrics, with room to rotate."""
_TEXTS: Final = 4096
_WORTH_SHARING: Final = 8
"""Rows whose common beginning is computed once for all."""


class HFEngine:
    """A transformers model as an :class:`~pipeline.engine.base.Engine`."""

    def __init__(self, loaded: Loaded, *, name: str, digest: str, batch_size: int = 96) -> None:
        """An engine over a loaded model that takes ``batch_size`` rows in one forward pass."""
        self._loaded: Loaded | None = loaded
        self._batch_size = batch_size
        self._prefixes: OrderedDict[tuple[int, ...], Prefix] = OrderedDict()
        self._encode = _encoder(loaded.tokenizer)
        self._decode = partial(loaded.tokenizer.decode, skip_special_tokens=False)
        self._piece = pieces(self._decode, next(iter(self._encode("a")), 0))
        self._info = EngineInfo(
            kind="hf",
            model=name,
            digest=digest,
            device=loaded.device,
            dtype=loaded.dtype,
            tokenizer=name,
            context=loaded.context,
            special_tokens=_special_tokens(loaded),
            bos=None if loaded.bos is None else loaded.tokenizer.id_to_token(loaded.bos),
            batch_size=self._batch_size,
        )

    @classmethod
    def open(cls, spec: EngineSpec, *, batch_size: int | None = None) -> "HFEngine":
        """Find, convert if need be, load and check the model that ``spec`` names.

        Without a batch size, the one that was measured for this model and device is taken.
        """
        keep_memory()
        checkpoint = prepare(spec)
        loaded = load(checkpoint, spec)
        size = batch_size or spec.batch_size
        if size is None:
            size = measured(loaded, cache_folder(spec), digest=checkpoint.digest).batch_size
        return cls(loaded, name=checkpoint.name, digest=checkpoint.digest, batch_size=size)

    @property
    def info(self) -> EngineInfo:
        """What the engine is."""
        return self._info

    def generate(self, requests: Sequence[GenRequest]) -> list[Completion]:
        """One completion for each request, in order; ``token_ids`` hold no end token.

        Raises:
            EngineError: for parameters or lengths that cannot be honoured, before anything is
                computed, and for logits that are not numbers.
        """
        import torch

        loaded = self._open()
        check_requests(requests, count=self._count, context=self._info.context - 1)
        rows = [
            Row(place, self._encode(request.suffix), request.sampling, request.seed)
            for place, request in enumerate(requests)
        ]
        with torch.inference_mode():
            for shared, batch in self._batches(rows, [request.prefix for request in requests]):
                common = _common([row.ids for row in batch])
                prefix = extend(loaded, self._prefix(shared), common)
                for row in batch:
                    row.ids = row.ids[len(common) :]
                decode(loaded, prefix, shared + common, batch)
        return [self._completion(row) for row in rows]

    def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[Score, ...]]:
        """For each request, the log-probability of each continuation, in order."""
        import torch

        loaded = self._open()
        check_scores(requests, count=self._count, context=self._info.context - 1)
        found: list[dict[int, Score]] = [{} for _ in requests]
        with torch.inference_mode():
            for shared, rows in self._items(requests):
                common = _common([row.prompt for row in rows])
                prefix = extend(loaded, self._prefix(shared), common)
                rows = [replace(row, prompt=row.prompt[len(common) :]) for row in rows]
                for group in groups(rows, batch_size=self._batch_size):
                    for place, column, score in score_group(
                        loaded, prefix, group, batch_size=self._batch_size
                    ):
                        found[place][column] = score
        return [tuple(scores[i] for i in sorted(scores)) for scores in found]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, special tokens not added."""
        return [len(self._encode(text)) for text in texts]

    def resize(self, batch_size: int) -> None:
        """From now on, compute at most ``batch_size`` rows in one forward pass."""
        self._batch_size = batch_size
        self._info = replace(self._info, batch_size=batch_size)

    def close(self) -> None:
        """Release the model and its memory."""
        self._loaded = None
        self._prefixes.clear()
        if self._info.device.startswith("cuda"):
            import torch

            torch.cuda.empty_cache()

    def _completion(self, row: Row) -> Completion:
        ending = row.ending
        assert ending is not None, "decoding ends every row"
        ids, whole = tuple(row.made[: ending.tokens]), ending.text + ending.trimmed
        return Completion(
            ending.text, ids, ending.finish_reason, ending.stop, ending.trimmed,
            token_ends(self._decode, self._piece, ids, whole),
        )  # fmt: skip

    def _open(self) -> Loaded:
        if self._loaded is None:
            raise EngineError("the engine is closed; open it again")
        return self._loaded

    def _count(self, text: str) -> int:
        return len(self._encode(text))

    def _shared(self, prefix: str) -> tuple[int, ...]:
        bos = self._open().bos
        return (() if bos is None else (bos,)) + self._encode(prefix)

    def _prefix(self, shared: tuple[int, ...]) -> Prefix:
        if shared not in self._prefixes:
            self._prefixes[shared] = extend(self._open(), EMPTY, shared)
            if len(self._prefixes) > _PREFIXES:
                self._prefixes.popitem(last=False)
        self._prefixes.move_to_end(shared)
        return self._prefixes[shared]

    def _batches(
        self, rows: Sequence[Row], prefixes: Sequence[str]
    ) -> Iterator[tuple[tuple[int, ...], list[Row]]]:
        """Rows of equal prefix, sorted by length and cut into batches.

        A row without a suffix gives up the last token of its prefix: something must be read to
        get logits.
        """
        by_prefix: dict[tuple[int, ...], list[Row]] = {}
        for row, text in zip(rows, prefixes, strict=True):
            shared = self._shared(text)
            if not row.ids:
                shared, row.ids = shared[:-1], shared[-1:]
            by_prefix.setdefault(shared, []).append(row)
        for shared, group in by_prefix.items():
            group.sort(key=lambda row: (len(row.ids), row.place))
            for first in range(0, len(group), self._batch_size):
                yield shared, group[first : first + self._batch_size]

    def _items(
        self, requests: Sequence[ScoreRequest]
    ) -> Iterable[tuple[tuple[int, ...], list[Item]]]:
        by_prefix: dict[tuple[int, ...], list[Item]] = {}
        for place, request in enumerate(requests):
            shared, prompt = self._shared(request.prefix), self._encode(request.suffix)
            if not prompt:
                shared, prompt = shared[:-1], shared[-1:]
            continuations = [self._encode(text) for text in request.continuations]
            by_prefix.setdefault(shared, []).extend(items(place, prompt, continuations))
        return by_prefix.items()


def _encoder(tokenizer: "Tokenizer") -> Callable[[str], tuple[int, ...]]:
    """Token ids of a text, remembered; it holds the tokenizer and not the model."""

    @lru_cache(maxsize=_TEXTS)
    def encode(text: str) -> tuple[int, ...]:
        return tuple(tokenizer.encode(text, add_special_tokens=False).ids)

    return encode


def _common(prompts: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """What all prompts of a batch begin with, but for a last token that is left to each row."""
    if len(prompts) < _WORTH_SHARING:
        return ()
    most = min(map(len, prompts)) - 1
    return tuple(commonprefix(prompts))[:most]


def _special_tokens(loaded: Loaded) -> tuple[str, ...]:
    added: dict[int, Any] = loaded.tokenizer.get_added_tokens_decoder()
    return tuple(sorted({token.content for token in added.values() if token.special}))
