"""transformers as contenders: ``generate`` one by one, in a static batch, and ``generate_batch``.

Written as a careful user would: left padding with exact positions, inference mode, stop strings by
the library's own criterion, logits only where a score needs them, scores in batches sorted by
length.
"""

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from benchmarks.engine.contenders import Absent, Traits
from benchmarks.engine.setup import Setup
from pipeline.engine.local.models import quiet
from pipeline.engine.stops import settle
from pipeline.types import Completion, GenRequest, Sampling, Score, ScoreRequest

if TYPE_CHECKING:
    from torch import Tensor

_SCORED_TOGETHER: Final = 16
_CACHE_SHARE: Final = {"cpu": 0.2, "cuda": 0.4}
"""Share of free memory that continuous batching may take for its cache; others need some too."""


class Texts:
    """A model folder's tokenizer, and the ids that begin and end its texts."""

    def __init__(self, setup: Setup) -> None:
        """Read them from the folder."""
        from tokenizers import Tokenizer
        from transformers import AutoConfig, GenerationConfig

        self.tokenizer: Any = Tokenizer.from_file(str(setup.folder / "tokenizer.json"))
        config = AutoConfig.from_pretrained(setup.folder).get_text_config()
        ends = [config.eos_token_id]
        if (setup.folder / "generation_config.json").is_file():
            ends.append(GenerationConfig.from_pretrained(setup.folder).eos_token_id)
        listed = [each if isinstance(each, list) else [each] for each in ends]
        self.eos = sorted({i for each in listed for i in each if i is not None})
        known = config.pad_token_id
        self.pad: int = known if known is not None else self.eos[0] if self.eos else 0
        first = self.tokenizer.encode("a").ids[:1]
        self._bos = first if first == [config.bos_token_id] else []

    def prompt(self, text: str) -> list[int]:
        """Ids of a prompt, as the model was trained to see one begin."""
        return [*self._bos, *self.continuation(text)]

    def continuation(self, text: str) -> list[int]:
        """Ids of a text without special ones."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def completion(self, ids: Sequence[int], sampling: Sampling) -> Completion:
        """What is left of drawn ids after the end token and the stop strings."""
        ends = {*self.eos, self.pad}
        end = next((i for i, token in enumerate(ids) if token in ends), len(ids))

        def text_of(count: int) -> str:
            text: str = self.tokenizer.decode(list(ids[:count]), skip_special_tokens=False)
            return text

        cap = sampling.max_new_tokens
        ending = settle(text_of, end, stops=sampling.stop, cap=cap, eos=end < cap)
        kept = tuple(ids[: ending.tokens])
        return Completion(ending.text, kept, ending.finish_reason, ending.stop)


class _Wanted(NamedTuple):
    """A row to score: what is read, which tokens are asked for, and whose they are."""

    place: int
    column: int
    inputs: list[int]
    targets: list[int]
    alternatives: list[list[int]]
    """Single-token continuations that share this row, else empty."""


class _Model:
    """A model loaded as transformers' documentation says."""

    def __init__(self, setup: Setup) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        quiet()
        torch.set_num_threads(setup.threads)
        self.texts = Texts(setup)
        model: Any = AutoModelForCausalLM.from_pretrained(
            setup.folder, dtype=getattr(torch, setup.dtype), local_files_only=True
        )
        self.model = model.to(setup.device).eval()

    def options(self, sampling: Sampling, **more: Any) -> Any:
        """A generation configuration with every knob set."""
        from transformers import GenerationConfig

        make: Any = GenerationConfig
        return make(
            do_sample=True, temperature=sampling.temperature, top_p=sampling.top_p, top_k=0,
            repetition_penalty=sampling.repetition_penalty,
            max_new_tokens=sampling.max_new_tokens,
            eos_token_id=self.texts.eos, pad_token_id=self.texts.pad, **more,
        )  # fmt: skip

    def padded(self, rows: Sequence[Sequence[int]]) -> "dict[str, Tensor]":
        """Rows padded on the left, and what is padding."""
        import torch

        width = max(map(len, rows))
        ids = [[self.texts.pad] * (width - len(row)) + list(row) for row in rows]
        mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
        device = self.model.device
        return {
            "input_ids": torch.tensor(ids, device=device),
            "attention_mask": torch.tensor(mask, device=device),
        }


