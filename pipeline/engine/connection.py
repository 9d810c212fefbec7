"""One completions server over HTTP: a JSON body out, a JSON object back, many at a time.

Every way in which a request can end without an answer becomes an EngineError that names the server
and what to do; nothing is tried twice here. What bodies mean is left to the dialects.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from pipeline.errors import EngineError

CONCURRENCY: Final = 16
"""Requests on the wire at once."""
TIMEOUT_SECONDS: Final = 300.0
"""Longest silence of the server within one request."""
_QUOTED: Final = 300
_In = TypeVar("_In")
_Out = TypeVar("_Out")


class Refused(EngineError):
    """The server answered with an error status."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class Connection:
    """An OpenAI-compatible server and the name of a model there."""

    def __init__(
        self, base_url: str, *, model: str, api_key: str | None, timeout: float = TIMEOUT_SECONDS
    ) -> None:
        """A client of ``base_url``, which ends in ``/v1``; nothing is sent yet."""
        from openai import OpenAI

        self.base_url = base_url.rstrip("/")
        self.root = self.base_url.removesuffix("/v1")
        self.model = model
        self._timeout = timeout
        self._key = api_key
        self._client = OpenAI(
            api_key=api_key or "none", base_url=self.base_url, max_retries=0, timeout=timeout
        )

    def post(self, url: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The server's answer to a JSON body.

        Raises:
            EngineError: if there is none, or it is not a JSON object.
        """
        import httpx2

        return self._read(
            url, lambda: self._client.post(url, cast_to=httpx2.Response, body=dict(body))
        )

    def get(self, url: str) -> dict[str, Any]:
        """The server's answer to a question without a body; errors as in :meth:`post`."""
        import httpx2

        return self._read(url, lambda: self._client.get(url, cast_to=httpx2.Response))

    def close(self) -> None:
        """Close the sockets."""
        self._client.close()

    def _read(self, url: str, send: Callable[[], Any]) -> dict[str, Any]:
        import openai

        try:
            content: bytes = send().content
        except openai.APITimeoutError as error:
            raise EngineError(
                f"the server at {self.base_url} was silent for {self._timeout:g} s; see its log, "
                f"or lower max_new_tokens"
            ) from error
        except openai.APIConnectionError as error:
            why = self._quote(str(error.__cause__ or error))
            raise EngineError(
                f"no answer from {self.base_url} ({why}); start the server, or set engine.base_url"
            ) from error
        except openai.APIStatusError as error:
            found = self._quote(error.response.text)
            message = f"the server at {self.base_url} refused {url}: {error.status_code} {found}"
            raise Refused(message, status=error.status_code) from error
        return self._object(content)

    def _object(self, content: bytes) -> dict[str, Any]:
        try:
            found = json.loads(content)
        except (ValueError, RecursionError) as error:
            found = error
        if not isinstance(found, dict):
            text = self._quote(content.decode("utf-8", "replace"))
            raise EngineError(
                f"the server at {self.base_url} answered {text}; expected a JSON object: is it an "
                f"OpenAI-compatible server?"
            )
        return found

    def _quote(self, text: str) -> str:
        """Text of the server for a message: short, printable, and without our key."""
        clean = text.replace(self._key, "***") if self._key else text
        return repr(clean[:_QUOTED])


def in_parallel(work: Callable[[_In], _Out], items: Sequence[_In]) -> list[_Out]:
    """Results in the order of ``items``; after a failure nothing further is begun."""
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        return list(pool.map(work, items))


def field(tree: Mapping[str, Any], name: str, kind: type[_Out]) -> _Out:
    """A field of an answer, of the type that it must have.

    Raises:
        EngineError: if it is missing or of another type.
    """
    value = tree.get(name)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise EngineError(
            f"the server's answer has {name} = {value!r:.100}; expected {kind.__name__}"
        )
    return value
