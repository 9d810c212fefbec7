"""A provider that keeps its own bill, and more than twenty ways in which it answers or does not.

What it bills and what it says are two things: it counts tokens for every request it computed,
whether the answer arrives or not. Scripts are drawn from a seed, one a review, so that any number
of reviews can be asked for side by side and each request still has the fault that it was to have.
"""

import json
import random
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any, Final

import pytest
from builders import story
from fake_server import Body, FakeServer, Play, chat, refusal

from agent.config import ModelPrice, PricesSection, ReviewerSection
from agent.errors import ReviewerError
from agent.money.ledger import UNKNOWN, Ledger
from agent.money.statement import LedgerRow
from agent.reviewers import llm
from agent.reviewers.chat import post_chat
from agent.stages.requests import Requests
from agent.store import RunStore

PRICE: Final = ModelPrice(input_usd_per_million=0.3, output_usd_per_million=1.7)
PATIENCE: Final = 1.5
"""Seconds that a request waits whose answer is scripted not to come in time."""
GOOD: Final[dict[str, Any]] = {
    "diagnosis": "responses run on",
    "changes": [{"parameter": "response.stop", "value": ["\nInstruction"], "reason": "ends them"}],
    "predictions": [],
    "distrusted_metrics": [],
    "confidence": 0.7,
    "stop": False,
}
ANSWER: Final = json.dumps(GOOD)
Tokens = tuple[int, int]


def _says(usage: Any, content: str = ANSWER, finish: str = "stop") -> Callable[[Tokens], Play]:
    """Answers, billed as drawn, whatever it says of usage."""
    return lambda tokens: replace(chat(content, usage=usage, finish=finish), billed=tokens)


def _is_honest(content: str = ANSWER, finish: str = "stop") -> Callable[[Tokens], Play]:
    return lambda tokens: replace(chat(content, usage=tokens, finish=finish), billed=tokens)


def _bills(play: Play) -> Callable[[Tokens], Play]:
    """A fault after the work was done: billed all the same."""
    return lambda tokens: replace(play, billed=tokens)


def _is_free(play: Play) -> Callable[[Tokens], Play]:
    return lambda tokens: play


def _twice(tokens: Tokens) -> Play:
    play = _is_honest()(tokens)
    return replace(play, repeat=2)


def _usage_twice(tokens: Tokens) -> Play:
    body = _is_honest()(tokens).body.decode()
    low = '"usage": {"prompt_tokens": 1, "completion_tokens": 1}, "usage"'
    return Play(body.replace('"usage"', low).encode(), billed=tokens)


