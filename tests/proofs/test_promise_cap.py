"""P1, P2 and the engine's half of P5: possible spend never exceeds a cap, whoever dies when."""

import contextlib
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from bookkeeping import ROOT, in_memory, open_books
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from test_ledger_machine import LedgerMachine

from agent.config_file import load_config
from agent.errors import ConfigError, LedgerError
from agent.money.amounts import time_to_micro
from agent.money.audit import audit
from agent.money.database import RunDatabase
from agent.money.ledger import Ledger
from agent.session import create_run

memory = pytest.fixture(in_memory)

CAP = 200_000
OWN = {"review": 40_000, "scale": 120_000}
PROCESSES = 8
EXAMPLE = ROOT / "reports" / "example" / "run.sqlite"


class Race:
    """Eight racers at one ledger, each started again when it is killed."""

    def __init__(self, folder: Path, turns: int) -> None:
        self.folder, self.turns = folder, turns
        # All that is posted is to come near the cap, and not to reach it before the end.
        self.largest_post = max(1, int(CAP * 1.5 / (PROCESSES * turns * 0.4)))
        self.generations: Counter[str] = Counter()
        self.racing: dict[str, subprocess.Popen[str]] = {}
        self.exits: Counter[int] = Counter()
        self.errors = ""
        for number in range(PROCESSES):
            self.start(f"w{number}", turns)

    def start(self, name: str, turns: int) -> None:
        self.generations[name] += 1
        arguments = [self.folder, name, self.generations[name], turns, self.largest_post]
        self.racing[name] = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("racer.py")), *map(str, arguments)],
            cwd=ROOT, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def lines(self, name: str) -> list[list[str]]:
        return [line.split() for line in self._log(name).splitlines()]

    def _log(self, name: str) -> str:
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / f"{name}.log").read_text(encoding="ascii")
        return ""

    def done(self, name: str) -> int:
        return self._log(name).count("turn ")

    def at_work(self) -> list[str]:
        """Those that have not come to their end."""
        return [name for name, process in self.racing.items() if process.poll() is None]

    def kill(self, chance: random.Random) -> bool:
        """Kill one that has come to the ledger, and start it again; whether it died of that."""
        at_ledger = [name for name in self.at_work() if self._began(name)]
        if not at_ledger:
            return False
        name = chance.choice(at_ledger)
        time.sleep(chance.random() * 0.002)
        self.racing[name].send_signal(signal.SIGKILL)
        died = self._end(name) == -signal.SIGKILL
        left = self.turns - self.done(name)
        if died and left > 0:
            self.start(name, left)
        return died

    def _began(self, name: str) -> bool:
        """Whether its latest start has opened the ledger."""
        return f"start {self.generations[name]}\n" in self._log(name)

    def _end(self, name: str) -> int:
        process = self.racing.pop(name)
        self.errors += process.communicate(timeout=600)[1]
        self.exits[process.returncode] += 1
        return process.returncode

    def finish(self) -> None:
        for name in list(self.racing):
            self._end(name)


def entries_above_a_cap(path: Path) -> tuple[int, int, float]:
    """Entries, those after which a cap is exceeded, and the largest share of the cap in use.

    By the entries' own amounts, and by nothing of the program.
    """
    above, peak = 0, 0
    possible: Counter[str] = Counter()
    left: dict[str, int] = {}
    worst: dict[str, int] = {}
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as raw:
        found = raw.execute(
            "SELECT kind, op_id, stage, envelope, amount, excess FROM entries ORDER BY seq"
        ).fetchall()
    for kind, name, stage, envelope, amount, excess in found:
        own = "scale" if envelope else stage if stage in ("review", "scale") else "pilot"
        match kind:
            case "reserve":
                worst[name] = amount
                possible[own] += 0 if envelope else amount
            case "envelope":
                left[name] = amount
                possible[own] += amount
            case "post" if envelope:
                left[envelope] -= amount
            case "post":
                possible[own] += amount - worst[name]
            case "void":
                possible[own] -= 0 if envelope else worst[name]
            case "close":
                possible[own] -= left.pop(name)
        full = sum(possible.values())
        peak = max(peak, full)
        over = full > CAP or any(possible[name] > cap for name, cap in OWN.items())
        above += over or bool(excess)
    return len(found), above, peak / CAP