class Static:
    """``generate`` with all rows in one batch, or with one row at a time."""

    def __init__(self, setup: Setup, *, one_by_one: bool = False) -> None:
        """Load the model."""
        from transformers import PreTrainedTokenizerFast

        loaded = _Model(setup)
        self._loaded, self._texts = loaded, loaded.texts
        matcher: Any = PreTrainedTokenizerFast
        self._matcher = matcher(tokenizer_object=self._texts.tokenizer)
        self._together = 1 if one_by_one else setup.rows
        self._scored_together = 1 if one_by_one else _SCORED_TOGETHER
        self.traits = Traits()
        if one_by_one:
            limit = min(setup.sequential_rows, setup.rows)
            self.traits = Traits((f"timed on {limit} rows of {setup.rows} and scaled",), limit)

    def generate(self, requests: Sequence[GenRequest]) -> list[Completion]:
        """One completion for each request, in order."""
        import torch

        made: list[Completion] = []
        with torch.inference_mode():
            for first in range(0, len(requests), self._together):
                made += self._batch(requests[first : first + self._together])
        return made

    def _batch(self, requests: Sequence[GenRequest]) -> list[Completion]:
        import torch

        sampling = requests[0].sampling
        torch.manual_seed(requests[0].seed)
        rows = self._loaded.padded([self._texts.prompt(r.prefix + r.suffix) for r in requests])
        out = self._loaded.model.generate(
            **rows,
            generation_config=self._loaded.options(sampling, stop_strings=list(sampling.stop)),
            tokenizer=self._matcher,
        )
        drawn = out[:, rows["input_ids"].shape[1] :].tolist()
        return [self._texts.completion(ids, sampling) for ids in drawn]

    def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[Score, ...]]:
        """One score for each continuation of each request, in order."""
        import torch

        rows = [row for i, request in enumerate(requests) for row in self._rows(i, request)]
        rows.sort(key=lambda row: len(row.inputs))
        found: list[dict[int, Score]] = [{} for _ in requests]
        with torch.inference_mode():
            for first in range(0, len(rows), self._scored_together):
                batch = rows[first : first + self._scored_together]
                for row, scores in zip(batch, self._score(batch), strict=True):
                    found[row.place].update(enumerate(scores, row.column))
        return [tuple(scores[i] for i in sorted(scores)) for scores in found]

    def _rows(self, place: int, request: ScoreRequest) -> Iterator[_Wanted]:
        prompt = self._texts.prompt(request.prefix + request.suffix)
        continuations = [self._texts.continuation(text) for text in request.continuations]
        if all(len(ids) == 1 for ids in continuations):
            yield _Wanted(place, 0, prompt, continuations[0], continuations)
            return
        for column, ids in enumerate(continuations):
            yield _Wanted(place, column, prompt + ids[:-1], ids, [])

    def _score(self, rows: Sequence[_Wanted]) -> list[list[Score]]:
        import torch

        inputs = self._loaded.padded([row.inputs for row in rows])
        positions = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
        kept = max(len(row.targets) for row in rows)
        logits = self._loaded.model(
            **inputs, position_ids=positions, use_cache=False, logits_to_keep=kept
        ).logits
        made = []
        for row, each in zip(rows, logits, strict=True):
            logs = each[-len(row.targets) :].float().log_softmax(-1)
            if row.alternatives:
                made.append([Score(float(logs[0, ids[0]]), 1) for ids in row.alternatives])
            else:
                wanted = torch.tensor(row.targets, device=logs.device)[:, None]
                made.append([Score(float(logs.gather(1, wanted).sum()), len(row.targets))])
        return made


class Continuous:
    """``generate_batch``: rows join and leave a batch over a paged cache."""

    traits = Traits(
        ("ignores repetition penalty and stop strings: rows run to their cap, then are cut",),
        scores=False,
    )

    def __init__(self, setup: Setup) -> None:
        """Load the model, with flash attention only where its package is installed."""
        from transformers import ContinuousBatchingConfig

        self._loaded = _Model(setup)
        self._config = ContinuousBatchingConfig(
            auto_switch_to_flash=find_spec("flash_attn") is not None,
            max_memory_percent=_CACHE_SHARE.get(setup.device.partition(":")[0]),
        )

    def generate(self, requests: Sequence[GenRequest]) -> list[Completion]:
        """One completion for each request, in order."""
        sampling, texts = requests[0].sampling, self._loaded.texts
        made = self._loaded.model.generate_batch(
            [texts.prompt(r.prefix + r.suffix) for r in requests],
            generation_config=self._loaded.options(sampling),
            continuous_batching_config=self._config,
        )
        failed = [row.error for row in made.values() if row.error is not None]
        if failed or len(made) < len(requests):
            why = failed[0] if failed else "its thread ended; see the log above"
            raise Absent(f"answered {len(made) - len(failed)} of {len(requests)} rows: {why}")
        return [texts.completion(row.generated_tokens, sampling) for row in made.values()]

    def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[Score, ...]]:
        """Not offered by the library."""
        raise Absent("generate_batch gives no log-probabilities of a prompt")
