"""What a request can cost at most, and what a reply is charged, without asking the network.

A byte-level tokenizer never makes more tokens than there are UTF-8 bytes, so bytes bound every
model from above. Where tiktoken's own table lies in ``TIKTOKEN_CACHE_DIR``, OpenAI's models are
counted exactly instead. tiktoken downloads what it misses, so the table is checked first. The one
idea: what cannot be true is charged in full, so that nothing is ever under-counted.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.config import ModelPrice
from agent.reviewers.reply import Reply

Message = Mapping[str, str]
"""``role`` and ``content``."""
_TABLE_URL: Final = "https://openaipublic.blob.core.windows.net/encodings/o200k_base.tiktoken"
_TABLE_SHA256: Final = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"
_ENCODING: Final = "o200k_base"
_OVERHEAD_TOKENS: Final = 256  # what a chat template adds around the messages


@dataclass(frozen=True, slots=True)
class Tariff:
    """Prices of one model, with how its tokens are counted."""

    price: ModelPrice
    """Dollars for a million tokens, each way."""
    max_output_tokens: int
    """Token cap of one answer."""
    encoding: str | None = None
    """tiktoken's encoding that is exact for the model; None counts bytes."""

    def prompt_bound(self, messages: Sequence[Message], *, extra: str = "") -> int:
        """Tokens that ``messages`` and what is sent beside them have at most."""
        texts = [*(message["content"] for message in messages), extra]
        return _OVERHEAD_TOKENS + sum(_tokens(text, self.encoding) for text in texts)

    def bound_usd(self, prompt_bound: int) -> float:
        """What a request with at most ``prompt_bound`` prompt tokens can cost."""
        return self._usd(prompt_bound, self.max_output_tokens)

    def charge_usd(self, reply: Reply, prompt_bound: int) -> float:
        """What ``reply`` cost by its usage where that can be true, else in full."""
        if reply.usage is None:
            return self.bound_usd(prompt_bound)
        prompt, completion = reply.usage
        possible = (
            prompt <= prompt_bound
            and completion <= self.max_output_tokens
            and (completion > 0 or not reply.text)
        )
        return self._usd(prompt, completion) if possible else self.bound_usd(prompt_bound)

    def _usd(self, prompt: int, completion: int) -> float:
        cost = prompt * self.price.input_usd_per_million
        return (cost + completion * self.price.output_usd_per_million) / 1e6


def exact_encoding(model: str, environ: Mapping[str, str]) -> str | None:
    """Name of the encoding that is exact for ``model``, if its table is at hand; else None."""
    folder = environ.get("TIKTOKEN_CACHE_DIR")
    if not folder:
        return None
    table = Path(folder) / hashlib.sha1(_TABLE_URL.encode(), usedforsecurity=False).hexdigest()
    if not table.is_file() or hashlib.sha256(table.read_bytes()).hexdigest() != _TABLE_SHA256:
        return None
    from tiktoken.model import encoding_name_for_model

    try:
        name = encoding_name_for_model(model)
    except KeyError:
        return None
    return name if name == _ENCODING else None


def _tokens(text: str, encoding: str | None) -> int:
    if encoding is None:
        return len(text.encode())
    import tiktoken

    return len(tiktoken.get_encoding(encoding).encode(text, disallowed_special=()))
