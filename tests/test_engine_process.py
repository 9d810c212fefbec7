"""pipeline/engine/process/engine.py: whatever its process does, its parent goes on and is told."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bookkeeping import child

from pipeline.engine.base import EngineSpec, Leased, Replanning
from pipeline.engine.local.threads import SPINS
from pipeline.engine.process.engine import ProcessEngine
from pipeline.engine.process.worker import attempt
from pipeline.engine.scripted import ScriptedEngine
from pipeline.errors import (
    ConfigError,
    EngineError,
    EngineLost,
    EngineOutOfMemory,
    EngineTimeout,
    SentinelError,
)
from pipeline.types import GenRequest, Sampling, ScoreRequest
from tests.faulty_engines import BATCH

FAULTY = "tests.faulty_engines:faulty"
FD = Path("/proc/self/fd")
WARM = Sampling(0.9, 40, stop=("\nInstruction",))
ROWS = [GenRequest("", f"Instruction: Name fruit {n}.\nResponse:", WARM, n) for n in range(8)]
SOON = 10.0
"""Seconds, on a machine that others keep busy too; what hangs does so for a minute."""
SCORED = [ScoreRequest("", "Instruction: Name a fruit.\nResponse:", (" Apple.", " A", " B"))]


@pytest.fixture
def opened() -> Iterator[Any]:
    """Opens engines with a fault; afterwards nothing of them may be left."""
    engines: list[ProcessEngine] = []

    def make(fault: str = "none", *, silence: float = 60.0, device: str = "cpu") -> ProcessEngine:
        spec = EngineSpec(model=fault, device=device)
        engines.append(ProcessEngine(spec, factory=FAULTY, silence=silence))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()
        assert is_gone(pid(engine))


@pytest.fixture(params=["counted", "not told"])
def kernel_kills(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel has killed one more process whenever it is asked, or does not say."""
    counter = itertools.count()
    told = {"counted": lambda: next(counter), "not told": lambda: None}
    monkeypatch.setattr("pipeline.engine.process.child.kills_for_memory", told[request.param])


def pid(engine: ProcessEngine) -> int:
    return engine._child.pid


