"""P3, P4, P5, P20: what a provider bills is booked, every request is reserved, nothing leaks."""

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from bookkeeping import in_memory, open_books
from builders import story
from fake_server import FakeServer, chat, serving
from provider import (
    ANSWER,
    FAULTS,
    PRICE,
    Provider,
    ask,
    compare,
    impatient,
    prices,
    scratch_store,
    without_certificates,
)
from pydantic import ValidationError

from agent.config import ModelPrice, PricesSection, ReviewerSection
from agent.errors import AgentError, BudgetError, ConfigError, ReviewerError
from agent.money.audit import audit
from agent.money.ledger import UNKNOWN, Ledger
from agent.reviewers import choose_reviewer, llm
from agent.reviewers.llm import MAX_REQUESTS, LlmReviewer
from agent.stages.requests import Requests

memory: Callable[..., Iterator[Path]] = pytest.fixture(in_memory)
CAP = 10**12
THREADS = 6


def campaign(
    folder: Path, faults: dict[int, tuple[str, ...]], patch: pytest.MonkeyPatch
) -> tuple[FakeServer, Ledger, Any]:
    """Ask for every review of ``faults``, some side by side; the server, the books, the folder."""
    ledger, store, provider = open_books(folder, CAP), scratch_store(folder), Provider(faults)
    patch.setattr(llm, "post_chat", impatient(provider))
    without_certificates(patch)
    with serving(provider) as server, ThreadPoolExecutor(THREADS) as pool:

        def one(number: int) -> str | None:
            return ask(server.url, ledger=ledger, store=store, number=number)

        list(pool.map(one, faults))
        # A request that nobody waits for any more may still be on its way.
        server.wait_for(sum(len(Requests(ledger, store, n).rows()) for n in faults))
    return server, ledger, store


