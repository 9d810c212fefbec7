"""Models of random weights in the shapes of real ones, for machines to which none can be brought.

Their text means nothing and rarely stops, but a pass costs what it costs. The head's weights are
large enough that draws are about as peaked as a real model's.
"""

from pathlib import Path
from typing import Any, Final

from pipeline.engine.base import EngineSpec
from pipeline.engine.local.models import prepare
from pipeline.errors import EngineError

SIZES: Final = ("tiny", "0.5b", "8b")
_SPREAD: Final = 4.0
"""Standard deviation of logits."""


def make(size: str, folder: Path, *, device: str, dtype: str) -> Path:
    """A model's folder, made on the device unless it is there already."""
    if (folder / "tokenizer.json").is_file():
        return folder
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = _byte_tokenizer() if size == "tiny" else _tokenizer()
    torch.manual_seed(0)
    kind = getattr(torch, dtype)
    make_model: Any = AutoModelForCausalLM.from_config
    with torch.device(device):
        model = make_model(_config(size, tokenizer.get_vocab_size()), dtype=kind)
        with torch.no_grad():
            model.lm_head.weight.normal_(0, _SPREAD / model.config.hidden_size**0.5)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def _config(size: str, vocabulary: int) -> Any:
    from transformers import LlamaConfig, Qwen2Config

    common: dict[str, Any] = {
        "vocab_size": vocabulary, "max_position_embeddings": 8192, "bos_token_id": None,
        "eos_token_id": 1, "pad_token_id": 0, "tie_word_embeddings": False,
    }  # fmt: skip
    match size:
        case "tiny":
            return LlamaConfig(
                hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                num_attention_heads=4, num_key_value_heads=2, **common,
            )  # fmt: skip
        case "0.5b":
            return Qwen2Config(
                hidden_size=896, intermediate_size=4864, num_hidden_layers=24,
                num_attention_heads=14, num_key_value_heads=2, **common,
            )  # fmt: skip
        case _:
            return LlamaConfig(
                hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
                num_attention_heads=32, num_key_value_heads=8, **common,
            )  # fmt: skip


def _tokenizer() -> Any:
    """The embedded model's, so that prompts are as long as usual; else one token a byte."""
    from tokenizers import Tokenizer

    try:
        folder = prepare(EngineSpec()).folder
    except EngineError:
        return _byte_tokenizer()
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def _byte_tokenizer() -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<pad>": 0, "<eos>": 1} | {c: i + 2 for i, c in enumerate(alphabet)}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(t, special=True) for t in ("<pad>", "<eos>")])
    return made
