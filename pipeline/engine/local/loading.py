"""Loads a checkpoint onto a device: model, tokenizer, and what an engine must know of both.

Device, number format and quantisation are decided here and nowhere else. Only local files are read,
only safetensors are loaded, and no code of a model repository is run. A short forward pass is
compared with transformers' own attention, so that an architecture which the shared-prefix attention
does not cover is refused at once instead of generating something else.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Protocol

from pipeline.engine.base import EngineSpec
from pipeline.engine.local import attention
from pipeline.engine.local.cache import EMPTY, RowCache
from pipeline.engine.local.lean import LeanGemma3, covers
from pipeline.engine.local.models import Checkpoint, quiet
from pipeline.engine.local.packing import pack_linears
from pipeline.errors import EngineError

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from torch import Tensor

_PROBE: Final = 12
"""Tokens of the forward pass that checks the attention."""
_TOLERANCE: Final = {"float32": 1e-3, "bfloat16": 0.5, "float16": 0.1}
"""Largest difference of the probe's probabilities, by number format."""


class Forward(Protocol):
    """A model's forward pass over a cache of rows."""

    def __call__(self, ids: "Tensor", cache: RowCache, *, keep: int = 1) -> "Tensor":
        """Logits of the last ``keep`` slots; the cache holds ``ids`` too, but has not advanced.

        Where ``keep`` is 0, what is returned is not looked at.
        """
        ...


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model ready to run, with its tokenizer."""

    run: Forward
    """The forward pass."""
    tokenizer: "Tokenizer"
    """The fast tokenizer."""
    device: str
    """Where its inputs go."""
    dtype: str
    """float32, bfloat16, float16, int8 or nf4."""
    context: int
    """Longest row in tokens."""
    vocabulary: int
    """Width of the logits."""
    bos: int | None
    """Id of the begin-of-sequence token, if the model was trained with one."""
    eos: frozenset[int]
    """Ids that end a text."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, special tokens neither added nor recognised by position."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def forward(self, ids: "Tensor", cache: RowCache, *, keep: int = 1) -> "Tensor":
        """Logits of the last ``keep`` slots after appending ``ids`` (rows, slots) to the cache."""
        logits = self.run(ids, cache, keep=keep)
        cache.advance(ids.shape[1])
        return logits


def load(checkpoint: Checkpoint, spec: EngineSpec) -> Loaded:
    """Load a checkpoint as ``spec`` asks.

    Raises:
        EngineError: if the device is absent, the files are damaged, or the architecture cannot run.
    """
    import torch
    from tokenizers import Tokenizer

    quiet()
    device = choose_device(spec.device)
    dtype = choose_dtype(spec.dtype, device)
    if spec.threads is not None:
        torch.set_num_threads(spec.threads)
    file = checkpoint.folder / "tokenizer.json"
    if not file.is_file():
        raise EngineError(f"{str(checkpoint.folder)!r} has no tokenizer.json; expected one there")
    tokenizer = Tokenizer.from_file(str(file))
    model = _load_model(checkpoint, spec, device=device, dtype=dtype)
    name = str(dtype).removeprefix("torch.") if spec.quantization == "none" else spec.quantization
    loaded = _describe(model, tokenizer, dtype=name)
    run = LeanGemma3(model) if covers(model) else _through_transformers(model)
    difference = _difference(model, run, loaded)
    if not difference <= _TOLERANCE[str(dtype).removeprefix("torch.")]:
        raise _uncovered(model, f"probabilities differ by {difference:.2g} in all")
    pack_linears(model)
    return replace(loaded, run=run)


def choose_device(wanted: str) -> str:
    """The torch device that ``wanted`` names; auto takes a GPU when there is one."""
    import torch

    if wanted == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    kind, _, number = wanted.partition(":")
    if kind == "cuda":
        count = torch.cuda.device_count()
        if int(number or 0) >= count:
            raise EngineError(f"device {wanted!r} is absent: {count} GPUs found; use auto or cpu")
        return f"cuda:{number or 0}"
    if kind == "mps" and not torch.backends.mps.is_available():
        raise EngineError("device 'mps' is absent on this machine; use auto or cpu")
    return wanted


