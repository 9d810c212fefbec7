"""P14: any fault of a network or a server ends in bounded time, with a review or a hold."""

import random
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from bookkeeping import Clock, in_memory
from broken_http import FAULTS, GIGABYTE, GOOD, HARMLESS, REFUSED, Fault, answer, broken_server
from builders import story
from fake_server import serving
from forked import without_pictures
from provider import prices, without_certificates
from purse import Purse

from agent import runner
from agent.config import ReviewerSection
from agent.config_file import check_config
from agent.errors import ReviewerError
from agent.reviewers import llm
from agent.reviewers.base import ReviewFailed
from agent.reviewers.chat import RequestFailed
from agent.reviewers.llm import MAX_REQUESTS, LlmReviewer
from agent.store import RunStore

memory: Callable[..., Iterator[Path]] = pytest.fixture(in_memory)
ROUNDS = story()[:1]
PROMISED_SECONDS = 180
"""For a review, whatever happens, with the deadline that the program ships with."""
PROSE: Fault = answer(b'{"choices": [{"message": {"content": "I think so."}}]}')
OVERLOADED: Fault = answer(b"{}", "503 X")
PLACES: dict[str, tuple[Fault, ...]] = {
    "first": (),
    "middle": (OVERLOADED,),
    "after an answer": (PROSE,),
    "last": (OVERLOADED, PROSE, OVERLOADED),
}
"""What is answered before the fault."""
AFTER: dict[str, tuple[Fault, ...]] = {"once": (GOOD,), "for good": ()}
"""What is answered after it; nothing means that it stays."""


@dataclass(frozen=True)
class Ending:
    """How one review ended."""

    name: str
    """The fault, and where it was."""
    failed: str | None
    """What the review failed with; None if there was one."""
    seconds: float
    """How long it took."""
    requests: int
    """Whole requests that the server saw."""
    purse: Purse
    """What was reserved and charged."""


def reviewed(name: str, url: str, *, timeout: float) -> tuple[str | None, float, Purse]:
    """Ask for a review; nothing but a review or a ReviewFailed may come of it."""
    section = ReviewerSection(kind="llm", model="m", base_url=url, timeout_seconds=timeout)
    reviewer = LlmReviewer(section, prices=prices(), api_key="k" * 20, sleep=lambda seconds: None)
    purse, failed, began = Purse(), None, time.monotonic()
    try:
        reviewer.review("report", ROUNDS, pay=purse.pay)
    except ReviewFailed as failure:
        failed = str(failure)
    return failed, time.monotonic() - began, purse


def trial(fault: str, place: str, after: str, *, timeout: float) -> Ending:
    """One fault in one place."""
    name = f"{fault}, {place}, {after}"
    if fault == REFUSED:
        with serving([]) as gone:
            url = gone.url
        return Ending(name, *reviewed(name, url, timeout=timeout)[:2], 0, Purse())
    script = (*PLACES[place], FAULTS[fault], *AFTER[after])
    with broken_server(script) as server:
        failed, seconds, purse = reviewed(name, server.url, timeout=timeout)
    return Ending(name, failed, seconds, server.requests, purse)


def every_trial(names: list[str], *, timeout: float) -> list[Ending]:
    """Each fault in each place, some side by side, since most of them only wait."""
    trial("empty", "first", "once", timeout=60)  # imports what a first request imports
    wanted = [(f, p, a) for f in names for p in PLACES for a in AFTER]
    busy = [w for w in wanted if _is_large(w[0])]
    with ThreadPoolExecutor(8) as pool:
        waiting = list(
            pool.map(lambda w: trial(*w, timeout=timeout), [w for w in wanted if w not in busy])
        )
    return [*waiting, *(trial(*w, timeout=timeout) for w in busy)]


def _is_large(fault: str) -> bool:
    return "gigabyte" in fault or "without an end" in fault


