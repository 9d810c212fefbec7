"""A lean forward pass for Gemma 3: the same arithmetic in a third of the operations.

A decode step of a small model is mostly the cost of starting operations. Here projections that
read the same input are one product, norms of queries and keys are one, weights are packed for the
processor, and nothing passes through module calls. transformers stays the reference: this pass is
compared with it whenever a model is loaded, and other architectures run on transformers' own code.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.engine.local.attention import Shape, over_rows
from pipeline.engine.local.cache import RowCache
from pipeline.engine.local.packing import Product, gated, product

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class _Layer:
    """One decoder layer's weights, joined and packed; norms as float32 factors."""

    shape: Shape
    kind: str
    before_attention: "Tensor"
    qkv: Product
    heads: "Tensor"
    out: Product
    after_attention: "Tensor"
    before_mlp: "Tensor"
    gated: Product
    down: Product
    after_mlp: "Tensor"


def covers(model: Any) -> bool:
    """Whether a model is one that this pass computes: plain Gemma 3 text, in dense weights."""
    from torch import nn
    from transformers import Gemma3ForCausalLM

    if type(model) is not Gemma3ForCausalLM or getattr(model, "hf_device_map", None):
        return False
    config = model.config
    plain = not (config.attn_logit_softcapping or config.use_bidirectional_attention)
    act = config.hidden_activation == "gelu_pytorch_tanh" and not config.attention_bias
    dense = all(type(m) is nn.Linear for m in model.modules() if isinstance(m, nn.Linear))
    return plain and act and dense


class LeanGemma3:
    """Callable as ``lean(ids, cache, keep=n)``: logits of the last ``n`` slots."""

    def __init__(self, model: Any) -> None:
        """Join and pack the weights of a model that :func:`covers` accepts."""
        import torch

        config, decoder = model.config, model.model
        self._eps = decoder.norm.weight.new_tensor(config.rms_norm_eps, dtype=torch.float32)
        self._width = config.head_dim
        self._queries = config.num_attention_heads
        self._keys = config.num_key_value_heads
        self._embed = decoder.embed_tokens.weight
        self._embed_scale = decoder.embed_tokens.embed_scale.to(self._embed.dtype)
        self._rotary = decoder.rotary_emb
        self._last = _factor(decoder.norm)
        self._head = product([model.lm_head.weight])
        self._cap = config.final_logit_softcapping
        self._layers = [self._layer(layer) for layer in decoder.layers]

    def __call__(self, ids: "Tensor", cache: RowCache, *, keep: int = 1) -> "Tensor":
        """Append ``ids`` (rows, slots) to the cache."""
        import torch

        # The stream between layers is kept in float32: sums of norms need no rounding.
        hidden: Tensor = (torch.embedding(self._embed, ids) * self._embed_scale).float()
        positions = cache.positions(ids.shape[1])
        turns = {kind: self._turn(kind, positions) for kind in {la.kind for la in self._layers}}
        for layer in self._layers:
            attended = self._attend(layer, hidden, turns[layer.kind], cache)
            self._add(hidden, attended, layer.after_attention)
            made = layer.down(layer.gated(self._norm(hidden, layer.before_mlp)))
            self._add(hidden, made, layer.after_mlp)
        if not keep:
            return hidden[:, :0]
        logits = self._head(self._norm(hidden[:, -keep:], self._last))
        if self._cap is not None:
            logits = torch.tanh(logits / self._cap) * self._cap
        return logits

    def _attend(
        self, layer: _Layer, hidden: "Tensor", turn: "tuple[Tensor, Tensor]", cache: RowCache
    ) -> "Tensor":
        import torch

        rows, count, _ = hidden.shape
        made = layer.qkv(self._norm(hidden, layer.before_attention))
        made = made.view(rows, count, -1, self._width)
        turned = self._norm(made[:, :, : self._queries + self._keys].float(), layer.heads)
        cos, sin = turn
        turned = torch.addcmul(turned * cos, turned.roll(self._width // 2, -1), sin)
        query = turned[:, :, : self._queries].transpose(1, 2)
        key = turned[:, :, self._queries :].transpose(1, 2)
        value = made[:, :, self._queries + self._keys :].transpose(1, 2)
        own = cache.update(key, value, layer.shape.layer)
        return layer.out(over_rows(query, own, cache, layer.shape).view(rows, count, -1))

    def _norm(self, x: "Tensor", factor: "Tensor") -> "Tensor":
        """Root-mean-square norm of float32 rows, in the model's format."""
        normed: Tensor = (x * self._scale(x)).mul_(factor)
        return normed.to(self._embed.dtype)

    def _add(self, hidden: "Tensor", x: "Tensor", factor: "Tensor") -> None:
        """Add the norm of ``x`` to the stream."""
        wide = x.float()
        hidden.addcmul_(wide * self._scale(wide), factor)

    def _scale(self, x: "Tensor") -> "Tensor":
        """One over the root of the mean square of each row."""
        import torch

        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return torch.addcmul(self._eps, length, length, value=1 / x.shape[-1]).rsqrt_()

    def _turn(self, kind: str, positions: "Tensor") -> "tuple[Tensor, Tensor]":
        """Cosines and sines of the rotary positions; sines of the first half are negated."""
        import torch

        cos, sin = self._rotary(self._last.to(self._embed.dtype), positions, kind)
        half = self._width // 2
        signed = torch.cat([-sin[..., :half], sin[..., half:]], -1)
        return cos[:, :, None], signed[:, :, None]

    def _layer(self, layer: Any) -> _Layer:
        import torch

        attention, mlp = layer.self_attn, layer.mlp
        queries, keys = _factor(attention.q_norm), _factor(attention.k_norm)
        heads = [queries] * self._queries + [keys] * self._keys
        return _Layer(
            shape=Shape(
                layer=attention.layer_idx,
                scale=attention.scaling,
                window=attention.sliding_window,
            ),
            kind=attention.layer_type,
            before_attention=_factor(layer.input_layernorm),
            qkv=product([m.weight for m in (attention.q_proj, attention.k_proj, attention.v_proj)]),
            heads=torch.stack(heads),
            out=product([attention.o_proj.weight]),
            after_attention=_factor(layer.post_attention_layernorm),
            before_mlp=_factor(layer.pre_feedforward_layernorm),
            gated=gated(mlp.gate_proj.weight, mlp.up_proj.weight),
            down=product([mlp.down_proj.weight]),
            after_mlp=_factor(layer.post_feedforward_layernorm),
        )


def _factor(norm: Any) -> "Tensor":
    """What a Gemma norm multiplies by: one plus its weight, in float32."""
    factor: Tensor = 1.0 + norm.weight.detach().float()
    return factor
