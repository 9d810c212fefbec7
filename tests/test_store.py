import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import RunError, StorageError
from agent.paths import check_run_id, list_runs
from agent.records import RoundRecord, RunRecord, SmokeAudit, Spend
from agent.store import RunStore
from pipeline.params import GenParams
from pipeline.types import Funnel, Metric

HOSTILE_IDS = [
    "", ".", "..", "...", "../x", "../../etc/passwd", "/", "/etc", "/etc/passwd", "a/b", "a/../b",
    "a/..", "./a", "a/", "//a", "a//b", "a\\b", "..\\x", "C:\\x", "c:x", "~", "~root", "~/x",
    "$HOME",
    "${HOME}", "`id`", "$(id)", "a;rm -rf /", "a|b", "a&b", "a b", " a", "a ", "a\n", "\na", "a\0b",
    "a\tb", "A", "Run", "-rf", "--help", "_a", ".hidden", "é", "а", "a\u202eb", "a\u0301", "％2e",
    "%2e%2e", "a*", "a?", "[a]", "a" * 65, "a" * 10_000, "reports/x", "file:///etc", "nul\x00",
    "a:b",
    "a'b", 'a"b', "\x1b[31m", "１",
]  # fmt: skip


@pytest.mark.parametrize("run_id", HOSTILE_IDS)
def test_hostile_run_ids_are_refused(tmp_path: Path, run_id: str) -> None:
    root = tmp_path / "reports"
    for make in (RunStore.create, RunStore.open, RunStore):
        with pytest.raises(RunError):
            make(root, run_id)
    assert not root.exists()
    assert list(tmp_path.iterdir()) == []


@given(st.text(max_size=70))
def test_an_accepted_id_is_a_plain_name(text: str) -> None:
    try:
        check_run_id(text)
    except RunError:
        return
    assert Path("x", text).parent == Path("x")
    assert text.isascii()
    assert text not in {".", ".."}


@pytest.mark.parametrize("run_id", ["example", "2026-11-22-1430", "a", "0", "a..b", "a" * 64])
def test_ordinary_run_ids(tmp_path: Path, run_id: str) -> None:
    assert RunStore.create(tmp_path, run_id).path == tmp_path.resolve() / run_id
    assert RunStore.open(tmp_path, run_id).run_id == run_id
    assert list_runs(tmp_path) == [run_id]


def test_ids_are_taken_once_and_unknown_ones_are_named(tmp_path: Path) -> None:
    RunStore.create(tmp_path, "one")
    # Killed before its record was written, it may be made again.
    RunStore.create(tmp_path, "one").write_text("run.json", "{}")
    with pytest.raises(RunError, match="exists already"):
        RunStore.create(tmp_path, "one")
    with pytest.raises(RunError, match="names the latest one"):
        RunStore.create(tmp_path, "last")
    with pytest.raises(RunError, match="known runs: one"):
        RunStore.open(tmp_path, "two")
    assert list_runs(tmp_path / "none") == []


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    root = tmp_path / "reports"
    root.mkdir()
    (root / "link").symlink_to(outside)
    with pytest.raises(RunError, match="link"):
        RunStore.open(root, "link")
    assert list_runs(root) == []
    store = RunStore.create(root, "run")
    (store.path / "rounds").symlink_to(outside)
    with pytest.raises(RunError, match="link"):
        store.write_text("rounds/01.md", "x")
    (store.path / "report.md").symlink_to(outside / "report.md")
    with pytest.raises(RunError, match="link"):
        store.write_text("report.md", "x")
    assert list(outside.iterdir()) == []


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore.create(tmp_path / "reports", "run")