def is_gone(process: int) -> bool:
    """Whether there is no such process, not even a zombie."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


def dies(process: int) -> bool:
    """Whether an orphan soon runs no more; when it is reaped is not up to us."""
    deadline = time.monotonic() + SOON
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            state = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2]
            if state.split()[0] not in "ZX":
                time.sleep(0.02)
                continue
        return True
    return False


def test_it_answers_as_the_engine_itself_does(opened: Any) -> None:
    engine, here = opened(), ScriptedEngine()
    assert engine.generate(ROWS) == here.generate(ROWS)
    assert engine.score(SCORED) == here.score(SCORED)
    assert engine.count_tokens(["a b", ""]) == here.count_tokens(["a b", ""])
    assert engine.generate([]) == []
    assert engine.info == replace(here.info, batch_size=BATCH)
    assert isinstance(engine, Leased) and isinstance(engine, Replanning)


def test_opening_waits_for_nothing(opened: Any) -> None:
    began = time.monotonic()
    engine = opened(device="loads slowly")
    returned = time.monotonic() - began
    assert engine.generate(ROWS) and time.monotonic() - began > 0.5 > returned


@pytest.mark.parametrize("fault", ["hangs", "hangs holding the GIL"])
def test_a_hang_ends_with_the_lease(opened: Any, fault: str) -> None:
    engine = opened(fault)
    assert engine.info
    engine.lease(0.8)
    began = time.monotonic()
    with pytest.raises(EngineTimeout, match="lease of 1 s.*engine.lease_seconds"):
        engine.generate(ROWS)
    assert 0.7 < time.monotonic() - began < SOON
    assert is_gone(pid(engine))


def test_loading_counts_towards_the_lease(opened: Any) -> None:
    engine = opened(device="loads for ever")
    engine.lease(1)
    with pytest.raises(EngineTimeout):
        engine.count_tokens(["a"])


def test_a_lease_holds_for_all_that_follows_and_another_replaces_it(opened: Any) -> None:
    engine = opened()
    engine.lease(0.3)
    time.sleep(0.4)
    engine.lease(60)
    assert engine.generate(ROWS)
    engine.lease(0.0)
    with pytest.raises(EngineTimeout):
        engine.generate(ROWS)


def test_silence_is_noticed_and_work_is_not_silence(opened: Any) -> None:
    silent = opened("hangs holding the GIL", silence=1.6)
    with pytest.raises(EngineLost, match="no sign of life for 1.6 s"):
        silent.generate(ROWS)
    assert is_gone(pid(silent))
    busy = opened("works for seconds", silence=1.6)
    assert busy.generate(ROWS) == ScriptedEngine().generate(ROWS)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("segfaults", "Segmentation fault"),
        ("exits", r"exit status 3(.|\n)*⟨U\+001B⟩\[31mI have had enough"),
        ("has a bug", r"exit status 1(.|\n)*ValueError: a bug of its own"),
        ("loses its device", "CUDA error: an illegal memory access"),
    ],
)
def test_a_death_ends_the_process_and_not_the_parent(opened: Any, fault: str, words: str) -> None:
    engine = opened(fault)
    with pytest.raises(EngineLost, match=words):
        engine.generate(ROWS)
    assert is_gone(pid(engine))
    with pytest.raises(EngineError, match="closed"):
        engine.count_tokens(["a"])


def test_an_error_of_the_engine_keeps_its_class_and_the_engine_goes_on(opened: Any) -> None:
    engine = opened("refuses")
    with pytest.raises(SentinelError, match="^not a base model$"):
        engine.generate(ROWS)
    assert engine.count_tokens(["a b"]) == [2]
    with pytest.raises(EngineError, match="^418: a teapot$"):
        opened("refuses in its own words").generate(ROWS)


def test_a_model_that_cannot_be_loaded_is_an_error_at_the_first_verb(opened: Any) -> None:
    engine = opened(device="has no model")
    with pytest.raises(ConfigError, match="^no such model$"):
        engine.generate(ROWS)
    assert is_gone(pid(engine))


def test_fewer_answers_than_requests_are_an_error(opened: Any) -> None:
    with pytest.raises(EngineError, match="7 answers to 8 requests of generate"):
        opened("returns fewer").generate(ROWS)


def test_what_it_prints_is_not_taken_for_an_answer(
    opened: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    assert opened("prints").generate(ROWS) == ScriptedEngine().generate(ROWS)
    assert capfd.readouterr() == ("", "")


class TestOutOfMemory:
    """Half the batch, again and again, and every time is told."""

    def test_a_process_that_lives_goes_on_with_less(self, opened: Any) -> None:
        engine = opened("starves")
        assert engine.info.batch_size == BATCH
        before = pid(engine)
        assert engine.generate(ROWS) == ScriptedEngine().generate(ROWS)
        assert [(r.before, r.after) for r in engine.replans] == [(BATCH, 8), (8, 4), (4, 2)]
        assert engine.replans[0].describe() == "out of memory: batch 16 -> 8"
        assert "no room" in engine.replans[0].cause
        assert (engine.info.batch_size, pid(engine)) == (2, before)
        assert engine.generate(ROWS) and len(engine.replans) == 3

    def test_one_that_was_killed_is_started_again_with_less(
        self, opened: Any, kernel_kills: None
    ) -> None:
        engine = opened("is killed when it starves")
        assert engine.info
        before = pid(engine)
        assert engine.generate(ROWS) == ScriptedEngine().generate(ROWS)
        assert [(r.before, r.after) for r in engine.replans] == [(BATCH, 8), (8, 4), (4, 2)]
        assert "probably because memory ran out" in engine.replans[0].cause
        assert engine.info.batch_size == 2 and is_gone(before)

    def test_one_that_a_person_killed_is_no_reason_for_a_smaller_batch(self, opened: Any) -> None:
        """The kernel counts its own kills, so they are told from others."""
        engine = opened("is killed when it starves")
        with pytest.raises(EngineLost, match=r"signal 9, Killed\); resume the run to try again"):
            engine.generate(ROWS)
        assert engine.replans == ()

    def test_at_one_row_it_is_told_what_to_do(self, opened: Any) -> None:
        engine = opened("always starves")
        with pytest.raises(EngineOutOfMemory, match="not even one row.*quantization"):
            engine.generate(ROWS)
        assert [r.after for r in engine.replans] == [8, 4, 2, 1]

    def test_a_brief_shortage_in_a_small_call_costs_no_batch(self, opened: Any) -> None:
        engine = opened("starves once")
        assert engine.generate(ROWS[:2]) == ScriptedEngine().generate(ROWS[:2])
        assert engine.replans == () and engine.info.batch_size == BATCH

    def test_a_lasting_one_is_tried_again_once_and_then_halves(self, opened: Any) -> None:
        engine = opened("always starves")
        with pytest.raises(EngineOutOfMemory, match="not even one row"):
            engine.generate(ROWS[:2])
        assert [r.after for r in engine.replans] == [8, 4, 2, 1]

    def test_a_killed_one_is_started_again_with_the_same_batch_first(
        self, opened: Any, kernel_kills: None
    ) -> None:
        engine = opened("is killed when it starves")
        assert engine.generate(ROWS[:7]) == ScriptedEngine().generate(ROWS[:7])
        assert [r.after for r in engine.replans] == [8, 4, 2]

    def test_a_model_too_large_is_told_what_to_do(self, opened: Any) -> None:
        with pytest.raises(EngineOutOfMemory, match="model itself does not fit.*quantization"):
            opened(device="is too large").generate(ROWS)

    def test_the_lease_covers_all_attempts(self, opened: Any, kernel_kills: None) -> None:
        engine = opened("is killed when it starves", device="loads slowly")
        engine.lease(1.0)
        with pytest.raises(EngineTimeout):
            engine.generate(ROWS)

    def test_what_torch_raises_is_known(self) -> None:
        import torch

        def starve() -> None:
            torch.empty(1 << 60, dtype=torch.uint8)

        def on_a_gpu() -> None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB")

        def in_cpp() -> None:
            raise RuntimeError("std::bad_alloc")

        def in_onednn() -> None:
            raise RuntimeError("could not create a memory object")

        for fault in (starve, on_a_gpu, in_cpp, in_onednn):
            assert isinstance(attempt(fault), EngineOutOfMemory)

    def test_any_other_error_is_not_caught(self) -> None:
        with pytest.raises(RuntimeError, match="CUDA error"):
            attempt(lambda: (_ for _ in ()).throw(RuntimeError("CUDA error: unspecified")))


def test_long_requests_pass(opened: Any) -> None:
    rows = [GenRequest("p" * 10_000, "s" * 10_000, WARM, n) for n in range(200)]
    engine = opened()
    assert engine.generate(rows) == ScriptedEngine().generate(rows)


@pytest.mark.parametrize(("silence", "lease"), [(1.0, 60.0), (60.0, 1.0)], ids=str)
def test_a_process_that_takes_nothing_in_holds_nobody_up(
    opened: Any, silence: float, lease: float
) -> None:
    engine = opened(silence=silence)
    assert engine.info
    os.kill(pid(engine), signal.SIGSTOP)
    engine.lease(lease)
    began = time.monotonic()
    with pytest.raises((EngineLost, EngineTimeout)):
        engine.generate([GenRequest("p" * 20_000, "", WARM, n) for n in range(200)])
    assert time.monotonic() - began < SOON


def test_two_side_by_side_do_not_touch_each_other(opened: Any, kernel_kills: None) -> None:
    first, second, third = opened(), opened("kills itself"), opened()
    assert first.generate(ROWS) and third.generate(ROWS)
    second.lease(10)
    with pytest.raises(EngineOutOfMemory):
        second.generate(ROWS)
    first.close()
    assert third.generate(ROWS) == ScriptedEngine().generate(ROWS)


def test_closing_leaves_nothing_and_may_be_repeated(opened: Any) -> None:
    before = len(list(FD.iterdir()))
    for fault in ("none", "hangs"):
        engine = opened(fault)
        if fault == "none":
            assert engine.generate(ROWS)
        engine.close()
        assert is_gone(pid(engine))
        engine.close()
    assert len(list(FD.iterdir())) == before
    with pytest.raises(EngineError, match="closed"):
        engine.generate(ROWS)


@pytest.mark.parametrize(
    "call", ["tempfile.TemporaryFile", "socket.socketpair", "os.pipe", "subprocess.Popen"]
)
def test_a_process_that_cannot_be_started_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")

    before = len(list(FD.iterdir()))
    monkeypatch.setattr(f"pipeline.engine.process.child.{call}", fail)
    with pytest.raises(EngineError, match="cannot start a process for the engine.*Too many") as e:
        ProcessEngine(EngineSpec(model="none"), factory=FAULTY)
    assert len(list(FD.iterdir())) == before, e.traceback  # which keeps what was made alive


def test_an_interruption_while_it_works_ends_it(opened: Any) -> None:
    engine = opened("hangs")
    assert engine.info
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        engine.generate(ROWS)
    timer.join()
    assert is_gone(pid(engine))


def test_stopping_from_another_thread_ends_what_it_does(opened: Any) -> None:
    engine = opened("hangs")
    assert engine.info
    timer = threading.Timer(0.3, engine.stop)
    timer.start()
    began = time.monotonic()
    with pytest.raises(EngineLost, match="was stopped"):
        engine.generate(ROWS)
    assert time.monotonic() - began < SOON
    assert engine.replans == () and is_gone(pid(engine))
    timer.join()


def test_its_threads_wait_politely(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(EngineError, match=f"^{SPINS}$"):
        opened("tells how its threads wait").generate(ROWS)


def test_it_is_out_of_reach_of_the_terminal(opened: Any) -> None:
    engine = opened()
    assert os.getsid(pid(engine)) == os.getpgid(pid(engine)) == pid(engine)


PARENT = """
import sys, time
from pipeline.engine.base import EngineSpec
from pipeline.engine.process.engine import ProcessEngine
from pipeline.types import GenRequest, Sampling
fault, silence = sys.argv[1], float(sys.argv[2])
spec = EngineSpec(model=fault)
engine = ProcessEngine(spec, factory="tests.faulty_engines:faulty", silence=silence)
assert engine.info
print(engine._child.pid, flush=True)
rows = engine.generate([GenRequest("", "a", Sampling(0.9, 9), 1)]) if fault != "none" else 1
print(len(rows) if rows != 1 else time.sleep(60), "torch" in sys.modules, flush=True)
"""


@contextlib.contextmanager
def parent(fault: str, *, silence: float = 60.0) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that works with an engine, and that engine's process."""
    process = child(PARENT, fault, silence)
    try:
        assert process.stdout is not None
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate(timeout=10)