def test_eight_processes_and_kills_never_exceed_a_cap(
    memory: Path, effort: Callable[..., int], figure: Callable[[str, str], None]
) -> None:
    turns = effort(sample=60, proof=1000, soak=10_000)
    kills = effort(sample=4, proof=40, soak=40)
    with RunDatabase(memory / "run.sqlite", create=True) as database:
        Ledger.create(database, CAP, sub_caps=OWN)
    race, chance, killed = Race(memory, turns), random.Random(turns), 0
    while killed < kills and race.at_work():
        passed = sum(race.done(f"w{n}") for n in range(PROCESSES)) / (PROCESSES * turns)
        if passed >= (killed + 0.5) / (kills + 1):
            killed += race.kill(chance)
        time.sleep(0.02)
    race.finish()
    assert (race.errors, set(race.exits)) == ("", {0, -signal.SIGKILL})
    assert race.exits[-signal.SIGKILL] == killed == kills
    said = [line for n in range(PROCESSES) for line in race.lines(f"w{n}")]
    words = Counter(line[0] for line in said)
    assert words["turn"] >= PROCESSES * turns
    assert words["refused"] > words["turn"] / 100, "the race never met a cap"

    ledger = open_books(memory, CAP, sub_caps=OWN)
    rows = {row.op_id: row for row in ledger.rows()}
    for line in said:
        if line[0] in ("post", "void"):
            state, actual = ("posted", int(line[2])) if line[0] == "post" else ("void", None)
            assert (rows[line[1]].state, rows[line[1]].actual) == (state, actual), line
        elif line[0] == "reserve":
            assert rows[line[1]].worst_case == int(line[2])
    settled = sum(row.state != "pending" for row in rows.values())
    unheard = settled - words["post"] - words["void"]
    assert 0 <= unheard <= kills, "what was done and not told is what a kill came between"

    pending = sorted(row.op_id for row in rows.values() if row.state == "pending")
    assert sorted(ledger.reconcile()) == pending
    for row in ledger.database.query("SELECT id FROM envelopes WHERE state = 'open'"):
        ledger.close_envelope(row["id"])
    totals = ledger.totals()
    assert totals.confirmed == sum(row.actual or 0 for row in ledger.rows())
    assert (totals.pending, totals.excess) == (0, 0)
    assert audit(ledger.database) == ()
    count, above, peak = entries_above_a_cap(memory / "run.sqlite")
    assert above == 0
    figure(
        "P1",
        f"{above} of {count:,} commits above a cap, with {PROCESSES} processes, "
        f"{words['turn']:,} operations and {killed} kills; {words['refused']:,} reservations were "
        f"refused, {peak:.1%} of the cap was in use at most; sums exact, "
        f"{totals.pending} pending after reconcile ({len(pending)} before)",
    )


def test_random_histories_equal_the_model(
    effort: Callable[..., int], figure: Callable[[str, str], None]
) -> None:
    histories = effort(sample=12, proof=500, soak=5000)
    steps = LedgerMachine.tally
    steps.clear()
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        LedgerMachine,
        settings=settings(
            max_examples=histories, stateful_step_count=50, deadline=None, database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
    assert steps["histories"] >= histories
    assert steps["crashes"] > histories / 4
    figure(
        "P2",
        f"0 differences in {steps['histories']:,} histories of up to 50 steps, compared "
        f"{steps['compared']:,} times, {steps['crashes']:,} crashes among them",
    )


ENGINE = "engine: {kind: scripted}\n"
UNPRICED = {
    "no price of the device": "prices: {device_usd_per_hour: {cuda: 3}}",
    "no price of a server": "engine: {kind: server, base_url: 'http://127.0.0.1:9/v1'}",
    "no prices at all": "prices: {device_usd_per_hour: {}}",
    "no price of mps": "engine: {kind: hf, device: mps}",
    "a price below nothing": "prices: {device_usd_per_hour: {cpu: -0.01}}",
    "a price that is no number": "prices: {device_usd_per_hour: {cpu: .nan}}",
    "an endless price": "prices: {device_usd_per_hour: {cpu: .inf}}",
    "a price in words": "prices: {device_usd_per_hour: {cpu: '0.05'}}",
    "a price that is true": "prices: {device_usd_per_hour: {cpu: true}}",
    "a price twice": "prices: {device_usd_per_hour: {cpu: 0.05, cpu: 0.00}}",
    "a cap of nothing": "budget: {limit_usd: 0}",
    "an endless cap": "budget: {limit_usd: .inf}",
    "a stage's cap above the run's": "budget: {limit_usd: 10, scale_usd: 11}",
    "a stage's cap of nothing": "budget: {review_usd: 0}",
    "an endless lease": "engine: {kind: scripted, lease_seconds: .inf}",
}


def test_an_unknown_price_of_time_is_refused(
    tmp_path: Path, figure: Callable[[str, str], None]
) -> None:
    refused = 0
    for name, text in UNPRICED.items():
        path = tmp_path / "budget.yaml"
        path.write_text(text if "engine:" in text else ENGINE + text, encoding="utf-8")
        with pytest.raises(ConfigError) as raised:
            create_run(tmp_path / "reports", "r", load_config(path))
        assert str(raised.value), name
        assert not (tmp_path / "reports").exists(), f"{name}: something was begun"
        refused += 1
    path.write_text(ENGINE, encoding="utf-8")
    create_run(tmp_path / "reports", "r", load_config(path))
    assert (tmp_path / "reports" / "r").exists(), "what is priced is not refused"
    figure("P5", f"{refused} of {len(UNPRICED)} cases of engine, price and caps refused")


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0])
def test_a_time_that_is_none_has_no_price(seconds: float) -> None:
    with pytest.raises(LedgerError):
        time_to_micro(seconds, 3.0)


