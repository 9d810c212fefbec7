"""A run whose money ends, at whichever place, still finishes: its report, its rows, 0 excess."""

import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from bookkeeping import in_memory

from agent import runner
from agent.config_file import check_config
from agent.errors import ConfigError
from agent.money.audit import audit
from agent.money.database import RunDatabase
from agent.money.ledger import Ledger
from agent.session import open_session

memory = pytest.fixture(in_memory)


def show(event: Mapping[str, Any]) -> None:
    pass


class Ticking:
    """A clock that every look at it moves on by a second, so that nothing is for free."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


@pytest.fixture(autouse=True)
def _ticking(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    opened = functools.partial(open_session, clock=Ticking())
    monkeypatch.setattr(runner, "open_session", opened)
    yield


def start(root: Path, **budget: float) -> runner.Ending:
    """A scripted run at a dollar a second, whose micro-batches are leased 20 s at least."""
    config = check_config(
        {
            "budget": {"limit_usd": 10_000.0, **budget},
            "prices": {"device_usd_per_hour": {"cpu": 3600.0}},
            "engine": {"kind": "scripted", "lease_seconds": 20.0},
            "scale": {"examples": 2000, "micro_batch": 32, "shard_rows": 500},
        },
        source="test",
    )
    return runner.start(root, config, "r", show)


def books(root: Path) -> Ledger:
    with RunDatabase(root / "r" / "run.sqlite", read_only=True) as database:
        assert audit(database) == ()
        found = Ledger(database)
        totals, caps = found.totals(), found.sub_caps()
        assert (totals.pending, totals.excess) == (0, 0)
        assert [own.excess for own in caps] == [0, 0, 0]
    return found


@pytest.mark.parametrize(
    ("cap", "dollars"),
    [("limit_usd", 10), ("limit_usd", 30), ("pilot_usd", 25), ("pilot_usd", 30)],
)
def test_pilots_end_with_a_report_and_no_excess(memory: Path, cap: str, dollars: float) -> None:
    ending = start(memory, **{cap: dollars})
    assert (ending.status, ending.exit_code) == ("stop_budget", 4)
    assert ("the pilots'" if cap == "pilot_usd" else "the cap of") in ending.reason
    report = (memory / "r" / "report.md").read_text(encoding="utf-8")
    assert "left under" in report
    books(memory)


@pytest.mark.parametrize("cap", ["pilot_usd", "scale_usd"])
def test_a_stages_cap_that_pays_for_nothing_is_refused_before_anything(
    memory: Path, cap: str
) -> None:
    with pytest.raises(ConfigError, match=rf"{cap} \$24\.99 can never pay .* take \$25\.00"):
        start(memory, **{cap: 24.99})
    assert not (memory / "r").exists()


@pytest.mark.parametrize(
    ("cap", "dollars"),
    [
        ("scale_usd", 50),
        pytest.param("scale_usd", 58, marks=pytest.mark.slow),
        pytest.param("limit_usd", 105, marks=pytest.mark.slow),
        pytest.param("limit_usd", 112, marks=pytest.mark.slow),
    ],
)
def test_scale_ends_with_a_data_set_and_no_excess(memory: Path, cap: str, dollars: float) -> None:
    assert start(memory, **{cap: dollars}).status == "waiting"
    plan = runner.offer(memory, "r", None)
    ending = runner.approve(memory, "r", plan.hash, show, accept_shortfall=True)
    assert ending.status == "done_short", ending
    assert "does not fit the plan's cost" in ending.reason
    manifest = json.loads((memory / "r" / "dataset" / "manifest.json").read_text("utf-8"))
    rows = (memory / "r" / "dataset" / "train.jsonl").read_text("utf-8").splitlines()
    assert 0 < len(rows) < 2000
    assert manifest["rows"] == len(rows)
    assert (memory / "r" / "report.md").exists()
    books(memory)
