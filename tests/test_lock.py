import os
import signal
from pathlib import Path

import pytest
from bookkeeping import child, wait

from agent.errors import RunLocked, StorageError
from agent.lock import Holder, RunLock, holder

KEEPER = """
import sys, time
from pathlib import Path
from agent.lock import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""
CONTENDER = """
import sys, time
from pathlib import Path
from agent.errors import RunLocked
from agent.lock import RunLock
try:
    with RunLock(Path(sys.argv[1])):
        print("held", flush=True)
        time.sleep(1.0)
except RunLocked:
    print("refused")
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "r1").mkdir()
    return tmp_path / "r1" / "run.lock"


def test_a_second_process_is_refused_by_name(path: Path) -> None:
    process = child(KEEPER, path)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    found = holder(path)
    assert found is not None
    assert found.pid == process.pid
    with pytest.raises(RunLocked, match=rf"process {process.pid} .* works on run 'r1'"):
        RunLock(path).__enter__()
    os.kill(process.pid, signal.SIGKILL)
    wait(process)
    assert holder(path) is None
    with RunLock(path):
        pass


def test_of_four_that_start_at_once_one_proceeds(path: Path) -> None:
    results = [wait(p)[1].strip() for p in [child(CONTENDER, path) for _ in range(4)]]
    assert sorted(results) == ["held", "refused", "refused", "refused"]


def test_it_is_released_with_an_exception(path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), RunLock(path):
        raise KeyboardInterrupt
    with RunLock(path), pytest.raises(RunLocked):
        RunLock(path).__enter__()


def test_the_holder_names_this_process(path: Path) -> None:
    assert holder(path) is None
    with RunLock(path):
        found = holder(path)
        assert isinstance(found, Holder)
        assert found.pid == os.getpid()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]", b'{"pid": "x"}'])
def test_a_damaged_file_locks_as_well(path: Path, content: bytes) -> None:
    with RunLock(path):
        path.write_bytes(content)
        with pytest.raises(RunLocked, match="a process"):
            RunLock(path).__enter__()
        assert holder(path) is not None


def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("keep", encoding="utf-8")
    path.symlink_to(target)
    with pytest.raises(StorageError):
        RunLock(path).__enter__()
    assert target.read_text(encoding="utf-8") == "keep"