def test_every_fault_ends_within_the_deadline(
    effort: Any, figure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_certificates(monkeypatch)
    timeout, slack = effort(sample=1, proof=2, soak=5), 5.0
    every = [*FAULTS, REFUSED]
    names = random.Random(14).sample(every, effort(sample=6, proof=len(every), soak=len(every)))
    endings = every_trial(names, timeout=timeout)
    late = [(e.name, e.seconds) for e in endings if e.seconds > timeout + slack]
    assert late == []
    assert [e.name for e in endings if max(e.requests, len(e.purse.reserved)) > MAX_REQUESTS] == []
    booked = [e for e in endings if len(e.purse.charged) != len(e.purse.reserved)]
    assert booked == [], "every request is settled"
    stays = [e for e in endings if e.name.endswith("for good")]
    harmless = [e for e in stays if e.name.partition(", ")[0] in HARMLESS]
    assert [e.name for e in stays if e.failed is None and e not in harmless] == []
    slowest, shipped = max(e.seconds for e in endings), ReviewerSection().timeout_seconds
    longest = shipped + max(slowest - timeout, 0.0)
    assert longest <= PROMISED_SECONDS
    figure(
        "P14",
        f"{len(names)} faults x {len(PLACES)} places, passing or staying: {len(endings)} reviews, "
        f"of which {sum(e.failed is not None for e in endings)} ended in a hold and the others in "
        f"a review, at most {max(e.requests for e in endings)} requests, the slowest "
        f"{slowest:.2f} s with a deadline of {timeout} s; with the shipped one of {shipped:.0f} s "
        f"that is at most {longest:.1f} s",
    )


def test_a_gigabyte_is_neither_held_nor_waited_for(
    effort: Any, figure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_certificates(monkeypatch)
    every = [name for name in FAULTS if _is_large(name)]
    large = every[: effort(sample=2, proof=len(every), soak=len(every))]
    found = {}
    for name in large:
        with broken_server([FAULTS[name]]) as server:
            tracemalloc.start()
            failed, seconds, _ = reviewed(name, server.url, timeout=2)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert failed is not None, name
        found[name] = (peak, seconds, server.sent)
    most = max(peak for peak, _, _ in found.values())
    sent = max(sent for _, _, sent in found.values())
    assert most < 32 * 2**20, found
    assert sent < GIGABYTE and max(seconds for _, seconds, _ in found.values()) < 7.0, found
    figure(
        "P14",
        f"{len(found)} answers without an end or of a gigabyte: at most {most / 2**20:.1f} MB were "
        f"held, {sent / 2**20:.0f} MB sent before the server was left",
    )


@dataclass
class Network:
    """Requests that take any part of the time that they are given, and fail or say nothing."""

    rng: random.Random
    sent: int = 0
    """Requests so far."""

    def on(self, clock: Clock) -> Callable[..., str]:
        """``post_chat`` on a clock of its own."""

        def post(*_: Any, seconds: float, **__: Any) -> str:
            rng = self.rng
            self.sent += 1
            clock.pass_(seconds * rng.choice([0.0, 0.01, 0.3, rng.random(), 1.0]))
            if rng.random() < 0.3:
                return '{"choices": [{"message": {"content": "hm"}}]}'
            retry, status = rng.random() < 0.8, rng.choice([400, 500])
            failure = RequestFailed("no", retry=retry, billed=True, status=status)
            failure.retry_after = rng.choice([None, 0.0, 1.0, 60.0, 1e9])
            raise failure

        return post


def test_the_clock_of_a_review_never_passes_its_deadline(
    effort: Any, figure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At full length, on a clock of our own: requests take what they are given, waits are taken."""
    longest, most, count = 0.0, 0, effort(sample=100, proof=3_000, soak=30_000)
    for number in range(count):
        clock, network = Clock(), Network(random.Random(f"14/{number}"))
        monkeypatch.setattr(llm, "post_chat", network.on(clock))
        began, section = clock(), ReviewerSection(kind="llm", model="m")
        reviewer = LlmReviewer(
            section, prices=prices(), api_key="k", clock=clock, sleep=clock.pass_
        )
        with pytest.raises(ReviewFailed):
            reviewer.review("report", ROUNDS, pay=Purse().pay)
        longest, most = max(longest, clock() - began), max(most, network.sent)
    assert longest <= ReviewerSection().timeout_seconds + 1e-6 and most <= MAX_REQUESTS
    figure(
        "P14",
        f"on a clock of our own, the shipped deadline of {ReviewerSection().timeout_seconds:.0f} "
        f"s: the longest of {count:,} reviews took {longest:.1f} s, at most {most} requests",
    )


LOOP = ("never answers", "a body of a gigabyte", "reset within the body", "429, an hour", "401")


def test_a_run_holds_and_goes_on(
    memory: Path, effort: Any, figure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole loop: it holds with everything kept, and resume ends as if nothing had been."""
    faults = LOOP[: effort(sample=1, proof=len(LOOP), soak=len(LOOP))]
    without_certificates(monkeypatch)
    without_pictures(monkeypatch.setattr)
    endings = []
    for number, fault in enumerate(faults):
        broken = iter([FAULTS[fault]] * MAX_REQUESTS)
        script: list[Fault] = [lambda peer, broken=broken: next(broken, GOOD)(peer)]  # type: ignore[misc]
        with broken_server(script) as server:
            config = check_config(configured(server.url), source="here")
            with pytest.raises(ReviewerError):
                runner.start(memory, config, f"r{number}", lambda event: None)
            store = RunStore.open(memory, f"r{number}")
            assert store.load_run().status == "held"
            kept = store.load_rounds()
            assert len(kept) == 1 and kept[0].review is None
            broken = iter(())  # the server is mended
            script[0] = GOOD
            endings.append(runner.resume(memory, f"r{number}", lambda event: None).status)
        rounds = store.load_rounds()
        assert rounds[0].metrics == kept[0].metrics and rounds[0].review is not None
        assert rounds[0].review.applied and len(rounds) > 1
    figure(
        "P14",
        f"{len(faults)} runs held by a fault, every round kept, went on after resume: "
        + ", ".join(sorted(set(endings))),
    )


def configured(url: str) -> dict[str, Any]:
    """A run on the scripted engine, reviewed by whoever answers at ``url``."""
    return {
        "engine": {"kind": "scripted"},
        "pilot": {"max_rounds": 2},
        "scale": {"examples": 60},
        "reviewer": {"kind": "llm", "model": "m", "base_url": url, "timeout_seconds": 2.0},
        "prices": {"reviewers": {"m": {"input_usd_per_million": 1, "output_usd_per_million": 2}}},
    }