def _cut_short(tokens: Tokens) -> Play:
    whole = _is_honest()(tokens).body
    size = {"Content-Length": str(len(whole)), "Connection": "close"}
    return Play(whole[: len(whole) // 2], headers=size, billed=tokens)


FAULTS: Final[dict[str, Callable[[Tokens], Play]]] = {
    "answered": _is_honest(),
    "prose": _is_honest("I think you should try stop strings."),
    "cut at the cap": _is_honest(ANSWER[:60], finish="length"),
    "no usage": _says(None),
    "usage of strings": _says({"prompt_tokens": "9", "completion_tokens": "9"}),
    "usage below zero": _says({"prompt_tokens": -5, "completion_tokens": -5}),
    "usage beyond reach": _says({"prompt_tokens": 10**15, "completion_tokens": 10**15}),
    "usage of nothing": _says({"prompt_tokens": 0, "completion_tokens": 0}),
    "usage of fractions": _says({"prompt_tokens": 0.5, "completion_tokens": 0.5}),
    "usage of true": _says({"prompt_tokens": True, "completion_tokens": True}),
    "usage not a number": _says({"prompt_tokens": float("nan"), "completion_tokens": 1}),
    "nothing written": _says({"prompt_tokens": 1, "completion_tokens": 0}),
    "usage twice": _usage_twice,
    "answered twice": _twice,
    "cut short": _cut_short,
    "reset": _bills(Play(reset=True)),
    "server error": _bills(refusal(500)),
    "overloaded": _bills(refusal(529)),
    "gateway timeout": _bills(refusal(504)),
    "request timeout": _bills(refusal(408)),
    "redirect": _bills(Play(b"", 307, {"location": "http://127.0.0.1:1/v1"})),
    "not JSON": _bills(Play(b"<html>")),
    "no completion": _bills(Play(b'{"error": "x"}')),
    "not text": _bills(Play(b"\xff\xfe\x00")),
    "deep": _bills(Play(b"[" * 100_000)),
    "huge": _bills(Play(b"x" * 65_536, repeat=24)),
    "compressed": _bills(Play(b"x", headers={"Content-Encoding": "gzip"})),
    "silence": _bills(Play(wait=30.0)),
    "drip": _bills(Play(b" " * 1000, drip=0.02)),
    "headers drip": _bills(Play(b"{}", drip=0.02, drip_headers=True, headers={"X": "y" * 1000})),
    "bad key": _is_free(refusal(401)),
    "forbidden": _is_free(refusal(403)),
    "no such model": _is_free(refusal(404)),
    "conflict": _is_free(refusal(409)),
    "bad request": _is_free(refusal(400, "context too long")),
    "no such format": _is_free(refusal(400, "json_schema is not supported")),
    "rate limit": _is_free(refusal(429)),
    "rate limit with a wait": _is_free(refusal(429, retry_after="1")),
}
SLOW: Final = frozenset({"silence", "drip", "headers drip"})


@dataclass
class Provider:
    """Scripts of faults by review; call it with a request to learn what to play."""

    faults: Mapping[int, tuple[str, ...]]
    """By review: the fault of each request, the last one repeated."""
    seed: int = 1
    """Of the tokens that are billed."""
    played: dict[int, list[str]] = field(default_factory=dict)
    """By review: faults played so far."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self, review: int) -> str:
        """The fault of the next request of a review."""
        script = self.faults[review]
        return script[min(len(self.played.get(review, ())), len(script) - 1)]

    def __call__(self, body: Body, headers: Mapping[str, str]) -> Play:
        """Play the next fault of the review that ``body`` asks for."""
        review = review_of(body)
        with self.lock:
            fault = self.next(review)
            self.played.setdefault(review, []).append(fault)
            number = len(self.played[review])
        rng = random.Random(f"{self.seed}/{review}/{number}")
        # A tokenizer makes at most a token of every byte, and a server keeps to its cap.
        most = sum(len(message["content"].encode()) for message in body["messages"])
        return FAULTS[fault]((rng.randint(1, most), rng.randint(1, body["max_tokens"])))


def review_of(body: Body) -> int:
    """Which review a request belongs to: its report says so."""
    return int(body["messages"][1]["content"].split()[1])


def prices() -> PricesSection:
    """A price list with the one model that is asked."""
    return PricesSection(reviewers={"m": PRICE})


def ask(url: str, *, ledger: Ledger, store: RunStore, number: int) -> str | None:
    """Ask for one review with real books; how it failed, or None."""
    section = ReviewerSection(kind="llm", model="m", base_url=url, timeout_seconds=180)
    reviewer = llm.LlmReviewer(
        section, prices=prices(), api_key="k" * 20, clock=lambda: 0.0, sleep=lambda seconds: None
    )
    requests = Requests(ledger, store, number)
    try:
        reviewer.review(f"report {number} of many", story()[:1], pay=requests.pay)
    except ReviewerError as error:
        return str(error)
    return None


def impatient(provider: Provider) -> Callable[..., str]:
    """``post_chat``, with little patience for answers that are scripted not to come."""

    def post(endpoint: Any, messages: Any, *, response_format: Any, seconds: float) -> str:
        slow = provider.next(int(messages[1]["content"].split()[1])) in SLOW
        return post_chat(
            endpoint,
            messages,
            response_format=response_format,
            seconds=PATIENCE if slow else seconds,
        )

    return post


def owed(tokens: Tokens | None) -> Fraction:
    """Micro-dollars that the provider asks for, to the last fraction."""
    if tokens is None:
        return Fraction(0)
    read, written = (
        Fraction(str(usd)) for usd in (PRICE.input_usd_per_million, PRICE.output_usd_per_million)
    )
    return tokens[0] * read + tokens[1] * written


@dataclass
class Comparison:
    """The provider's bill against the books, request by request."""

    requests: int = 0
    reservations: int = 0
    longest: int = 0
    """Requests of one review at most."""
    under: Fraction = Fraction(0)
    """Micro-dollars that the provider is owed and the books do not hold."""
    over: int = 0
    """Micro-dollars that the books hold above the bill,"""
    unknown: int = 0
    """all of them in attempts marked as unknown, which come to so much."""
    unmarked: int = 0
    """The part of ``over`` outside of such attempts."""

    def add(self, rows: list[LedgerRow], bills: list[Tokens | None]) -> None:
        """One review."""
        self.reservations += len(rows)
        self.requests += len(bills)
        self.longest = max(self.longest, len(bills), len(rows))
        for row, tokens in zip(rows, bills, strict=False):
            charged, due = row.actual or 0, owed(tokens)
            marked = row.note.startswith(UNKNOWN)
            self.under += max(Fraction(0), due - charged)
            above = max(0, charged - ceil(due))
            self.over += above
            self.unmarked += 0 if marked else above
            self.unknown += charged if marked else 0


def compare(server: FakeServer, ledger: Ledger, store: RunStore) -> Comparison:
    """Every review that ``server`` saw."""
    bills: dict[int, list[Tokens | None]] = {}
    for body, tokens in server.bill:
        bills.setdefault(review_of(body), []).append(tokens)
    found = Comparison()
    for number, billed in bills.items():
        found.add(Requests(ledger, store, number).rows(), billed)
    return found


def without_certificates(patch: pytest.MonkeyPatch) -> None:
    """Read no certificates, which takes 60 ms a request; nothing here is asked over TLS."""
    patch.setattr(ssl.SSLContext, "load_verify_locations", lambda *_, **__: None)


def scratch_store(folder: Path) -> RunStore:
    """A run's folder that holds nothing yet."""
    return RunStore.create(folder, "r")