def choose_dtype(wanted: str, device: str) -> "torch.dtype":
    """The number format that ``wanted`` names; auto is bfloat16 where the device computes in it."""
    import torch

    if wanted != "auto":
        chosen: torch.dtype = getattr(torch, wanted)
        return chosen
    if device.startswith("cuda"):
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has = torch.cpu.get_capabilities() if device == "cpu" else {}
        fast = bool(has.get("avx512_bf16") or has.get("amx_bf16"))
    return torch.bfloat16 if fast else torch.float32


def _load_model(
    checkpoint: Checkpoint, spec: EngineSpec, *, device: str, dtype: "torch.dtype"
) -> Any:
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    attention.register()
    options: dict[str, Any] = {}
    if spec.quantization != "none":
        options["quantization_config"] = _quantisation(spec.quantization, dtype)
    if spec.device_map or device != "cpu":
        options["device_map"] = spec.device_map or {"": device}
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            checkpoint.folder,
            dtype=dtype,
            attn_implementation=attention.NAME,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            **options,
        )
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        raise EngineError(f"cannot load the model {checkpoint.name!r}: {error}") from error
    return model.eval()


def _quantisation(kind: str, dtype: "torch.dtype") -> Any:
    from transformers import BitsAndBytesConfig

    make: Any = BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        raise EngineError(
            f"quantization {kind!r} needs bitsandbytes; run: "
            f"python -m pip install 'sft-assay[quantization]'"
        )
    if kind == "int8":
        return make(load_in_8bit=True)
    return make(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def _describe(model: Any, tokenizer: "Tokenizer", *, dtype: str) -> Loaded:
    config = model.config.get_text_config()
    if not hasattr(config, "max_position_embeddings"):
        raise _uncovered(model, "its configuration does not say how long a text may be")
    eos = {*_ids(model.generation_config.eos_token_id), *_ids(config.eos_token_id)}
    bos = next(iter(_ids(config.bos_token_id)), None)
    adds_bos = bos is not None and tokenizer.encode("a").ids[:1] == [bos]
    return Loaded(
        run=_through_transformers(model),
        tokenizer=tokenizer,
        device=str(model.get_input_embeddings().weight.device),
        dtype=dtype,
        context=config.max_position_embeddings,
        vocabulary=config.vocab_size,
        bos=bos if adds_bos else None,
        eos=frozenset(eos),
    )


def _ids(value: int | Sequence[int] | None) -> list[int]:
    if value is None:
        return []
    return [value] if isinstance(value, int) else list(value)


def _through_transformers(model: Any) -> Forward:
    """The forward pass of any model whose attention transformers lets us replace."""

    def run(ids: "Tensor", cache: RowCache, *, keep: int = 1) -> "Tensor":
        out = model(
            input_ids=ids,
            position_ids=cache.positions(ids.shape[1]),
            past_key_values=cache,
            use_cache=True,
            rows=cache,
            logits_to_keep=max(1, keep),  # 0 would be all
        )
        logits: Tensor = out.logits
        return logits

    return run


def _difference(model: Any, run: Forward, loaded: Loaded) -> float:
    """How much probabilities differ from those of transformers' own attention, on a short text."""
    import torch

    ours = replace(loaded, run=run)
    ids = torch.arange(_PROBE, device=loaded.device)[None] * 7 % loaded.vocabulary
    pads = torch.zeros(1, dtype=torch.long, device=loaded.device)
    half = _PROBE // 2
    try:
        with torch.inference_mode():
            first = RowCache(EMPTY, pads, capacity=half)
            ours.forward(ids[:, :half], first)
            second = RowCache(first.as_prefix(), pads, capacity=half)
            found = ours.forward(ids[:, half:], second)[0, -1].float().softmax(-1)
            model.set_attn_implementation("eager")
            expected = model(input_ids=ids, use_cache=False).logits[0, -1].float().softmax(-1)
    except (TypeError, AttributeError, KeyError, ValueError, AssertionError) as error:
        raise _uncovered(model, f"it does not take a cache of rows ({error})") from error
    finally:
        model.set_attn_implementation(attention.NAME)
    if not bool(expected.isfinite().all()):
        raise EngineError(
            "the model's logits are not numbers; its weights are damaged or overflow in this "
            "dtype: try engine.dtype float32, or get the model again"
        )
    return float((found - expected).abs().sum())


def _uncovered(model: Any, why: str) -> EngineError:
    return EngineError(
        f"{type(model).__name__} cannot run in process: {why}; serve it with an OpenAI-compatible "
        f"server and set engine.kind: server"
    )
