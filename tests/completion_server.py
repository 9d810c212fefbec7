"""Loopback completions servers that play a part, and an engine on one of them."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from pipeline.engine.base import EngineSpec
from pipeline.engine.served.probes import Abilities
from pipeline.engine.served.server import ServerEngine
from pipeline.types import GenRequest, Sampling

Answer = Callable[[str, dict[str, Any]], Any]
"""From path and body to an object to send, bytes, a status, a status with headers, or a function
that writes to the handler itself."""
SAMPLING = Sampling(
    temperature=0.7, max_new_tokens=5, top_p=0.9, repetition_penalty=1.2, stop=("\nInstruction",)
)
MODELS = {"data": [{"id": "base", "max_model_len": 512, "created": 1, "owned_by": "vllm"}]}
USAGE = {"prompt_tokens": 3, "completion_tokens": 4}


class _HTTP(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def server_bind(self) -> None:
        """Without the look-up of a name, which may ask a server far away."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is part of the play."""


@contextmanager
def server(answer: Answer) -> Iterator[tuple[str, list[tuple[str, dict[str, Any]]]]]:
    """A server on loopback that answers as told, and what it was sent."""
    seen: list[tuple[str, dict[str, Any]]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            self._send(answer(self.path, {}))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            seen.append((self.path, body | {"authorization": self.headers["authorization"]}))
            self._send(answer(self.path, body))

        def _send(self, found: Any) -> None:
            if callable(found):
                self.close_connection = True
                with suppress(OSError):
                    found(self)
                return
            status, headers = found if isinstance(found, tuple) else (found, {})
            status = status if isinstance(status, int) else 200
            content = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    http = _HTTP(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}/v1", seen
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


@contextmanager
def engine(
    answer: Answer,
    *,
    models: Any = None,
    scored: bool = False,
    abilities: Abilities | None = Abilities(),  # noqa: B008
    **options: Any,
) -> Iterator[ServerEngine]:
    """An engine on such a server, which lists one model unless told otherwise.

    It is taken at its word: nothing is probed. Only with ``scored`` does it answer while the engine
    finds out what can be scored.
    """
    opening = True

    def whole(path: str, body: dict[str, Any]) -> Any:
        if path == "/v1/models":
            return models or MODELS
        return 404 if opening and not scored and abilities else answer(path, body)

    with server(whole) as (url, seen):
        spec = EngineSpec(
            kind="server", model="base", base_url=url, api_key="key-1234",
            concurrency=options.pop("concurrency", 32),
        )  # fmt: skip
        opened = ServerEngine.open(spec, abilities=abilities, **options)
        opening = False
        seen.clear()
        opened.seen = seen  # type: ignore[attr-defined]
        try:
            yield opened
        finally:
            opened.close()


def request(suffix: str = "Say hi:", **changes: Any) -> GenRequest:
    return GenRequest("P ", suffix, **({"sampling": SAMPLING, "seed": 2**40 + 7} | changes))


def choice(**fields: Any) -> dict[str, Any]:
    told = {"index": 0, "text": " hi", "finish_reason": "stop", "stop_reason": None}
    return {"choices": [told | fields], "usage": USAGE}
