"""A loopback HTTP server that plays a script: one :class:`Play` a request, the last one repeated.

It is not a model. It answers chat completions with whatever fault a test asks for, remembers every
request, and keeps its own bill, so that what was on the wire, and what the provider holds it is
owed, can be compared with what was booked.
"""

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    billed: tuple[int, int] | None = None
    """Prompt and completion tokens that the provider bills for it; None is not billed."""


Body = dict[str, Any]
Script = Sequence[Play] | Callable[[Body, Mapping[str, str]], Play]
"""What is played: one after the other, or as a function of a request's body and headers."""


def chat(content: Any, *, usage: Any = (100, 50), finish: str = "stop", **message: Any) -> Play:
    """A chat completion; ``usage`` is a pair of counts, or sent as it is, as ``content`` is."""
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
    bill: list[tuple[Body, tuple[int, int] | None]] = field(default_factory=list)
    """Every request with the tokens it is billed for, noted before anything is answered."""
    arrived: threading.Condition = field(default_factory=threading.Condition)
    """Notified whenever a request was billed."""

    def wait_for(self, count: int, seconds: float = 30.0) -> bool:
        """Whether ``count`` requests have been billed within ``seconds``."""
        with self.arrived:
            return self.arrived.wait_for(lambda: len(self.bill) >= count, seconds)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, plays: Script):
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
        state = self.server.state
        length = int(self.headers.get("content-length", 0))
        body: Body = json.loads(self.rfile.read(length))
        headers = {k.lower(): v for k, v in self.headers.items()}
        with state.arrived:
            state.requests.append(body)
            state.headers.append(headers)
            play = self._play(body, headers)
            state.bill.append((body, play.billed))
            state.arrived.notify_all()
        self.server.stopping.wait(play.wait)
        if play.reset:
            self._reset()
        else:
            self._answer(play)

    def _play(self, body: Body, headers: Mapping[str, str]) -> Play:
        plays = self.server.plays
        if callable(plays):
            return plays(body, headers)
        return plays[min(len(self.server.state.requests), len(plays)) - 1]

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
def serving(plays: Script) -> Iterator[FakeServer]:
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
