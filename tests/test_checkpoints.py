"""Checkpoints on the disk: sealed, plain, and set aside when they are not what was written."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.checkpoints import KIND, MAX_BYTES, Damaged, SealedJson, is_sound, set_aside


@dataclass(frozen=True)
class Interrupt:
    """As LangGraph's."""

    value: Any
    id: str


SERDE = SealedJson(Interrupt)


@pytest.mark.parametrize(
    "value",
    [None, 0, "", "\ud800 é", [1, "a"], {"a": {"b": None}}, [Interrupt({"plan": "x"}, "y")]],
)
def test_what_was_written_is_read(value: object) -> None:
    assert SERDE.loads_typed(SERDE.dumps_typed(value)) == value


def test_every_flipped_bit_is_found() -> None:
    kind, content = SERDE.dumps_typed({"round": 1, "step": "CONTINUE"})
    for bit in range(len(content) * 8):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Damaged):
            SERDE.loads_typed((kind, bytes(flipped)))


@pytest.mark.parametrize("kind", ["pickle", "msgpack", "json", "bytes", "null", "", None])
def test_no_other_kind_is_read(kind: Any) -> None:
    _, content = SERDE.dumps_typed({})
    with pytest.raises(Damaged):
        SERDE.loads_typed((kind, content))


@pytest.mark.parametrize("content", [b"", b"{}", "text", None, b"a" * (MAX_BYTES + 1)])
def test_nor_any_other_content(content: Any) -> None:
    with pytest.raises(Damaged):
        SERDE.loads_typed((KIND, content))


def test_what_sqlite_keeps_beside_a_file_is_set_aside_with_it(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.executescript(
            "PRAGMA journal_mode=WAL; CREATE TABLE t (a); INSERT INTO t VALUES (1)"
        )
        set_aside(path)
        assert {p.name for p in tmp_path.iterdir()} == {
            f"checkpoints.sqlite.damaged{suffix}" for suffix in ("", "-wal", "-shm")
        }


def test_a_fault_of_the_disk_is_not_damage(tmp_path: Path) -> None:
    def refuse(_: sqlite3.Connection) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL  # type: ignore[attr-defined]
        raise error

    path = tmp_path / "checkpoints.sqlite"
    path.touch()
    with pytest.raises(sqlite3.OperationalError):
        is_sound(path, refuse)
