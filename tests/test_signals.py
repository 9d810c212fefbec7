"""Ctrl-C and SIGTERM, sent to a process; what they mean to a run is in test_run_faults."""

import signal
import subprocess
import time

import pytest
from bookkeeping import child

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


def test_sigterm_drains_then_stops_then_ends_the_process() -> None:
    process = working()
    process.send_signal(signal.SIGTERM)
    assert left(process) == (130, ["drain SIGTERM", "stop"], "bye")


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
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        signals.catch(at_prompts=at_prompts)
        assert signal.getsignal(signal.SIGTERM) is signals.leave
        ctrl_c = signal.default_int_handler if at_prompts else signals.leave
        assert signal.getsignal(signal.SIGINT) is ctrl_c
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
