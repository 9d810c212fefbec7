"""P3 under SIGKILL: what was sent is charged, and what was stored is not bought twice."""

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bookkeeping import in_memory
from builders import story
from fake_server import FakeServer, Play, chat, serving
from killed_reviews import POINTS, Nursery, nursery, review_once
from provider import ANSWER, owed

from agent.config_file import check_config
from agent.money.audit import audit
from agent.money.database import RunDatabase
from agent.money.ledger import UNKNOWN, Ledger
from agent.money.statement import LedgerRow
from agent.session import create_run
from agent.stages.requests import answer_path
from agent.store import RunStore

memory: Callable[..., Iterator[Path]] = pytest.fixture(in_memory)
GOOD = replace(chat(ANSWER, usage=(900, 70)), billed=(900, 70))
BOUGHT_AGAIN = ("reserved, not sent", "in the air", "answered, not kept")
"""Points of death at which no answer was stored yet."""


@pytest.fixture(scope="module")
def parent() -> Iterator[Nursery]:
    """One warm parent for all of them."""
    with nursery() as warm:
        yield warm


def prepare(root: Path, url: str) -> None:
    """A run whose first round is measured and waits for its review."""
    price = {"input_usd_per_million": 0.3, "output_usd_per_million": 1.7}
    tree = {
        "engine": {"kind": "scripted"},
        "reviewer": {"kind": "llm", "model": "m", "base_url": url, "timeout_seconds": 60.0},
        "prices": {"device_usd_per_hour": {"cpu": 0.05}, "reviewers": {"m": price}},
    }
    create_run(root, "r", check_config(tree, source="test"))
    RunStore.open(root, "r").save_round(story()[0].model_copy(update={"review": None}))


def kill(parent: Nursery, root: Path, point: str, server: FakeServer) -> None:
    """Let a process die at ``point``."""
    before = len(server.bill)
    process = parent.begin(root, point)
    if point == "in the air":
        assert server.wait_for(before + 1), "the request was sent and billed"
        os.kill(process, signal.SIGKILL)
    assert parent.end() == signal.SIGKILL, point


def books(root: Path) -> list[LedgerRow]:
    """The requests in the ledger of a run that is sound."""
    with RunDatabase(root / "r" / "run.sqlite") as database:
        assert audit(database) == ()
        assert Ledger(database).totals().pending == 0
        return [row for row in Ledger(database).rows() if "/request" in row.op_id]


def check(rows: list[LedgerRow], server: FakeServer, deaths: list[str]) -> None:
    """The books hold every request of processes that died as in ``deaths``, and of the last."""
    assert len({row.op_id for row in rows}) == len(rows), "each under an id of its own"
    stored = deaths[-1] not in BOUGHT_AGAIN
    sent = len(deaths) - deaths.count("reserved, not sent")
    assert len(server.bill) == sent + (0 if stored else 1), deaths
    assert len(rows) == len(deaths) + (0 if stored else 1)
    for row, death in zip(rows, deaths, strict=False):
        settled = death in ("settled, not read", "read, not remembered", "remembered")
        assert (row.note == UNKNOWN and row.actual == row.worst_case) != settled, death
    assert sum(row.actual or 0 for row in rows) >= sum(owed(tokens) for _, tokens in server.bill)


def test_a_killed_request_is_charged_in_full_and_a_stored_answer_is_not_bought_again(
    memory: Path, parent: Nursery, effort: Any, figure: Any
) -> None:
    kills = effort(sample=len(POINTS) + 1, proof=100, soak=1_000)
    again = done = 0
    while done < kills:
        point = POINTS[done % len(POINTS)]
        # Some lose their process twice before anything is stored.
        deaths = ["in the air", point] if done % 3 == 2 else [point]
        root = memory / f"{done}"
        silent = [Play(wait=30.0, billed=(900, 70)) if d == "in the air" else GOOD for d in deaths]
        script = [p for p, d in zip(silent, deaths, strict=True) if d != "reserved, not sent"]
        with serving([*script, GOOD]) as server:
            prepare(root, server.url)
            for death in deaths:
                kill(parent, root, death, server)
            review_once(root)
            review_once(root)
        rows = books(root)
        check(rows, server, deaths)
        kept = RunStore.open(root, "r").read_text(answer_path(1, len(rows)))
        assert kept.encode() == GOOD.body
        done += len(deaths)
        again += len(rows) - len(deaths)
    figure(
        "P3",
        f"{done} SIGKILLs around a request, at {len(POINTS)} points: 0 under-counted, {again} "
        "reviews asked for again under another id, 0 stored answers bought twice",
    )
