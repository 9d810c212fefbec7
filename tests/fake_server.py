"""A loopback HTTP server that plays a script: one :class:`Play` a request, the last one repeated.

It is not a model. It answers chat completions with whatever fault a test asks for, and remembers
every request, so that what was on the wire can be compared with what was booked.
"""

import json
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Play:
    """How one request is answered."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    wait: float = 0.0
    """Seconds before the first byte."""
    drip: float = 0.0
    """Seconds between bytes of the body; 0 sends it at once."""
    drip_headers: bool = False
    """Whether header lines drip too."""
    reset: bool = False
    """Close the connection with a reset instead of an answer."""
    repeat: int = 1
    """How often the body is sent, for bodies too large to hold."""


def chat(
    content: str | None, *, usage: Any = (100, 50), finish: str = "stop", **message: Any
) -> Play:
    """A chat completion; ``usage`` is a pair of counts, or sent as it is."""
    if isinstance(usage, tuple):
        usage = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    choice = {"index": 0, "finish_reason": finish}
    choice["message"] = {"role": "assistant", "content": content, **message}
    tree = {"id": "x", "object": "chat.completion", "choices": [choice]}
    return Play(json.dumps(tree if usage is None else {**tree, "usage": usage}).encode())


def refusal(status: int, message: str = "no", **headers: str) -> Play:
    """An error body as OpenAI writes it."""
    body = json.dumps({"error": {"message": message, "type": "x"}}).encode()
    return Play(body, status, {name.replace("_", "-"): value for name, value in headers.items()})


@dataclass
class FakeServer:
    """What tests see of a running server."""

    url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    """Bodies received, in order."""
    headers: list[dict[str, str]] = field(default_factory=list)
    """Their headers, names in lower case."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, plays: Sequence[Play]):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.plays = plays
        self.state = FakeServer(f"http://127.0.0.1:{self.server_port}/v1")
        self.stopping = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gave up is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Tests print nothing."""

    def do_POST(self) -> None:
        state, plays = self.server.state, self.server.plays
        length = int(self.headers.get("content-length", 0))
        state.requests.append(json.loads(self.rfile.read(length)))
        state.headers.append({k.lower(): v for k, v in self.headers.items()})
        play = plays[min(len(state.requests), len(plays)) - 1]
        self.server.stopping.wait(play.wait)
        if play.reset:
            self._reset()
        else:
            self._answer(play)

    def _reset(self) -> None:
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.shutdown(socket.SHUT_RD)
        self.connection.close()

    def _answer(self, play: Play) -> None:
        size = str(len(play.body) * play.repeat)
        lines = {"Content-Type": "application/json", "Content-Length": size, **play.headers}
        self.close_connection = lines.get("Connection") == "close"
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        status = f"HTTP/1.1 {play.status} X\r\n{head}\r\n"
        self._write(status.encode(), play.drip if play.drip_headers else 0.0)
        for _ in range(play.repeat):
            self._write(play.body, play.drip)

    def _write(self, data: bytes, drip: float) -> None:
        if not drip:
            self.wfile.write(data)
            return
        for byte in data:
            if self.server.stopping.is_set():
                return
            self.wfile.write(bytes([byte]))
            time.sleep(drip)


@contextmanager
def serving(plays: Sequence[Play]) -> Iterator[FakeServer]:
    """Serve ``plays`` on a free port of 127.0.0.1."""
    server = _Server(plays)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.state
    finally:
        server.stopping.set()
        server.shutdown()
        thread.join()
        server.server_close()
