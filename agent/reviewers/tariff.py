"""What a request can cost at most, and what a reply is charged, without asking the network.

A byte-level tokenizer never makes more tokens than there are UTF-8 bytes, so bytes bound every
model from above. Where tiktoken's own table lies in ``TIKTOKEN_CACHE_DIR``, OpenAI's models are
counted exactly instead. tiktoken downloads what it misses, so the table is checked first. The one
idea: usage that cannot be true is no usage, so that its request is charged in full.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Final

from agent.config import ModelPrice
from agent.money.amounts import check_micro
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
        return _OVERHEAD_TOKENS + sum(count_tokens(text, self.encoding) for text in texts)

    def bound_micro(self, prompt_bound: int) -> int:
        """Micro-dollars that a request with at most ``prompt_bound`` prompt tokens can cost."""
        return self._micro(prompt_bound, self.max_output_tokens)

    def charge_micro(self, reply: Reply, prompt_bound: int) -> int | None:
        """What ``reply`` cost by its usage, rounded up; None where that cannot be true."""
        if reply.usage is None:
            return None
        prompt, completion = reply.usage
        possible = (
            prompt <= prompt_bound
            and completion <= self.max_output_tokens
            and (completion > 0 or not reply.text)
        )
        return self._micro(prompt, completion) if possible else None

    def _micro(self, prompt: int, completion: int) -> int:
        # Exact: a price stands for the decimal that it prints as, a sum of floats does not.
        read = prompt * Fraction(str(self.price.input_usd_per_million))
        written = completion * Fraction(str(self.price.output_usd_per_million))
        return check_micro(ceil(read + written))  # dollars a million are micro-dollars each


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


def count_tokens(text: str, encoding: str | None) -> int:
    """Tokens of ``text`` in tiktoken's ``encoding``; None counts bytes, which bound them."""
    if encoding is None:
        return len(text.encode())
    import tiktoken

    return len(tiktoken.get_encoding(encoding).encode(text, disallowed_special=()))
