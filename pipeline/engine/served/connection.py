"""One completions server over HTTP: a JSON body out, a JSON object back, many at a time.

Requests run side by side on an event loop of this connection's own, since only there a whole
exchange can be ended at its deadline, however slowly bytes still come. Every way in which one can
end without an answer becomes an EngineError that names the server and what to do; what is under
way is given up when another request fails. What bodies mean is left to the dialects.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from pipeline.errors import EngineError, EngineLost, EngineTimeout
from pipeline.redact import Redactor

TIMEOUT_SECONDS: Final = 300.0
"""Longest that one request may take from its first byte to its last."""
BODY_BYTES: Final = 64 * 2**20
"""Longest answer that is read."""
WAITS: Final = 3
"""Times that one request waits where the server says when to come back."""
LONGEST_WAIT_SECONDS: Final = 30.0
"""A server that asks for a longer wait is taken to be down."""

_CONNECT_SECONDS: Final = 10.0
_IDLE_SECONDS: Final = 2.0  # servers drop idle sockets after 5 s; one that is gone must not be used
_BUSY: Final = frozenset({429, 503})
_QUOTED: Final = 300
_In = TypeVar("_In")
_Out = TypeVar("_Out")


class Refused(EngineError):
    """The server answered with an error status."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class Untrusted(EngineError):
    """The server's answer cannot be taken for what it was asked."""


