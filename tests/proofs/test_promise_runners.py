"""P10: one runner a run, and what a signal leaves of it (P23)."""

import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from borders import ROOT
from forked import RUN, Outcome, Trial, forks

from agent.lock import RunLock

Effort = Callable[..., int]
Figure = Callable[[str, str], None]

SIGTERM_SECONDS = 10.0
"""From the signal to the end of the process."""


@pytest.fixture(scope="module")
def undisturbed() -> Outcome:
    (found,) = forks().carry_out([Trial((), waiting=True)])
    return found


def test_of_many_that_resume_at_once_one_proceeds(effort: Effort, figure: Figure) -> None:
    many = effort(sample=6, proof=200, soak=2000)
    sizes = [(2, 8)[number % 2] for number in range(many)]
    found = forks().call("contests:contest", sizes)
    for processes, outcome in zip(sizes, found, strict=True):
        assert outcome == {"proceeded": 1, "paused": 1, "refused": processes - 1}
    refused = sum(outcome["refused"] for outcome in found)
    figure("P10", f"{many} trials of 2 or 8 processes: 1 proceeded in each, {refused} left with 11")


def test_the_command_line_says_so_with_its_exit_code(tmp_path: Path) -> None:
    reports = Path(shutil.copytree(forks().waiting, tmp_path / "reports"))
    with RunLock(reports / RUN / "run.lock"):
        done = subprocess.run(
            [sys.executable, "-m", "agent", "resume", RUN, "--reports", str(reports)],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert (done.returncode, "works on run" in done.stderr) == (11, True), done.stderr


def test_a_runner_that_was_overtaken_writes_nothing(
    undisturbed: Outcome, effort: Effort, figure: Figure
) -> None:
    many = effort(sample=4, proof=100, soak=1000)
    chance = random.Random(10)
    # One that sleeps before it has claimed the run is no runner yet.
    claimed = max(n for n, p in enumerate(undisturbed.passed, start=1) if "claim" in p.place)
    asked = [
        [
            chance.randint(claimed + 1, len(undisturbed.passed) - 20),
            chance.choice(("before", "after")),
        ]
        for _ in range(many)
    ]
    # Right after a commit nobody is within a transaction, so at least this one is overtaken.
    commits = [n for n, p in enumerate(undisturbed.passed, start=1) if p.kind == "commit"]
    asked[0] = [commits[len(commits) // 2], "after"]
    found = forks().call("contests:overtake", asked)
    slept = [(a, f) for a, f in zip(asked, found, strict=True) if f["stopped"]]
    taken = [(a, f) for a, f in slept if f["taken"]]
    assert len(taken) >= max(1, many // 8)
    for where, outcome in slept:
        if not outcome["taken"]:
            assert "was held by another process" in outcome["refusal"], (where, outcome)
            assert outcome["woken"] == 0, (where, outcome)
        else:
            assert outcome["changed"] == [], (where, outcome)
            assert outcome["woken"] and outcome["said"].startswith("RunLocked"), (where, outcome)
        assert outcome["result"] == undisturbed.result, where
    held = len(slept) - len(taken)
    figure(
        "P10",
        f"{len(taken)} runners overtaken while stopped: 0 of their files, rows or cents written "
        f"after they woke; {held} stopped within a transaction could not be overtaken",
    )


def test_a_signal_leaves_a_run_that_goes_on(
    undisturbed: Outcome, effort: Effort, figure: Figure
) -> None:
    many = effort(sample=2, proof=70, soak=700)  # a few are done before they are stopped
    full = effort(sample=0, proof=1, soak=1)
    chance = random.Random(23)
    asked = []
    for number in range(many):
        twice = number % 5 == 4
        asked.append({
            "hangs": ("", "thread", "process", "", "")[number % 5],
            "after": chance.uniform(0.0, 0.5),
            "border": [chance.randint(1, len(undisturbed.passed)), "after"],
            "signals": [signal.SIGINT, signal.SIGINT] if twice else [signal.SIGTERM],
            "grace": None if full else [0.3, 1.5],
        })  # fmt: skip
    found = forks().call("contests:terminate", asked)
    left = Counter[str]()
    for where, outcome in zip(asked, found, strict=True):
        assert outcome["status"] in (0, 130), (where, outcome)
        assert outcome["seconds"] < SIGTERM_SECONDS, (where, outcome["seconds"])
        assert outcome["last"] == 0 and outcome["faults"] == [], (where, outcome)
        assert outcome["result"] == undisturbed.result, where
        assert outcome["attempts"] <= 1, where
        left["stopped" if outcome["status"] else "done before"] += 1
    assert left["stopped"] >= 0.7 * many
    slowest = max(outcome["seconds"] for outcome in found)
    hung = sum(bool(where["hangs"]) for where in asked)
    again = sum(outcome["attempts"] for outcome in found)
    figure(
        "P23",
        f"{left['stopped']} of {many} stopped by a signal ({hung} with an engine that hangs), the "
        f"slowest in {slowest:.1f} s; all resumed to the equal result, {again} micro-batches again",
    )


def test_nothing_dies_in_silence_while_it_starts(tmp_path: Path, effort: Effort) -> None:
    """Signals that come while the program is being imported, as soon as it can know of them."""
    for number in range(effort(sample=1, proof=10, soak=50)):
        process = subprocess.Popen(
            [sys.executable, "-m", "agent", "resume", "r", "--reports", str(tmp_path)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        while not _catches_sigterm(process.pid):
            assert process.poll() is None, "it never caught a signal"
        assert not _has_loaded(process.pid, "pydantic_core"), "what is slow is imported afterwards"
        time.sleep(0.01 * number)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        assert process.returncode in (2, 130) and err, (number, process.returncode)
        assert "Traceback" not in err


def _catches_sigterm(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def _has_loaded(pid: int, library: str) -> bool:
    return library in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
