"""A base model behind any OpenAI-compatible completions server, as an engine.

Finds out at the start which server it is and what it honours, and speaks to it in the dialect that
tells most; requests go out side by side, one completion each. Tokenisation is the server's own: it
is given a row's prefix and suffix as one text, so that a border between them need not be one of
tokens. A row drawn alone repeats itself; beside others its sums are taken in another order, and it
may not.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Final, Literal, Protocol

from pipeline.engine.base import EngineSpec
from pipeline.engine.checks import check_requests, check_scores
from pipeline.engine.served.connection import TIMEOUT_SECONDS, Connection, Refused, Untrusted
from pipeline.engine.served.llamacpp import LlamaCpp
from pipeline.engine.served.openai_server import OpenAIServer
from pipeline.engine.served.probes import Abilities, Outcome, probe
from pipeline.errors import EngineError, EngineTimeout
from pipeline.types import Completion, EngineInfo, GenRequest, Score, ScoreRequest

OPEN_SECONDS: Final = 120.0
"""Longest that finding out what a server is and honours may take."""

_NO_LIMIT: Final = 2**31 - 1
"""Context of a server that does not tell its own; it then refuses long rows itself."""

_NO_LIST: Final = frozenset({404, 405, 501})
"""Statuses of a server that keeps no list of its models."""

_BAD_KNOB: Final = frozenset({400, 422, 501})
"""Statuses of a server that knows a knob not, or not its value."""


class Dialect(Protocol):
    """What can be asked of one kind of server, a row at a time."""

    async def complete(self, request: GenRequest) -> Completion:
        """One completion."""
        ...

    async def scores(self) -> Literal["any", "labels"]:
        """What can be scored, found by trying; comes before :meth:`score`."""
        ...

    async def score(self, request: ScoreRequest) -> tuple[Score, ...]:
        """One score for each continuation."""
        ...

    async def count(self, text: str) -> int:
        """Tokens of a text."""
        ...


class ServerEngine:
    """A served model as an :class:`~pipeline.engine.base.Engine`, with a lease."""

    def __init__(
        self, connection: Connection, dialect: Dialect, info: EngineInfo, abilities: Abilities
    ) -> None:
        """An engine over an open connection."""
        self._connection = connection
        self._dialect = dialect
        self._info = info
        self._abilities = abilities

    @classmethod
    def open(
        cls,
        spec: EngineSpec,
        *,
        timeout: float = TIMEOUT_SECONDS,
        open_seconds: float = OPEN_SECONDS,
        abilities: Abilities | None = None,
    ) -> "ServerEngine":
        """Reach the server, find the model there, choose a dialect, and probe what it honours.

        Args:
            spec: Where the server is, and which model.
            timeout: Longest that one request may take, in seconds.
            open_seconds: Longest that all of this may take, in seconds.
            abilities: What the server honours, where that is known without probes.

        Raises:
            EngineTimeout: if the server is not found out about in ``open_seconds``.
            EngineError: if there is no server, it does not serve ``spec.model``, or it does not
                even complete a text greedily.
        """
        if spec.base_url is None:
            raise EngineError("engine.base_url is not set; expected http://HOST:PORT/v1")
        connection = Connection(
            spec.base_url, model=spec.model, api_key=spec.api_key, timeout=timeout,
            concurrency=spec.concurrency,
        )  # fmt: skip
        with ExitStack() as stack:
            stack.callback(connection.close)
            connection.lease(open_seconds)
            try:
                opened = cls._found_out(connection, abilities)
            except EngineTimeout as error:
                raise EngineTimeout(
                    f"the server at {connection.base_url} was still being probed after "
                    f"{open_seconds:g} s; see its log, and start again once it answers faster"
                ) from error
            connection.lease(None)
            stack.pop_all()
        return opened

    @classmethod
    def _found_out(cls, connection: Connection, abilities: Abilities | None) -> "ServerEngine":
        found = _find(connection)
        dialect = _dialect(connection, found)
        scores = connection.each(lambda _: dialect.scores(), [None])[0]
        if abilities is None:
            abilities = probe(lambda requests: _outcomes(connection, dialect, requests))
        return cls(connection, dialect, _info(connection, found, scores), abilities)

    @property
    def info(self) -> EngineInfo:
        """What the engine is, as far as the server tells."""
        return self._info

    @property
    def abilities(self) -> Abilities:
        """Which knobs the server honours."""
        return self._abilities

    def generate(self, requests: Sequence[GenRequest]) -> list[Completion]:
        """One completion for each request, in order.

        Raises:
            EngineError: if a request cannot be honoured or a server's answer cannot be trusted.
        """
        check_requests(requests, count=_shortest, context=self._info.context)
        for row, request in enumerate(requests):
            if problem := self._abilities.problem(request.sampling):
                raise EngineError(
                    f"row {row}: the server at {self._connection.base_url} {problem}; leave that "
                    f"knob neutral, or use vLLM, SGLang, llama.cpp or engine.kind: hf"
                )
        return self._connection.each(self._dialect.complete, requests)

    def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[Score, ...]]:
        """For each request, one score for each of its continuations, in order.

        Raises:
            EngineError: if the server cannot score them.
        """
        check_scores(requests, count=_shortest, context=self._info.context)
        return self._connection.each(self._dialect.score, requests)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, special tokens not added."""
        return self._connection.each(self._dialect.count, texts)

    def lease(self, seconds: float) -> None:
        """All further requests together may take ``seconds``."""
        self._connection.lease(seconds)

    def stop(self) -> None:
        """Give up what the server was asked, from any thread; that raises EngineLost."""
        self._connection.stop()

    def close(self) -> None:
        """Close the connection; the server goes on."""
        self._connection.close()


