"""Ctrl-C, SIGTERM and SIGHUP, sent to a process; what they mean to a run is in test_run_faults."""

import os
import signal
import subprocess
import sys
import time

import pytest
from bookkeeping import ROOT, child

from agent import signals

WORKER = """
import sys, time
from agent.signals import Answers, Interruptible, catch
catch()
def stop():
    print("stop", flush=True)
    time.sleep(float(sys.argv[1]))
answers = Answers(lambda name: print("drain", name, flush=True), stop, lambda text: None, "bye")
with Interruptible(answers, grace=0.2, last=0.7) as interruptible:
    print("ready", flush=True)
    time.sleep(float(sys.argv[2]))
print("asked", interruptible.asked, flush=True)
time.sleep(float(sys.argv[2]))
"""


def working(*, stopping: float = 0.0, seconds: float = 30.0) -> subprocess.Popen[str]:
    process = child(WORKER, stopping, seconds)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def left(process: subprocess.Popen[str]) -> tuple[int, list[str], str]:
    out, err = process.communicate(timeout=20)
    return process.returncode, out.split("\n")[:-1], err.strip()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_it_drains_then_stops_then_ends_the_process(number: signal.Signals) -> None:
    process = working()
    process.send_signal(number)
    assert left(process) == (130, [f"drain {number.name}", "stop"], "bye")


def test_under_nohup_a_hang_up_changes_nothing() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = working(seconds=0.2)
    finally:
        signal.signal(signal.SIGHUP, before)
    process.send_signal(signal.SIGHUP)
    code, out, err = left(process)
    assert (code, out, err) == (0, ["asked False"], "")


def test_nobody_to_tell_is_no_failure() -> None:
    process = working()
    assert process.stderr is not None
    process.stderr.close()
    process.send_signal(signal.SIGHUP)
    assert process.stdout is not None
    with process.stdout as out:
        assert out.read().split() == ["drain", "SIGHUP", "stop"]
    assert process.wait(timeout=20) == 130


def test_a_stop_that_hangs_holds_nothing_up() -> None:
    process = working(stopping=30.0)
    process.send_signal(signal.SIGTERM)
    assert left(process)[0] == 130


def test_ctrl_c_waits_for_the_border_and_a_second_one_does_not() -> None:
    process = working()
    process.send_signal(signal.SIGINT)
    time.sleep(1.0)
    assert process.poll() is None, "the first has no deadline"
    process.send_signal(signal.SIGINT)
    assert left(process) == (130, ["drain SIGINT", "stop"], "bye")


def test_a_run_that_reaches_its_border_in_time_goes_its_way() -> None:
    process = working(seconds=0.1)
    process.send_signal(signal.SIGTERM)
    code, out, err = left(process)
    assert (code, err) == (0, "") and "asked True" in out


def test_without_a_run_it_says_so_and_leaves() -> None:
    process = working(seconds=0.05)
    assert process.stdout is not None
    assert process.stdout.readline() == "asked False\n"
    time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    code, _, err = left(process)
    assert code in (0, 130) and (code == 0 or "resume" in err)


@pytest.mark.parametrize("at_prompts", [False, True])
def test_what_is_caught(at_prompts: bool) -> None:
    caught = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {n: signal.getsignal(n) for n in caught}
    try:
        signals.catch(at_prompts=at_prompts)
        assert signal.getsignal(signal.SIGTERM) is signals.leave
        assert signal.getsignal(signal.SIGHUP) is signals.leave
        ctrl_c = signal.default_int_handler if at_prompts else signals.leave
        assert signal.getsignal(signal.SIGINT) is ctrl_c
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


GOES = """
import sys
from agent.signals import let_go_of_output
sys.stdin.read()
print("nobody reads this")
let_go_of_output()
raise SystemExit(130)
"""


def test_output_that_cannot_be_written_does_not_change_the_exit() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", GOES], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, cwd=ROOT, env=os.environ | {"PYTHONUNBUFFERED": ""},
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    process.stdout.close()
    process.stdin.close()
    with process.stderr as err:
        assert err.read() == b""
    assert process.wait(timeout=20) == 130
