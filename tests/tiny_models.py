"""Models of a few thousand random weights, in folders as a user would have them."""

from pathlib import Path
from typing import Any

BYTES = 256


def tokenizer() -> Any:
    """One token a byte, BOS before a text."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<pad>": 0, "<eos>": 1, "<bos>": 2} | {c: i + 3 for i, c in enumerate(alphabet)}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(t, special=True) for t in ("<pad>", "<eos>", "<bos>")])
    made.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 2)]
    )
    return made


def gemma3(**changes: Any) -> Any:
    """A Gemma 3 with three layers, two of them with a window of 16 tokens."""
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=BYTES + 3, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, sliding_window=16,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        query_pre_attn_scalar=16, max_position_embeddings=256, eos_token_id=1, bos_token_id=2,
        pad_token_id=0, **changes,
    )  # fmt: skip
    return sharpen(Gemma3ForCausalLM(config))


def llama() -> Any:
    """A Llama with two layers."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=BYTES + 3, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
        eos_token_id=1, bos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    return sharpen(LlamaForCausalLM(config))


def sharpen(model: Any) -> Any:
    """Random weights large enough that texts depend on what they continue."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    return model.eval()


def save(model: Any, folder: Path) -> Path:
    """The model's folder, its tokenizer included."""
    model.save_pretrained(folder)
    tokenizer().save(str(folder / "tokenizer.json"))
    return folder
