"""Loopback completions servers that play a part, and an engine on one of them."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pipeline.engine.base import EngineSpec
from pipeline.engine.server import ServerEngine
from pipeline.types import GenRequest, Sampling

Answer = Callable[[str, dict[str, Any]], Any]
"""From path and body to an object to send, bytes, or a status."""
SAMPLING = Sampling(
    temperature=0.7, max_new_tokens=5, top_p=0.9, repetition_penalty=1.2, stop=("\nInstruction",)
)
MODELS = {"data": [{"id": "base", "max_model_len": 512, "created": 1, "owned_by": "vllm"}]}
USAGE = {"prompt_tokens": 3, "completion_tokens": 4}


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
            status = found if isinstance(found, int) else 200
            content = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}/v1", seen
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


@contextmanager
def engine(answer: Answer, *, models: Any = None, **options: Any) -> Iterator[ServerEngine]:
    """An engine on such a server, which lists one model unless told otherwise."""

    def whole(path: str, body: dict[str, Any]) -> Any:
        return (models or MODELS) if path == "/v1/models" else answer(path, body)

    with server(whole) as (url, seen):
        spec = EngineSpec(kind="server", model="base", base_url=url, api_key="key-1234")
        opened = ServerEngine.open(spec, **options)
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
