import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.errors import StorageError
from agent.files import fsync_tree, make_folder, replacing, swap_folder, sweep


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


def test_every_folder_of_a_tree_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.readlink(_link(handle))))
    for name in ("a/b", "c"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a" / "file").touch()
    fsync_tree(tmp_path)
    expected = [tmp_path, tmp_path / "a", tmp_path / "a" / "b", tmp_path / "c"]
    assert sorted(synced) == sorted(map(str, expected))


def _link(handle: int) -> str:
    return f"/proc/self/fd/{handle}"


def test_a_finished_folder_takes_the_place_of_another(tmp_path: Path) -> None:
    for name, text in (("new", "two"), ("target", "one")):
        (tmp_path / name / "data").mkdir(parents=True)
        (tmp_path / name / "data" / "x").write_text(text, encoding="utf-8")
    swap_folder(tmp_path / "new", tmp_path / "target")
    assert (tmp_path / "target" / "data" / "x").read_text(encoding="utf-8") == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["target"]


def test_a_folder_is_never_half_removed_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("new", "target"):
        (tmp_path / name).mkdir()
    (tmp_path / "target" / "x").touch()
    removed: list[str] = []
    monkeypatch.setattr("shutil.rmtree", lambda path, **_: removed.append(path.name))
    swap_folder(tmp_path / "new", tmp_path / "target")
    (aside,) = removed
    assert aside.startswith(".target.") and (tmp_path / aside / "x").exists()


def test_folders_that_killed_writers_left_are_removed(tmp_path: Path) -> None:
    left = tmp_path / ".dataset.123.0123abcd.tmp"
    (left / "data").mkdir(parents=True)
    (tmp_path / ".dataset.tmp").mkdir()
    assert sweep(tmp_path) == 1
    assert [p.name for p in tmp_path.iterdir()] == [".dataset.tmp"]