class Connection:
    """An OpenAI-compatible server and the name of a model there."""

    def __init__(
        self,
        base_url: str,
        *,
        model: str,
        api_key: str | None,
        timeout: float = TIMEOUT_SECONDS,
        concurrency: int = 32,
    ) -> None:
        """A client of ``base_url``, which ends in ``/v1``; nothing is sent yet."""
        import httpx2

        self.base_url = base_url.rstrip("/")
        self.root = self.base_url.removesuffix("/v1")
        self.model = model
        self._timeout = timeout
        self._redacted = Redactor(api_key)
        self._concurrency = concurrency
        self._ends: float | None = None
        self._lease = 0.0
        self._closed = False
        self._stopped = False
        self._under_way: asyncio.Task[Any] | None = None
        self._runner = asyncio.Runner()
        _check_port(self.base_url)
        headers = _headers(api_key)
        try:
            self._client = httpx2.AsyncClient(
                headers=headers,
                timeout=httpx2.Timeout(None, connect=_CONNECT_SECONDS),
                limits=httpx2.Limits(max_connections=concurrency, keepalive_expiry=_IDLE_SECONDS),
            )
        except (ImportError, OSError, ValueError, httpx2.InvalidURL) as error:
            raise EngineError(
                f"no HTTP client for {self.base_url} can be built here ({error}); correct or unset "
                f"the variables of proxies and certificates, such as ALL_PROXY and SSL_CERT_FILE"
            ) from error

    def each(self, work: Callable[[_In], Awaitable[_Out]], items: Sequence[_In]) -> list[_Out]:
        """Results in the order of ``items``; at the first failure all that is under way ends.

        Raises:
            EngineTimeout: if the lease ends before they do.
            EngineLost: if the connection is stopped.
        """
        if self._closed:
            raise EngineError(f"the engine at {self.base_url} is closed; open another")
        return self._runner.run(self._each(work, items)) if items else []

    async def post(self, url: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The server's answer to a JSON body.

        Raises:
            EngineError: if there is none in time, or it is not a JSON object.
        """
        return await self._ask("POST", url, json.dumps(body, allow_nan=False).encode())

    async def get(self, url: str) -> dict[str, Any]:
        """The server's answer to a question without a body; errors as in :meth:`post`."""
        return await self._ask("GET", url, None)

    def lease(self, seconds: float | None) -> None:
        """End all requests ``seconds`` from now; at None they may take as long as they like."""
        self._lease = seconds or 0.0
        self._ends = None if seconds is None else time.monotonic() + seconds

    def stop(self) -> None:
        """Give up what is under way, from any thread or signal handler; nothing more is sent."""
        self._stopped = True
        if (task := self._under_way) is not None:
            with suppress(RuntimeError):  # the loop was closed meanwhile
                task.get_loop().call_soon_threadsafe(task.cancel)

    def close(self) -> None:
        """Close the sockets; once is enough."""
        if not self._closed:
            self._closed = True
            self._runner.run(self._client.aclose())
            self._runner.close()

    async def _each(
        self, work: Callable[[_In], Awaitable[_Out]], items: Sequence[_In]
    ) -> list[_Out]:
        self._under_way = asyncio.current_task()
        left = None if self._ends is None else self._ends - time.monotonic()
        todo, done = iter(enumerate(items)), dict[int, _Out]()

        async def worker() -> None:
            for place, item in todo:
                done[place] = await work(item)

        try:
            if self._stopped:
                raise self._lost()
            async with asyncio.timeout(left), asyncio.TaskGroup() as group:
                for _ in range(min(self._concurrency, len(items))):
                    group.create_task(worker())
        except TimeoutError as error:
            raise self._late() from error
        except asyncio.CancelledError as error:
            if self._stopped:
                raise self._lost() from error
            raise
        except ExceptionGroup as errors:
            failed = errors.exceptions[0]
        else:
            return [done[place] for place in range(len(items))]
        finally:
            self._under_way = None
        raise failed

    async def _ask(self, method: str, url: str, content: bytes | None) -> dict[str, Any]:
        import httpx2

        try:
            async with asyncio.timeout(self._timeout):
                return self._object(await self._answer(method, url, content))
        except TimeoutError as error:
            raise EngineError(
                f"the server at {self.base_url} did not end its answer within {self._timeout:g} s; "
                f"see its log, or lower max_new_tokens or engine.concurrency"
            ) from error
        except (httpx2.RequestError, httpx2.InvalidURL, OSError, ValueError) as error:
            why = self._quote(str(error) or type(error).__name__)
            raise EngineError(
                f"no answer from {self.base_url} ({why}); start the server, or set engine.base_url"
            ) from error

    async def _answer(self, method: str, url: str, content: bytes | None) -> bytes:
        """The body of a good answer.

        A request that was refused for now was not computed, so it may be sent again when the
        server says so; no other request is.
        """
        for waited in range(WAITS + 1):
            status, headers, body = await self._send(method, url, content)
            if 200 <= status < 300:
                return body
            wait = _wait(headers) if status in _BUSY else None
            if wait is None or waited == WAITS:
                break
            await asyncio.sleep(wait)
        said = self._quote(headers.get("location") or body.decode("utf-8", "replace"))
        message = f"the server at {self.base_url} refused {url}: {status} {said}"
        raise Refused(message, status=status)

    async def _send(
        self, method: str, url: str, content: bytes | None
    ) -> tuple[int, Mapping[str, str], bytes]:
        address = url if "://" in url else self.base_url + url
        body = bytearray()
        async with self._client.stream(method, address, content=content) as response:
            async for part in response.aiter_bytes():
                body += part
                if len(body) > BODY_BYTES:
                    raise Untrusted(
                        f"the server at {self.base_url} sent more than {BODY_BYTES >> 20} MiB in "
                        f"answer to one request; is it a completions server?"
                    )
            return response.status_code, response.headers, self._redacted.in_bytes(bytes(body))

    def _object(self, content: bytes) -> dict[str, Any]:
        try:
            found = json.loads(content)
        except (ValueError, RecursionError) as error:
            found = error
        if not isinstance(found, dict):
            text = self._quote(content.decode("utf-8", "replace"))
            raise Untrusted(
                f"the server at {self.base_url} answered {text}; expected a JSON object: is it an "
                f"OpenAI-compatible server?"
            )
        return found

    def _late(self) -> EngineTimeout:
        return EngineTimeout(
            f"the server at {self.base_url} was still at work when its lease of {self._lease:g} s "
            f"ended; raise engine.lease_seconds, or lower the rows of a micro-batch"
        )

    def _lost(self) -> EngineLost:
        return EngineLost(f"the engine at {self.base_url} was stopped; open another")

    def _quote(self, text: str) -> str:
        """Text of the server for a message: short, printable, and without our key."""
        return repr(self._redacted(text)[:_QUOTED])


def field(tree: object, name: str, kind: type[_Out]) -> _Out:
    """A field of an answer, of the type that it must have.

    Raises:
        Untrusted: if it is missing or of another type.
    """
    value = tree.get(name) if isinstance(tree, dict) else None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise Untrusted(
            f"the server's answer has {name} = {value!r:.100}; expected {kind.__name__}"
        )
    return value


def _check_port(base_url: str) -> None:
    try:
        urlsplit(base_url).port  # noqa: B018
    except ValueError as error:
        raise EngineError(
            f"engine.base_url is {base_url!r} ({error}); expected http://HOST:PORT/v1"
        ) from error


def _headers(api_key: str | None) -> dict[str, str]:
    # Without compression the limit of a body holds for what is sent as well.
    plain = {"content-type": "application/json", "accept-encoding": "identity"}
    if api_key is None:
        return plain
    if not api_key.isascii() or not api_key.isprintable() or " " in api_key:
        raise EngineError(
            "the key in the variable that engine.api_key_env names has characters that no HTTP "
            "header can carry; expected printable ASCII without spaces"
        )
    return plain | {"authorization": f"Bearer {api_key}"}


def _wait(headers: Mapping[str, str]) -> float | None:
    """Seconds after which the server wants to be asked again; None where it does not say."""
    said = headers.get("retry-after", "")
    if not said.isdecimal():
        return None
    return float(said) if float(said) <= LONGEST_WAIT_SECONDS else None
