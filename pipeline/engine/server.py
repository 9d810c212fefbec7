"""A base model behind any OpenAI-compatible completions server, as an engine.

Finds out at the start which server it is, and speaks to it in the dialect that tells most; requests
go out side by side, one completion each. Tokenisation is the server's own: it is given a row's
prefix and suffix as one text, so that a border between them need not be one of tokens. A row drawn
alone repeats itself; beside others its sums are taken in another order, and it may not.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Final, Protocol

from pipeline.engine.base import EngineSpec
from pipeline.engine.checks import check_requests, check_scores
from pipeline.engine.connection import TIMEOUT_SECONDS, Connection, Refused, in_parallel
from pipeline.engine.llamacpp import LlamaCpp
from pipeline.engine.openai_server import OpenAIServer
from pipeline.errors import EngineError
from pipeline.types import Completion, EngineInfo, GenRequest, Score, ScoreRequest

_NO_LIMIT: Final = 2**31 - 1
"""Context of a server that does not tell its own; it then refuses long rows itself."""

_NO_LIST: Final = frozenset({404, 405, 501})
"""Statuses of a server that keeps no list of its models."""


class Dialect(Protocol):
    """What can be asked of one kind of server, a row at a time."""

    def complete(self, request: GenRequest) -> Completion:
        """One completion."""
        ...

    def score(self, request: ScoreRequest) -> tuple[Score, ...]:
        """One score for each continuation."""
        ...

    def count(self, text: str) -> int:
        """Tokens of a text."""
        ...


class ServerEngine:
    """A served model as an :class:`~pipeline.engine.base.Engine`."""

    def __init__(self, connection: Connection, dialect: Dialect, info: EngineInfo) -> None:
        """An engine over an open connection."""
        self._connection = connection
        self._dialect = dialect
        self._info = info

    @classmethod
    def open(cls, spec: EngineSpec, *, timeout: float = TIMEOUT_SECONDS) -> "ServerEngine":
        """Reach the server, find the model there, and choose a dialect.

        Raises:
            EngineError: if there is no server, or it does not serve ``spec.model``.
        """
        if spec.base_url is None:
            raise EngineError("engine.base_url is not set; expected http://HOST:PORT/v1")
        connection = Connection(
            spec.base_url, model=spec.model, api_key=spec.api_key, timeout=timeout
        )
        found = _find(connection)
        context = _context(found)
        llama = found.get("owned_by") == "llamacpp"
        dialect = LlamaCpp(connection, context=context) if llama else OpenAIServer(connection)
        stable = {k: v for k, v in found.items() if k not in {"created", "permission"}}
        info = EngineInfo(
            kind="server",
            model=spec.model,
            digest=hashlib.sha256(json.dumps(stable, sort_keys=True).encode()).hexdigest(),
            device=connection.base_url,
            dtype=str(_meta(found).get("ftype") or "as served"),
            tokenizer=spec.model,
            context=context,
        )
        return cls(connection, dialect, info)

    @property
    def info(self) -> EngineInfo:
        """What the engine is, as far as the server tells."""
        return self._info

    def generate(self, requests: Sequence[GenRequest]) -> list[Completion]:
        """One completion for each request, in order.

        Raises:
            EngineError: if a request cannot be honoured or a server's answer cannot be trusted.
        """
        check_requests(requests, count=_shortest, context=self._info.context)
        return in_parallel(self._dialect.complete, requests)

    def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[Score, ...]]:
        """For each request, one score for each of its continuations, in order.

        Raises:
            EngineError: if the server cannot score them.
        """
        check_scores(requests, count=_shortest, context=self._info.context)
        return in_parallel(self._dialect.score, requests)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, special tokens not added."""
        return in_parallel(self._dialect.count, texts)

    def close(self) -> None:
        """Close the connection; the server goes on."""
        self._connection.close()


def _shortest(text: str) -> int:
    """A lower bound of a text's tokens that costs no request; the server checks the rest."""
    return min(1, len(text))


def _find(connection: Connection) -> dict[str, Any]:
    """The server's description of the model."""
    try:
        listed = connection.get("/models").get("data")
    except Refused as refusal:
        if refusal.status not in _NO_LIST:
            raise
        return {"id": connection.model}
    models = [m for m in listed if isinstance(m, dict)] if isinstance(listed, list) else []
    for model in models:
        if connection.model in {model.get("id"), model.get("root"), *_aliases(model)}:
            return model
    names = ", ".join(repr(m.get("id")) for m in models[:5]) or "no model"
    raise EngineError(
        f"the server at {connection.base_url} has {names}, not {connection.model!r}; set "
        f"engine.model to a name that it knows"
    )


def _aliases(model: dict[str, Any]) -> list[str]:
    aliases = model.get("aliases")
    return [a for a in aliases if isinstance(a, str)] if isinstance(aliases, list) else []


def _meta(model: dict[str, Any]) -> dict[str, Any]:
    meta = model.get("meta")
    return meta if isinstance(meta, dict) else {}


def _context(model: dict[str, Any]) -> int:
    for value in (model.get("max_model_len"), _meta(model).get("n_ctx")):
        if isinstance(value, int) and value > 0:
            return value
    return _NO_LIMIT