@pytest.mark.parametrize(
    ("fault", "number"),
    [
        ("none", signal.SIGKILL),
        ("hangs", signal.SIGKILL),
        ("hangs holding the GIL", signal.SIGKILL),
        ("hangs", signal.SIGTERM),
    ],
)
def test_a_parent_that_dies_leaves_no_process(fault: str, number: signal.Signals) -> None:
    if "GIL" in fault and sys.platform != "linux":
        pytest.skip("nothing ends it there before it lets go")
    with parent(fault) as (process, engine):
        time.sleep(0.3)  # so that it is at work
        process.send_signal(number)
        assert dies(engine)


def test_a_machine_that_was_stopped_with_all_its_processes_blames_none() -> None:
    with parent("works for seconds", silence=2.5) as (process, engine):
        os.kill(engine, signal.SIGSTOP)
        time.sleep(0.2)  # for the parent to read what was sent before
        process.send_signal(signal.SIGSTOP)
        time.sleep(3)
        process.send_signal(signal.SIGCONT)
        time.sleep(0.1)
        os.kill(engine, signal.SIGCONT)
        assert process.stdout is not None
        assert process.stdout.readline().split() == ["1", "False"], "torch is not imported here"


@pytest.mark.model
def test_the_embedded_model_writes_the_same_in_a_process_of_its_own() -> None:
    from pipeline.engine import open_engine
    from pipeline.engine.local.hf import HFEngine

    spec = EngineSpec(batch_size=8)  # measured side by side, they could come to two sizes
    with contextlib.closing(open_engine(spec)) as away:
        assert isinstance(away, ProcessEngine)
        with contextlib.closing(HFEngine.open(spec)) as here:
            assert away.generate(ROWS) == here.generate(ROWS)
            assert away.score(SCORED) == here.score(SCORED)
            assert away.info == here.info