def test_what_the_provider_bills_is_never_under_counted(
    memory: Path, effort: Any, figure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = effort(sample=60, proof=1_000, soak=10_000)
    rng = random.Random(3)
    faults = {
        number: tuple(rng.choice(sorted(FAULTS)) for _ in range(MAX_REQUESTS))
        for number in range(calls)
    }
    server, ledger, store = campaign(memory, faults, monkeypatch)
    found = compare(server, ledger, store)
    assert found.requests >= calls
    assert found.under == 0
    assert found.unmarked == 0 and found.over <= found.unknown
    assert sum(total.unknown for total in ledger.by_stage()) == found.unknown, "and shown so"
    assert found.unknown > 0 and audit(ledger.database) == ()
    figure(
        "P3",
        f"{found.requests:,} calls over {len(FAULTS)} kinds of answer and fault: under-count "
        f"{found.under} micro-dollars; over-count {found.over:,} of the {found.unknown:,} "
        f"micro-dollars marked unknown, {found.unmarked} outside of them",
    )
    assert found.requests == found.reservations and found.longest <= MAX_REQUESTS
    figure(
        "P4",
        f"{found.requests:,} requests on the wire, {found.reservations:,} reservations, over "
        f"{len(faults):,} reviews of mixed faults; at most {found.longest} for one review",
    )


def test_every_fault_alone_has_a_reservation_for_each_request(
    memory: Path, effort: Any, figure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = effort(sample=1, proof=5, soak=50)
    kinds = sorted(FAULTS)
    faults = {n: (kinds[n % len(kinds)],) for n in range(len(kinds) * times)}
    server, ledger, store = campaign(memory, faults, monkeypatch)
    found = compare(server, ledger, store)
    seen = {fault: 0 for fault in kinds}
    for number, (fault,) in faults.items():
        rows = Requests(ledger, store, number).rows()
        assert 1 <= len(rows) <= MAX_REQUESTS, fault
        assert all(row.state != "pending" for row in rows), fault
        seen[fault] += len(rows)
    assert found.requests == found.reservations == sum(seen.values())
    assert found.under == found.unmarked == 0
    assert seen["reset"] == seen["server error"] == MAX_REQUESTS * times, "faults that are retried"
    figure(
        "P4",
        f"{len(kinds)} faults alone: {found.requests} requests on the wire, {found.reservations} "
        f"reservations; at most {found.longest} for one review",
    )


PRICELESS: dict[str, tuple[str, dict[str, str]]] = {
    "no price list": ("m", {}),
    "another model's price": ("m", {"n": "fine"}),
    "another case": ("M", {"m": "fine"}),
    "a space more": ("m ", {"m": "fine"}),
    "a dated name": ("m-2026-01-01", {"m": "fine"}),
    "a family": ("m", {"m*": "fine"}),
}
PRICES: dict[str, Any] = {
    "unknown output price": {"input_usd_per_million": 1.0},
    "no number": {"input_usd_per_million": "free", "output_usd_per_million": 1.0},
    "below zero": {"input_usd_per_million": -1.0, "output_usd_per_million": 1.0},
    "not a number": {"input_usd_per_million": float("nan"), "output_usd_per_million": 1.0},
    "infinite": {"input_usd_per_million": 1.0, "output_usd_per_million": float("inf")},
    "true": {"input_usd_per_million": True, "output_usd_per_million": 1.0},
    "null": {"input_usd_per_million": None, "output_usd_per_million": 1.0},
}
USAGES = [kind for kind in sorted(FAULTS) if "usage" in kind or kind == "nothing written"]


def refused(work: Callable[[], Any]) -> bool:
    try:
        work()
    except (ConfigError, ValidationError):
        return True
    return False


def unpriced(model: str, known: dict[str, str]) -> bool:
    section = ReviewerSection(kind="llm", model=model, base_url="http://127.0.0.1:9/v1")
    listed = PricesSection(reviewers=dict.fromkeys(known, PRICE))
    return refused(lambda: choose_reviewer(section, listed, {"OPENAI_API_KEY": "k" * 20}))


def test_unknown_model_price_or_usage_is_refused_or_charged_in_full(
    memory: Path, figure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = {name: unpriced(*case) for name, case in PRICELESS.items()}
    values = {
        name: refused(lambda v=value: ModelPrice.model_validate(v))  # type: ignore[misc]
        for name, value in PRICES.items()
    }
    assert not unpriced("m", {"m": "fine"}), "a model with a price is taken"
    server, ledger, store = campaign(
        memory, {n: (kind,) for n, kind in enumerate(USAGES)}, monkeypatch
    )
    usages = {}
    for number, kind in enumerate(USAGES):
        rows = Requests(ledger, store, number).rows()
        full = [row.actual == row.worst_case and row.note == UNKNOWN for row in rows]
        usages[kind] = bool(full) and all(full)
    found = models | values | usages
    assert len(found) == len(models) + len(values) + len(usages) >= 15
    assert [name for name, closed in found.items() if not closed] == []
    figure(
        "P5",
        f"reviewer: {sum(found.values())} of {len(found)} cases of unknown model, price or usage "
        "refused or charged in full",
    )


def test_a_request_beyond_the_cap_is_not_sent(memory: Path) -> None:
    """The second one here: the first was charged in full."""
    store = scratch_store(memory)
    with serving([chat("prose", usage=None), chat(ANSWER)]) as server:
        section = ReviewerSection(kind="llm", model="m", base_url=server.url)
        reviewer = LlmReviewer(section, prices=prices(), api_key="k" * 20)
        ledger = open_books(memory, 12_000)
        requests = Requests(ledger, store, 1)
        with pytest.raises(BudgetError):
            reviewer.review("report 1", story()[:1], pay=requests.pay)
    assert len(server.requests) == len(requests.rows()) == 1
    assert ledger.totals().possible <= 12_000


def test_where_nobody_listens_nothing_is_owed(memory: Path) -> None:
    with serving([]) as server:
        url = server.url
    ledger, store = open_books(memory, CAP), scratch_store(memory)
    told = ask(url, ledger=ledger, store=store, number=1)
    assert told is not None and "ConnectError" in told
    assert [row.state for row in Requests(ledger, store, 1).rows()] == ["void"] * MAX_REQUESTS
    assert isinstance(ReviewerError(told), AgentError) and ledger.totals().possible == 0