@pytest.mark.parametrize(
    "relative",
    ["", ".", "..", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", "a\\b", "a\0b", "./a"],
)
def test_paths_stay_within_the_folder(store: RunStore, relative: str) -> None:
    for act in (
        lambda: store.write_bytes(relative, b"x"),
        lambda: store.write_text(relative, "x"),
        lambda: store.read_bytes(relative),
    ):
        with pytest.raises(RunError, match="not a path"):
            act()
    assert list(store.path.iterdir()) == []


def test_files_are_read_back(store: RunStore) -> None:
    store.write_text("a/b/c.md", "Grüße \u2028 \ud800")
    assert store.read_text("a/b/c.md") == "Grüße \u2028 ?"
    store.write_json("a.json", {"b": 1, "a": [None]})
    assert json.loads(store.read_text("a.json")) == {"a": [None], "b": 1}
    with pytest.raises(ValueError, match="Out of range"):
        store.write_json("a.json", float("nan"))
    store.write_bytes("raw", b"\xff")
    with pytest.raises(RunError, match="not UTF-8"):
        store.read_text("raw")
    with pytest.raises(RunError, match="No such file"):
        store.read_text("none")


ROWS = [{"text": "a\u2028b\r\nc\ud800 ü", "n": 1.5, "ids": [1, 2]}, {"n": None, "text": ""}]


def test_artifacts_are_named_by_their_content(store: RunStore) -> None:
    name = store.put_artifact(ROWS)
    assert store.put_artifact([dict(reversed(row.items())) for row in ROWS]) == name
    assert store.get_artifact(name) == ROWS
    assert [p.name for p in (store.path / "artifacts").iterdir()] == [f"{name}.jsonl"]
    empty = store.put_artifact(iter(()))
    assert store.get_artifact(empty) == []
    assert store.put_artifact(ROWS[:1]) not in {name, empty}


def test_a_damaged_artifact_is_never_accepted(store: RunStore) -> None:
    name = store.put_artifact(ROWS)
    path = store.path / "artifacts" / f"{name}.jsonl"
    content = path.read_bytes()
    for place in range(0, len(content), 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(RunError, match="hash"):
            store.get_artifact(name)
    path.write_bytes(content[:-1])
    with pytest.raises(RunError, match="hash"):
        store.get_artifact(name)
    assert store.put_artifact(ROWS) == name
    assert store.get_artifact(name) == ROWS


@pytest.mark.parametrize("name", ["", "x", "../run.json", "A" * 64, "0" * 64])
def test_artifacts_that_are_not_there(store: RunStore, name: str) -> None:
    with pytest.raises(RunError):
        store.get_artifact(name)


def test_a_full_disk_leaves_no_artifact(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:

        def full(handle: int) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError):
            store.put_artifact(ROWS)
    assert not list(store.path.glob("artifacts/*"))
    assert store.get_artifact(store.put_artifact(ROWS)) == ROWS


def a_round(number: int) -> RoundRecord:
    return RoundRecord(
        round=number,
        params=GenParams().replace({"response.stop": ("\n###", "\nQ:")}),
        micro_batches=2,
        tokens=100,
        metrics=(Metric("runaway", None, None, 0, None, None, None, None, "").to_json(),),
        funnel=Funnel(1, 1, 1, 1, 1, 1, 1, 1).to_json(),
        certificates=(),
        causes={},
        stops={"eos": 1},
        response_tokens=(1, 2),
        audit=SmokeAudit(rows=1, passed=True, checks=(), flagged_ids=()),
        random_samples=({"index": 0, "instruction_raw": "", "raw": "\ud800"},),
        flagged_samples=(),
        forecast=None,
        step="REVIEW",
        reason="runaway",
        spend=Spend(),
    )


@pytest.mark.parametrize(
    "damage", [{"metrics": [{}]}, {"funnel": {}}, {"certificates": [{"x": 1}]}, {"round": "one"}]
)
def test_a_damaged_round_is_named(tmp_path: Path, damage: dict[str, Any]) -> None:
    store = RunStore.create(tmp_path, "run")
    store.write_json("rounds/01.json", a_round(1).model_dump(mode="json") | damage)
    with pytest.raises(RunError, match=r"rounds/01.json is damaged"):
        store.load_rounds()


def a_run(run_id: str = "run") -> RunRecord:
    return RunRecord(
        run_id=run_id,
        created="2026-11-22T00:00:00Z",
        version="0",
        config={},
        config_digest="c" * 64,
        engine=None,
        device_price_usd_per_hour=None,
        reviewer="rules",
        limit_usd=300.0,
        confirmed_usd=0.0,
        possible_usd=0.0,
        status="running",
        reason="",
    )


def test_records_are_read_back(store: RunStore) -> None:
    assert store.load_rounds() == ()
    store.write_text("rounds/01-note.json", "not a record")
    for number in (2, 1, 2):
        store.save_round(a_round(number))
    shown = ({"index": 0, "instruction_raw": "", "raw": "?"},)
    expected = [a_round(n).model_copy(update={"random_samples": shown}) for n in (1, 2)]
    assert store.load_rounds() == tuple(expected)
    store.save_run(a_run())
    assert store.load_run() == a_run()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"round": 1}', "null", "NaN", '{"round": "x"}']
)
def test_damaged_records_are_named(store: RunStore, content: str) -> None:
    store.write_text("rounds/01.json", content)
    store.write_text("run.json", content)
    with pytest.raises(RunError, match=r"rounds/01\.json is damaged"):
        store.load_rounds()
    with pytest.raises(RunError, match=r"run\.json is damaged"):
        store.load_run()


def test_records_in_the_wrong_place_are_named(store: RunStore) -> None:
    store.save_round(a_round(2))
    with pytest.raises(RunError, match=r"01\.json"):
        store.load_rounds()
    store.write_json("rounds/01.json", a_round(2).model_dump(mode="json"))
    with pytest.raises(RunError, match="holds round 2"):
        store.load_rounds()
    store.save_run(a_run("other"))
    with pytest.raises(RunError, match="was renamed or copied; rename it back to 'other'"):
        store.load_run()
    with pytest.raises(RunError, match=r"run\.json"):
        RunStore.create(store.path.parent, "empty").load_run()
