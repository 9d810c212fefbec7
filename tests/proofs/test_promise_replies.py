"""P13: no reply of a reviewer crashes the loop or leaves the bounds."""

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from bookkeeping import in_memory, open_books
from bounds import changed, trespasses
from builders import story
from fake_server import Play, serving
from forked import forks
from hostile_replies import KINDS, Worst, body, good, put, replies, said, wrong_values
from hostile_runs import trespassing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from provider import prices, review_of, scratch_store, without_certificates

from agent.config import ReviewerSection
from agent.errors import ReviewerError
from agent.guard import guard
from agent.review_records import Review
from agent.reviewers.base import ReviewFailed
from agent.reviewers.llm import MAX_REQUESTS, LlmReviewer
from agent.reviewers.reply import read_reply
from agent.stages.requests import Requests
from pipeline.params import TUNABLE, GenParams

memory: Callable[..., Iterator[Path]] = pytest.fixture(in_memory)
ROUNDS = story()[:1]
MAX_CHANGES = 4
SLOWEST_SECONDS = 5.0
"""Of CPU for one reply, whatever it holds."""


def review_in(text: str) -> Review | None:
    """The review that the program finds in a body; None if it says why there is none."""
    try:
        return read_reply(text).review()
    except (ReviewerError, ValueError) as error:
        assert str(error)
        return None


def setting(rng: random.Random) -> GenParams:
    """Any setting that a round may have."""
    values: dict[str, Any] = {}
    for tunable in TUNABLE.values():
        if tunable.kind in {"float", "int"}:
            assert tunable.low is not None and tunable.high is not None
            low, high = (-3, 3) if "margin" in tunable.name else (tunable.low, tunable.high)
            value = rng.choice([low, high, rng.uniform(low, high)])
            values[tunable.name] = int(value) if tunable.kind == "int" else float(value)
        elif tunable.kind == "choice":
            values[tunable.name] = rng.choice(tunable.choices)
    values["response.stop"] = rng.choice([(), ("\n###",), ("\nInstruction", "\nQ:")])
    return GenParams().replace(values)


@dataclass
class Tally:
    """What came of replies."""

    replies: int = 0
    reviews: int = 0
    applied: int = 0
    wrong: list[str] = field(default_factory=list)
    """Replies that did more than their kind may."""
    outside: list[str] = field(default_factory=list)
    """Changes that left the bounds."""
    slowest: float = 0.0
    """Seconds of CPU."""
    kinds: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, worst: Worst, text: str, rng: random.Random) -> None:
        """Send one reply the whole way, from a body to a setting."""
        began = time.process_time()
        review = review_in(text)
        self.replies += 1
        self.kinds[kind] += 1
        if review is not None:
            self.reviews += 1
            self._apply(kind, worst, review, rng)
        self.slowest = max(self.slowest, time.process_time() - began)
        if review is not None and worst == "no review":
            self.wrong.append(f"{kind}: {text[:300]}")

    def _apply(self, kind: str, worst: Worst, review: Review, rng: random.Random) -> None:
        any_setting = worst == "within bounds"
        before = setting(rng) if any_setting else GenParams()
        tried = [before, *(setting(rng) for _ in range(rng.randrange(3)))]
        margins = ("critic.instruction_margin", "critic.pair_margin")
        floors = {m: rng.uniform(-3, 3) for m in margins if any_setting and rng.random() < 0.5}
        out = guard(review, before, max_changes=MAX_CHANGES, tried=tried, margin_floors=floors)
        assert len(out.applied) + len(out.refused) == len(review.changes)
        assert all(refused.why for refused in out.refused)
        self.applied += len(out.applied)
        self.outside += trespasses(
            before, out.params, most=MAX_CHANGES, floors=floors, tried=tried[1:]
        )
        if {a.parameter for a in out.applied} != set(changed(before, out.params)):
            self.wrong.append(f"{kind}: applied is not what changed: {out}")
        if worst == "no change" and out.applied:
            self.wrong.append(f"{kind}: applied {out.applied}")


def test_no_reply_crashes_or_leaves_the_bounds(effort: Any, figure: Any) -> None:
    count = effort(sample=400, proof=10_000, soak=100_000)
    tally, rng = Tally(), random.Random(13)
    for kind, worst, text in replies(count, seed=13):
        tally.add(kind, worst, text, rng)
    text = json.dumps(good())
    for end in range(len(text)):
        tally.add("cut at every byte", "no review", body(text[:end]), rng)
        tally.add("cut at every byte", "no review", body(text)[: end + 40], rng)
    for wrong in wrong_values():
        tally.add("every wrong value", "no change", wrong, rng)
    assert tally.wrong == []
    assert tally.outside == []
    assert tally.slowest < SLOWEST_SECONDS
    assert tally.applied > count // 100, "some must get through, or nothing is proved"
    figure(
        "P13",
        f"{tally.replies:,} replies of {len(tally.kinds)} kinds: 0 crashes, {tally.reviews:,} "
        f"could be read, {tally.applied:,} changes were applied, {len(tally.outside)} of them "
        f"outside the bounds or the closed list; at most {tally.slowest:.2f} s for one",
    )


def test_every_kind_is_asked_for() -> None:
    assert {kind for kind, _, _ in replies(len(KINDS), seed=1)} == set(KINDS)
    assert review_in(said(good())) is not None, "what is not hostile is taken"


LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
SHALLOW = LEAVES | st.lists(LEAVES, max_size=9) | st.dictionaries(st.text(), LEAVES, max_size=3)
ANY_JSON = SHALLOW | st.lists(SHALLOW, max_size=3) | st.dictionaries(st.text(), SHALLOW, max_size=3)
NAMES = st.sampled_from([*TUNABLE, "engine.model"]) | st.text()
CHANGES = st.lists(
    st.fixed_dictionaries({"parameter": NAMES, "value": ANY_JSON, "reason": st.text()}), max_size=6
)


def test_any_value_for_any_parameter_stays_within_the_bounds(effort: Any, figure: Any) -> None:
    many = effort(sample=60, proof=2_000, soak=20_000)
    tally = Tally()

    @settings(
        max_examples=many, deadline=None, derandomize=True, database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )  # fmt: skip
    @given(CHANGES | ANY_JSON, st.randoms(use_true_random=False))
    def proposed(changes: Any, rng: random.Random) -> None:
        text = json.dumps(put(good(), ("changes",), changes), ensure_ascii=rng.random() < 0.5)
        tally.add("any JSON", "within bounds", body(text), random.Random(rng.random()))

    proposed()
    assert tally.wrong == [] and tally.outside == []
    figure(
        "P13",
        f"{tally.replies:,} more with any JSON as any value: {tally.reviews:,} could be read, "
        f"{len(tally.outside)} changes outside the bounds",
    )


def test_a_server_of_nonsense_ends_in_a_review_or_a_hold(
    memory: Path, effort: Any, figure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over HTTP, with real books and a clock that stands still."""
    count = effort(sample=15, proof=300, soak=3_000)
    bodies = [text for _, _, text in replies(count * MAX_REQUESTS, seed=31)]
    ledger, store = open_books(memory, 10**12), scratch_store(memory)
    without_certificates(monkeypatch)
    asked: Counter[int] = Counter()

    def play(request: dict[str, Any], headers: Any) -> Play:
        number = review_of(request)
        asked[number] += 1
        if number % 5 == 0:
            return Play(body("I would try stop strings.").encode())
        return Play(bodies[number * MAX_REQUESTS + min(asked[number], MAX_REQUESTS) - 1].encode())

    def one(number: int) -> Review | None:
        section = ReviewerSection(kind="llm", model="m", base_url=server.url, timeout_seconds=180)
        reviewer = LlmReviewer(
            section, prices=prices(), api_key="k" * 20, clock=lambda: 0.0, sleep=lambda s: None
        )
        pay = Requests(ledger, store, number).pay
        try:
            return reviewer.review(f"report {number} of many", ROUNDS, pay=pay)
        except ReviewFailed as failure:
            assert str(failure)
            return None

    with serving(play) as server, ThreadPoolExecutor(4) as pool:
        found = list(pool.map(one, range(count)))
    outside = []
    for review in filter(None, found):
        out = guard(review, GenParams(), max_changes=MAX_CHANGES)
        outside += trespasses(GenParams(), out.params, most=MAX_CHANGES)
    rows = [Requests(ledger, store, number).rows() for number in range(count)]
    assert max(map(len, rows)) <= MAX_REQUESTS and max(asked.values()) <= MAX_REQUESTS
    assert sum(map(len, rows)) == asked.total()
    assert all(row.state == "posted" for every in rows for row in every)
    assert outside == []
    reviews = sum(review is not None for review in found)
    assert 0 < reviews < count
    figure(
        "P13",
        f"{count:,} reviews by a server that says {asked.total():,} of them over HTTP: "
        f"{reviews:,} reviews, {count - reviews:,} holds, at most {max(asked.values())} requests "
        f"for one, {len(outside)} changes outside the bounds",
    )


def test_whole_runs_that_are_reviewed_by_nonsense(effort: Any, figure: Any) -> None:
    """Held runs are resumed; now and then a reply is fit to be used, so that there is a next."""
    count, told = effort(sample=1, proof=12, soak=120), Counter[str]()

    def play(request: dict[str, Any], headers: Any) -> Play:
        model = request["model"]
        told[model] += 1
        rng = random.Random(f"{model}/{told[model]}")
        usable = [name for name, (_, worst) in KINDS.items() if worst == "within bounds"]
        kind = rng.choice(usable if rng.random() < 0.5 else list(KINDS))
        return Play(KINDS[kind][0](rng).encode())

    with serving(play) as server:
        asked = [{"url": server.url, "model": f"m{n}"} for n in range(count)]
        found = forks().call("hostile_runs:run", asked)
    assert all(run["spent"] and all(run["unmoved"].values()) for run in found)
    outside = [why for run in found for why in trespassing(run, most=MAX_CHANGES)]
    assert outside == []
    assert all(run["rounds"] for run in found) and told.total() > count
    endings = Counter(run["status"] for run in found)
    figure(
        "P13",
        f"{count} whole runs reviewed by nonsense, {told.total()} replies: "
        f"{sum(run['holds'] for run in found)} holds that were resumed, "
        f"{sum(len(run['rounds']) - 1 for run in found)} new settings, {len(outside)} of them "
        "outside the bounds; they ended with "
        + ", ".join(f"{status} ({n})" for status, n in sorted(endings.items())),
    )
