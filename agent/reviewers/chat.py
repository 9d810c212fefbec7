"""One chat completion over HTTP, bounded in time and size, with what it can have cost.

Chat Completions is the common subset of OpenAI, vLLM, llama.cpp and Ollama. The one idea: every
ending is classified once, here, by two questions: may it be tried again, and may it have been
billed? What comes back is rid of our key before anybody sees it. Reading the body is
``agent/reviewers/reply.py``'s; retries and budgets are ``agent/reviewers/llm.py``'s.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

from agent.reviewers.tariff import Message
from pipeline.redact import Redactor
from prompts.render import inline

if TYPE_CHECKING:
    import httpx2
    import openai

_MAX_BODY_BYTES: Final = 1024 * 1024
_CONNECT_SECONDS: Final = 10.0
_RETRYABLE: Final = frozenset({408, 409, 429})


Cap = Literal["max_tokens", "max_completion_tokens"]
"""OpenAI's own models refuse the former; most other servers know nothing else."""


@dataclass(frozen=True, slots=True, repr=False)
class Endpoint:
    """Where requests go. It has no repr, since it holds the key."""

    base_url: str
    """Address up to and including ``/v1``."""
    api_key: str
    """Sent as the bearer token."""
    model: str
    """Name of the model there."""
    max_output_tokens: int
    """Token cap of one answer."""
    cap: Cap = "max_tokens"
    """What the server calls it."""


class RequestFailed(Exception):
    """A request without a reply. Raised to :mod:`agent.reviewers.llm`, which turns it around."""

    def __init__(
        self, message: str, *, retry: bool, billed: bool, status: int | None = None
    ) -> None:
        super().__init__(message)
        self.retry = retry
        """Whether another attempt may succeed."""
        self.billed = billed
        """Whether it may have been billed: its outcome is unknown, so it is charged in full."""
        self.status = status
        """HTTP status, if there was one."""
        self.retry_after: float | None = None
        """Seconds that the server asked to wait."""


class _BodyTooLarge(Exception):
    """A body beyond the limit, or one that hides its size."""


def post_chat(
    endpoint: Endpoint,
    messages: Sequence[Message],
    *,
    response_format: Mapping[str, Any] | None,
    seconds: float,
) -> str:
    """Send one request, once, and return the body of its answer, all within ``seconds``.

    Raises:
        RequestFailed: for every other ending, classified.
    """
    with _loop() as loop:
        body = loop.run_until_complete(_send(endpoint, messages, response_format, seconds))
    return Redactor(endpoint.api_key)(body)


@contextmanager
def _loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop that waits for nobody when it ends.

    ``asyncio.run`` would wait for its threads, and one that looks up a name has no deadline.
    """
    loop = asyncio.new_event_loop()
    try:
        yield loop
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def _send(
    endpoint: Endpoint,
    messages: Sequence[Message],
    response_format: Mapping[str, Any] | None,
    seconds: float,
) -> str:
    import httpx2
    import openai

    http = httpx2.AsyncClient(
        timeout=httpx2.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS)),
        event_hooks={"response": [_bound_body]},
        follow_redirects=False,
    )
    client = openai.AsyncOpenAI(
        api_key=endpoint.api_key, base_url=endpoint.base_url, max_retries=0, http_client=http
    )
    try:
        async with client, asyncio.timeout(seconds):
            raw = await client.chat.completions.with_raw_response.create(
                model=endpoint.model,
                messages=list(messages),  # type: ignore[arg-type]
                extra_headers={"Accept-Encoding": "identity"},
                **_options(endpoint, response_format),
            )
            return raw.content.decode("utf-8", "replace")
    except openai.APIStatusError as error:
        raise _status_failure(error, Redactor(endpoint.api_key)) from None
    except openai.APIConnectionError as error:
        raise _connection_failure(error, Redactor(endpoint.api_key)) from None
    except _BodyTooLarge as error:
        raise RequestFailed(str(error), retry=False, billed=True) from None
    except TimeoutError:
        message = f"no complete answer within {seconds:.0f} s"
        raise RequestFailed(message, retry=False, billed=True) from None


def _options(endpoint: Endpoint, response_format: Mapping[str, Any] | None) -> dict[str, Any]:
    options: dict[str, Any] = {endpoint.cap: endpoint.max_output_tokens}
    if response_format is not None:
        options["response_format"] = response_format
    return options


async def _bound_body(response: "httpx2.Response") -> None:
    import httpx2

    if response.headers.get("content-encoding", "identity") != "identity":
        raise _BodyTooLarge("the server compressed its answer, which hides its size")
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    whole: httpx2.AsyncByteStream = response.stream

    class Bounded(httpx2.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            size = 0
            async for chunk in whole:
                size += len(chunk)
                if size > _MAX_BODY_BYTES:
                    raise _BodyTooLarge(f"an answer of more than {_MAX_BODY_BYTES:,} bytes")
                await asyncio.sleep(0)  # thousands of chunks in one packet leave the clock no turn
                yield chunk

        async def aclose(self) -> None:
            await whole.aclose()

    response.stream = Bounded()


def _status_failure(error: "openai.APIStatusError", redacted: Redactor) -> RequestFailed:
    status = error.status_code
    said = redacted(error.response.text)
    if 300 <= status < 400:
        said = _redirected(redacted(error.response.headers.get("location", "")))
    failure = RequestFailed(
        f"status {status}: {inline(said, 500)}",
        retry=status in _RETRYABLE or status >= 500,
        billed=not 400 <= status < 500 or status == 408,
        status=status,
    )
    failure.retry_after = _seconds(error.response.headers.get("retry-after"))
    return failure


def _redirected(location: str) -> str:
    """Why a redirect is an ending; only the host is shown, since the rest could hold a secret."""
    try:
        host = urlsplit(location).hostname or "another path of the same server"
    except ValueError:
        host = "an address that makes no sense"
    return (
        f"it points to {host}, but redirects are not followed, since they would take the key "
        "there: set reviewer.base_url to the address itself; charged in full, since the server "
        "does not say whether it did the work"
    )


def _connection_failure(error: "openai.APIConnectionError", redacted: Redactor) -> RequestFailed:
    import httpx2

    cause = error.__cause__
    unsent = isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout)
    kind = type(cause).__name__ if cause else type(error).__name__
    text = f"{kind}: {inline(redacted(str(cause or error)), 300)}"
    return RequestFailed(text, retry=True, billed=not unsent)


def _seconds(header: str | None) -> float | None:
    """A Retry-After header in seconds from now; None if there is none or it makes no sense."""
    if header is None:
        return None
    try:
        if header.strip().isdecimal():
            return float(header)
        when = parsedate_to_datetime(header)
    except (ValueError, OverflowError):
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