def pairs_a_second(folder: Path, pairs: int) -> float:
    """Reservations that are posted, each a commit of its own that is on the disk."""
    with RunDatabase(folder / "run.sqlite", create=True) as database:
        ledger = Ledger.create(database, CAP, sub_caps=OWN)
        database.claim()
        began = time.perf_counter()
        for number in range(pairs):
            ledger.reserve(f"op-{number}", 10, stage="pilot", round=1)
            ledger.post(f"op-{number}", 1, engine_seconds=1.0)
        return pairs / (time.perf_counter() - began)


def test_the_ledger_costs_little(
    memory: Path, tmp_path: Path, effort: Callable[..., int], figure: Callable[[str, str], None]
) -> None:
    pairs = effort(sample=30, proof=1000, soak=1000)
    # The best of a few, since what else this machine does is not the ledger's cost.
    disk = max(pairs_a_second(_folder(tmp_path, n), pairs) for n in range(3))
    fast = pairs_a_second(_folder(memory, 0), 10 * pairs)
    assert fast >= 300
    with closing(sqlite3.connect(f"file:{EXAMPLE}?mode=ro", uri=True)) as raw:
        paid, worked = raw.execute(
            "SELECT count(*), sum(engine_seconds) FROM operations"
        ).fetchone()
    share = paid / disk / worked
    assert share < 0.01
    figure(
        "ledger",
        f"{disk:,.0f} reserve-post pairs a second on the disk, {fast:,.0f} in memory; "
        f"{paid} attempts in {worked:,.0f} s of the example run's engine: {share:.4%} of it",
    )


def _folder(parent: Path, number: int) -> Path:
    made = parent / f"books-{number}"
    made.mkdir()
    return made


@pytest.mark.slow
def test_the_ledgers_share_of_a_scripted_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figure: Callable[[str, str], None]
) -> None:
    """A run whose model takes no time at all is the worst case for the ledger's share."""
    from agent import runner

    spent = Counter[str]()

    def timed(verb: str) -> None:
        real = getattr(Ledger, verb)

        def wrapped(*arguments: object, **named: object) -> object:
            began = time.perf_counter()
            try:
                return real(*arguments, **named)
            finally:
                spent["microseconds"] += round((time.perf_counter() - began) * 1e6)
                spent["calls"] += 1

        monkeypatch.setattr(Ledger, verb, wrapped)

    for verb in ("reserve", "post", "void"):
        timed(verb)
    path = tmp_path / "budget.yaml"
    path.write_text(ENGINE + "scale: {examples: 120, micro_batch: 32}\n", encoding="utf-8")
    began = time.perf_counter()
    runner.start(tmp_path / "reports", load_config(path), "r", lambda event: None)
    plan = runner.offer(tmp_path / "reports", "r", 120)
    runner.approve(tmp_path / "reports", "r", plan.hash, lambda event: None, accept_shortfall=True)
    seconds = time.perf_counter() - began
    share = spent["microseconds"] / 1e6 / seconds
    assert spent["calls"] > 10
    assert share < 0.05, "even where the model answers at once"
    figure("ledger", f"{share:.2%} of a scripted run's {seconds:.1f} s, in {spent['calls']} calls")
