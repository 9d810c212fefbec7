"""A server on a bare socket that breaks HTTP in every way that a network can, and counts.

``tests/fake_server.py`` speaks HTTP and lies in what it says; this one writes whatever bytes a
fault wants, at its pace, or none. Every request is read to its end first, so that what is under
test is the answer.
"""

import gzip
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Final

from hostile_replies import good, said

GIGABYTE: Final = 10**9
_BLOCK: Final = b"x" * 65_536


@dataclass
class Peer:
    """The other end of one connection, as a fault sees it."""

    connection: socket.socket
    closing: threading.Event
    """Set when the test is over, so that nothing outlives it."""
    sent: int = 0
    """Bytes written."""

    def send(self, data: bytes) -> None:
        """Write all of it."""
        self.connection.sendall(data)
        self.sent += len(data)

    def forever(self, data: bytes, *, most: int = GIGABYTE) -> None:
        """Write it again and again, up to so many bytes."""
        while self.sent < most and not self.closing.is_set():
            self.send(data)

    def drip(self, data: bytes, seconds: float = 0.05) -> None:
        """Write a byte at a time."""
        for byte in data:
            if self.closing.wait(seconds):
                return
            self.send(bytes([byte]))

    def reset(self) -> None:
        """Close the connection as a crash does."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def hang(self) -> None:
        """Say nothing more, until the other side gives up or the test is over."""
        while not self.closing.wait(0.02):
            with suppress(TimeoutError):
                self.connection.settimeout(0.001)
                if not self.connection.recv(1):
                    return


Fault = Callable[[Peer], None]


def answer(body: bytes, status: str = "200 OK", *headers: str, length: int | None = None) -> Fault:
    """An answer with its length, or with a wrong one."""
    size = len(body) if length is None else length
    head = "\r\n".join((f"HTTP/1.1 {status}", f"Content-Length: {size}", *headers, "", ""))
    return lambda peer: peer.send(head.encode("latin-1") + body)


def _refused(status: str, *headers: str) -> Fault:
    return answer(b'{"error": {"message": "no", "type": "x"}}', status, *headers)


def _head(*lines: str) -> bytes:
    return "\r\n".join(("HTTP/1.1 200 OK", *lines, "", "")).encode()


def _then(data: bytes, *more: Callable[[Peer], None]) -> Fault:
    def play(peer: Peer) -> None:
        peer.send(data)
        for what in more:
            what(peer)

    return play


def _close(peer: Peer) -> None:
    peer.connection.close()


def _half_close(peer: Peer) -> None:
    peer.connection.shutdown(socket.SHUT_WR)
    peer.hang()


def _bomb() -> bytes:
    return gzip.compress(b" " * 10_000_000)


ANSWER: Final = said(good()).encode()
GOOD: Final = answer(ANSWER)
_CHUNKED: Final = _head("Transfer-Encoding: chunked")
_LONG: Final = _head(f"Content-Length: {GIGABYTE}")

FAULTS: Final[dict[str, Fault]] = {
    "hangs up at once": _close,
    "reset before the headers": Peer.reset,
    "reset within the headers": _then(b"HTTP/1.1 200 OK\r\nContent-", Peer.reset),
    "reset within the body": _then(_LONG + ANSWER[:40], Peer.reset),
    "never answers": Peer.hang,
    "half closed": _half_close,
    "half closed within the body": _then(_LONG + ANSWER[:40], _half_close),
    "headers drip": lambda peer: peer.drip(_head("X: " + "y" * 10_000)),
    "body drips": _then(_head("Content-Length: 9999"), lambda peer: peer.drip(b" " * 9999)),
    "chunks drip": _then(_CHUNKED, lambda peer: peer.drip(b"1\r\n \r\n" * 999)),
    "a body of a gigabyte": _then(_LONG, lambda peer: peer.forever(_BLOCK)),
    "a body without an end": _then(_head(), lambda peer: peer.forever(_BLOCK)),
    "chunks without an end": _then(
        _CHUNKED, lambda peer: peer.forever(b"10000\r\n" + _BLOCK + b"\r\n")
    ),
    "tiny chunks without an end": _then(_CHUNKED, lambda peer: peer.forever(b"1\r\n \r\n" * 9999)),
    "one chunk of every byte there is": _then(
        _CHUNKED, lambda peer: peer.forever(b"f" * 15 + b"\r\n" + _BLOCK)
    ),
    "chunk extensions without an end": _then(_CHUNKED, lambda peer: peer.forever(b"1;" + _BLOCK)),
    "trailers without an end": _then(
        _CHUNKED + b"0\r\n", lambda peer: peer.forever(b"X: y\r\n" * 999)
    ),
    "headers without an end": lambda peer: peer.forever(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 999),
    "a header without an end": _then(b"HTTP/1.1 200 OK\r\nX: ", lambda peer: peer.forever(_BLOCK)),
    "continues without an end": lambda peer: peer.forever(b"HTTP/1.1 100 Continue\r\n\r\n" * 999),
    "an error of a gigabyte": _then(
        _LONG.replace(b"200 OK", b"500 X"), lambda peer: peer.forever(_BLOCK)
    ),
    "a gzip bomb": answer(_bomb(), "200 OK", "Content-Encoding: gzip"),
    "an error that is a gzip bomb": answer(_bomb(), "503 X", "Content-Encoding: gzip"),
    "a gzip bomb in its transfer": _then(
        _head("Transfer-Encoding: gzip, chunked") + b"4\r\n" + _bomb()[:4] + b"\r\n0\r\n\r\n"
    ),
    "longer than it says": answer(ANSWER, length=40),
    "shorter than it says": _then(_head("Content-Length: 9999") + ANSWER, _close),
    "shorter than it says, and open": _then(_head("Content-Length: 9999") + ANSWER, Peer.hang),
    "a length below zero": answer(ANSWER, length=-1),
    "two lengths": answer(ANSWER, "200 OK", "Content-Length: 3"),
    "a length that is none": _then(_head("Content-Length: many") + ANSWER, _close),
    "garbage for a status": _then(b"\x00\xff\xfe garbage \r\n\r\n", _close),
    "a status of words": answer(ANSWER, "okay"),
    "a status out of range": answer(ANSWER, "999 X"),
    "a version to come": _then(b"HTTP/9.9 200 OK\r\n\r\n", _close),
    "an older protocol": _then(b"SSH-2.0-OpenSSH_9.9\r\n", Peer.hang),
    "TLS on a plain port": _then(b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76" + bytes(122), _close),
    "another protocol offered": _then(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", Peer.hang
    ),
    "no content": _then(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "not modified": _then(b"HTTP/1.1 304 Not Modified\r\n\r\n"),
    "a redirect to itself": answer(b"", "307 X", "Location: /v1/chat/completions"),
    "a redirect elsewhere": answer(b"", "308 X", "Location: http://127.0.0.1:1/v1"),
    "a redirect to nowhere": answer(b"", "302 X", "Location: \xff"),
    "401": _refused("401 X"),
    "403": _refused("403 X"),
    "404": _refused("404 X"),
    "408": _refused("408 X"),
    "409": _refused("409 X"),
    "429": _refused("429 X"),
    "429, an hour": _refused("429 X", "Retry-After: 3600"),
    "429, a date to come": _refused("429 X", f"Retry-After: {formatdate(4e9, usegmt=True)}"),
    "429, a date gone by": _refused("429 X", f"Retry-After: {formatdate(1e9, usegmt=True)}"),
    "429, a date that is none": _refused("429 X", "Retry-After: Wed, 99 Foo 99999"),
    "429, a wait without end": _refused("429 X", "Retry-After: " + "9" * 400),
    "429, a wait below zero": _refused("429 X", "Retry-After: -1e9"),
    "500": _refused("500 X"),
    "502, a page": answer(b"<html>Bad Gateway</html>", "502 X", "Content-Type: text/html"),
    "503": _refused("503 X"),
    "504": _refused("504 X"),
    "not UTF-8": answer(b"\xff\xfe\x00" * 99),
    "an error not in UTF-8": answer(b"\xff\xfe\x00" * 99, "500 X"),
    "an error in a made-up coding": answer(b"x", "500 X", "Content-Type: text/plain; charset=\x00"),
    "empty": answer(b""),
    "a page": answer(b"<html>Sign in</html>", "200 OK", "Content-Type: text/html"),
    "events": answer(b"data: {}\n\ndata: [DONE]\n\n", "200 OK", "Content-Type: text/event-stream"),
    "nested": answer(b"[" * 100_000),
    "two answers at once": lambda peer: (answer(ANSWER)(peer), answer(ANSWER)(peer))[0],
}
"""Every fault, by name."""
HARMLESS: Final = frozenset({"two answers at once"})
"""Answers that HTTP takes; they are here since they must not be booked twice."""
REFUSED: Final = "nobody listens"
"""The one fault that is no answer."""


@dataclass
class Broken:
    """What a test sees of a running server."""

    port: int
    requests: int = 0
    """Whole requests that arrived."""
    sent: int = 0
    """Bytes that were written in all."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        """What the reviewer is told."""
        return f"http://127.0.0.1:{self.port}/v1"


@contextmanager
def broken_server(script: Sequence[Fault]) -> Iterator[Broken]:
    """Serve ``script``, one fault a request, the last one repeated."""
    listening = socket.create_server(("127.0.0.1", 0))
    closing, state = threading.Event(), Broken(listening.getsockname()[1])
    threads: list[threading.Thread] = []

    def accept() -> None:
        while not closing.is_set():
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            thread = threading.Thread(target=_talk, args=(connection, script, state, closing))
            threads.append(thread)
            thread.start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield state
    finally:
        closing.set()
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        accepting.join(10)
        for thread in threads:
            thread.join(10)


def _talk(
    connection: socket.socket, script: Sequence[Fault], state: Broken, closing: threading.Event
) -> None:
    peer = Peer(connection, closing)
    with connection, suppress(OSError):
        connection.settimeout(10)
        while _request(connection):
            with state.lock:
                fault = script[min(state.requests, len(script) - 1)]
                state.requests += 1
            fault(peer)
    with state.lock:
        state.sent += peer.sent


def _request(connection: socket.socket) -> bool:
    """Read one whole request; whether there was one."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65_536)
        if not more:
            return False
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").lower().split("\r\n")
    length = int(next(x for x in lines if x.startswith("content-length:")).partition(":")[2])
    while len(rest) < length:
        rest += connection.recv(65_536)
    json.loads(rest)
    return True
