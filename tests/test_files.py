import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.errors import StorageError
from agent.files import make_folder, replacing, sweep


def write(path: Path, content: bytes) -> None:
    with replacing(path) as stream:
        stream.write(content)


def test_it_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write(path, b"one")
    write(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write(path, b"one")
    with pytest.raises(RuntimeError), replacing(path) as stream:
        stream.write(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


def failing(real: Callable[..., object], code: int) -> Callable[..., object]:
    def fail(*arguments: object, **named: object) -> object:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT], ids=errno.errorcode.get)
@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
def test_whatever_the_disk_refuses_is_a_storage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    path = tmp_path / "a"
    write(path, b"one")
    with monkeypatch.context() as patch:
        if call == "fsync":
            patch.setattr(os, "fsync", failing(os.fsync, code))
        else:
            patch.setattr(Path, call, failing(getattr(Path, call), code))
        with pytest.raises(StorageError, match="resume") as raised:
            write(path, b"two")
    assert str(path) in str(raised.value)
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_is_really_full() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    from agent.files import storage_errors

    with pytest.raises(StorageError, match="disk is full"), storage_errors(full):
        full.write_bytes(b"x" * 100_000)


def test_content_and_name_are_synced_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(handle: int) -> None:
        done.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file")
        real_fsync(handle)

    def replace(self: Path, target: Path) -> Path:
        done.append("rename")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    write(tmp_path / "a", b"one")
    assert done == ["file", "rename", "folder"]


def test_what_a_killed_writer_left_is_swept(tmp_path: Path) -> None:
    make_folder(tmp_path / "rounds")
    (tmp_path / "mine.tmp").touch()
    (tmp_path / ".mine.tmp").touch()
    for path in (tmp_path / "run.json", tmp_path / "rounds" / "01.json"):
        with replacing(path) as stream:
            stream.write(b"x")
            # What is under way now is what a kill would leave.
            (scratch,) = path.parent.glob(f".{path.name}.*")
            other = "1" if scratch.name[-5] == "0" else "0"
            left = path.parent / f"{scratch.name[:-5]}{other}.tmp"
            left.touch()
    assert sweep(tmp_path) == 2
    kept = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert kept == {"mine.tmp", ".mine.tmp", "run.json", "01.json"}


def test_folders_are_made_durably(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    assert len(synced) == 2


def test_a_folder_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(StorageError):
        make_folder(tmp_path / "a" / "b")
