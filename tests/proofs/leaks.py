"""Servers that give a key away, and a search for it in whatever a program leaves behind.

The search shares nothing with the masking that it checks: it decodes what looks encoded.
"""

import base64
import binascii
import json
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

from fake_server import Play, chat, refusal
from provider import ANSWER, GOOD

KEY: Final = "sk-canary/7Qz+0123456789-ABCdef=xyz"
"""With characters that look different once they are quoted, escaped or in base64."""
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{16,}")
Headers = Mapping[str, str]


def echo(headers: Headers) -> str:
    """The authorization that a request carried, in every form that servers put it into."""
    sent = headers.get("authorization", "")
    coded = [base64.b64encode((pad + sent).encode()).decode() for pad in ("", "x", "xy")]
    safe = base64.urlsafe_b64encode(sent.encode()).decode()
    slashed = sent.replace("/", "\\/")
    return "; ".join(
        [sent, sent.split()[-1], quote(sent), quote(sent, safe=""), *coded, safe, slashed]
    )


def _told(text: str) -> dict[str, Any]:
    change = {"parameter": text[:190], "value": text, "reason": text[-1900:]}
    diagnosis = f"responses run on. I was sent {text}"
    return {**GOOD, "diagnosis": diagnosis, "changes": [*GOOD["changes"], change], "stop": True}


LEAKS: Final[dict[str, Callable[[Headers], Play]]] = {
    "401 with our headers": lambda h: refusal(401, echo(h)),
    "400 with our headers": lambda h: refusal(400, echo(h)),
    "400 about the format": lambda h: refusal(400, f"json_schema is unknown to {echo(h)}"),
    "429 with our headers": lambda h: refusal(429, echo(h)),
    "500 with our headers": lambda h: refusal(500, echo(h)),
    "500 that cuts the key": lambda h: refusal(500, "x" * 470 + echo(h)),
    "500 as a page": lambda h: Play(f"<html>{echo(h)}</html>".encode(), 500),
    "503 with a wait": lambda h: refusal(503, echo(h), retry_after=h["authorization"]),
    "redirect with the key": lambda h: Play(
        echo(h).encode(), 307, {"location": f"http://x/v1?key={h['authorization'].split()[-1]}"}
    ),
    "redirect with the key quoted": lambda h: Play(
        b"", 302, {"location": f"http://x/v1?key={quote(h['authorization'].split()[-1], safe='')}"}
    ),
    "a header of its own": lambda h: Play(b"{}", 401, {"x-echo": h["authorization"]}),
    "a reset": lambda h: Play(reset=True),
    "a status line": lambda h: Play(b"", 418, {"x-reason": quote(h["authorization"])}),
    "200 that is no JSON": lambda h: Play(echo(h).encode()),
    "200 that is no completion": lambda h: Play(json.dumps({"error": echo(h)}).encode()),
    "200 of prose": lambda h: chat(f"you sent {echo(h)}"),
    "200 with it as a key": lambda h: chat(json.dumps({**GOOD, echo(h): 1})),
    "200 cut short": lambda h: Play(
        echo(h).encode(), headers={"Content-Length": "9999", "Connection": "close"}
    ),
    "200 with usage of it": lambda h: chat(ANSWER[:50], usage={"prompt_tokens": echo(h)}),
}
"""Faults of a reviewer's server; the request's headers are at hand."""
TELLTALE: Final[Callable[[Headers], Play]] = lambda h: chat(json.dumps(_told(echo(h))))  # noqa: E731
"""A good review that repeats the key."""


def _headers(handler: Any) -> Headers:
    return {name.lower(): value for name, value in handler.headers.items()}


def _answers(
    status: int, content: Callable[[Headers], str], **extra: Callable[[Headers], str]
) -> Any:
    """An answer of an engine's server, made from the headers of its request."""

    def write(handler: Any) -> None:
        headers = _headers(handler)
        body = content(headers).encode()
        handler.send_response(status)
        for name, value in extra.items():
            handler.send_header(name, value(headers))
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return write


def _key(headers: Headers) -> str:
    return headers["authorization"].split()[-1]


ENGINE_LEAKS: Final[dict[str, Any]] = {
    "401 with our headers": _answers(401, echo),
    "403 with our headers": _answers(403, lambda h: json.dumps({"error": echo(h)})),
    "500 with our headers": _answers(500, echo),
    "500 that cuts the key": _answers(500, lambda h: "x" * 290 + echo(h)),
    "redirect with the key": _answers(307, echo, location=lambda h: f"http://x/?key={_key(h)}"),
    "redirect with the key quoted": _answers(
        302, lambda h: "", location=lambda h: f"http://x/?key={quote(_key(h), safe='')}"
    ),
    "200 that is no JSON": _answers(200, echo),
    "200 that is a list": _answers(200, lambda h: json.dumps([echo(h)])),
    "models that are none": _answers(200, lambda h: json.dumps({"data": echo(h)})),
    "a model named so": _answers(200, lambda h: json.dumps({"data": [{"id": echo(h)}]})),
}
"""Faults of an engine's server."""


def found_in(folder: Path, texts: Iterable[str]) -> list[str]:
    """Where the key is: files of ``folder`` and its rows, or the number of a text."""
    places = [f"text {n}" for n, text in enumerate(texts) if leaks(text)]
    for name, text in _contents(folder):
        if leaks(text) or leaks(name):
            places.append(name)
    return places


def _contents(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = path.read_bytes()
        yield str(path), content.decode("latin-1")
        if content.startswith(b"SQLite format 3"):
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
                # Values are cut at the borders of pages; a dump has them whole.
                yield f"{path}, dumped", "\n".join(map(_plain, database.iterdump()))


def _plain(statement: str) -> str:
    """A statement of a dump, its blobs (X'..') as text."""
    return re.sub(r"X'([0-9A-F]*)'", lambda m: bytes.fromhex(m[1]).decode("latin-1"), statement)


def leaks(text: str, key: str = KEY) -> bool:
    """Whether ``key`` can be read from ``text``, as it is or decoded."""
    views = [text, unquote(text), text.replace("\\/", "/"), unquote(text.replace("\\/", "/"))]
    views += [part for view in views[:3] for part in _decoded(view)]
    return any(key in view or key[: len(key) * 3 // 4] in view for view in views)


def _decoded(text: str) -> Iterator[str]:
    for run in _BASE64.findall(text):
        for skipped in range(4):
            part = run[skipped:]
            part = part[: len(part) // 4 * 4]
            try:
                yield base64.b64decode(part, "-_" if "-" in part or "_" in part else None).decode(
                    "latin-1"
                )
            except binascii.Error:
                continue