def _shortest(text: str) -> int:
    """A lower bound of a text's tokens that costs no request; the server checks the rest."""
    return min(1, len(text))


def _outcomes(
    connection: Connection, dialect: Dialect, requests: Sequence[GenRequest]
) -> list[Outcome]:
    """Completions, and in the place of each that cannot be trusted the reason."""

    async def outcome(request: GenRequest) -> Outcome:
        try:
            return await dialect.complete(request)
        except Untrusted as error:
            return error
        except Refused as refusal:
            if refusal.status not in _BAD_KNOB:
                raise
            return refusal

    return connection.each(outcome, requests)


def _dialect(connection: Connection, found: dict[str, Any]) -> Dialect:
    if found.get("owned_by") == "llamacpp":
        return LlamaCpp(connection, context=_context(found))
    return OpenAIServer(connection, names=_names(found))


def _info(
    connection: Connection, found: dict[str, Any], scores: Literal["any", "labels"]
) -> EngineInfo:
    stable = {k: v for k, v in found.items() if k not in {"created", "permission"}}
    return EngineInfo(
        kind="server",
        model=connection.model,
        digest=hashlib.sha256(json.dumps(stable, sort_keys=True).encode()).hexdigest(),
        device=connection.base_url,
        dtype=str(_meta(found).get("ftype") or "as served"),
        tokenizer=connection.model,
        context=_context(found),
        scores=scores,
    )


def _find(connection: Connection) -> dict[str, Any]:
    """The server's description of the model."""
    try:
        listed = connection.each(connection.get, ["/models"])[0].get("data")
    except Refused as refusal:
        if refusal.status not in _NO_LIST:
            raise
        return {"id": connection.model}
    models = [m for m in listed if isinstance(m, dict)] if isinstance(listed, list) else []
    for model in models:
        if connection.model in _names(model):
            return model
    names = ", ".join(repr(m.get("id")) for m in models[:5]) or "no model"
    raise EngineError(
        f"the server at {connection.base_url} has {names}, not {connection.model!r}; set "
        f"engine.model to a name that it knows"
    )


def _names(model: dict[str, Any]) -> frozenset[str]:
    """Every name that a model goes by."""
    aliases = model.get("aliases")
    names = [model.get("id"), model.get("root"), *(aliases if isinstance(aliases, list) else [])]
    return frozenset(name for name in names if isinstance(name, str))


def _meta(model: dict[str, Any]) -> dict[str, Any]:
    meta = model.get("meta")
    return meta if isinstance(meta, dict) else {}


def _context(model: dict[str, Any]) -> int:
    for value in (model.get("max_model_len"), _meta(model).get("n_ctx")):
        if isinstance(value, int) and value > 0:
            return value
    return _NO_LIMIT
