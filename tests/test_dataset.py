"""The data set: shards, files, hashes, bytes."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline.dataset import Cut, cut_shards, row, write_dataset, write_manifest
from pipeline.types import Sample

HOSTILE = "a | b\n```\n<script>alert(1)</script>\u202e\x00 é 漢"


def sample(index: int, *, dropped: str | None = None, text: str = "Yes.") -> Sample:
    return Sample(
        index, f" Is {index} a number?", f"Is {index} a number?", 1.0,
        raw=f" {text}", clean=text, finish_reason="stop", stop="\n",
        pair_scores={"lift": 0.5}, clean_tokens=2, dropped=dropped,
    )  # fmt: skip


ALL = Cut(rows=100, target=100)
ROWS = [sample(i, dropped="pair_critic" if i % 3 == 2 else None) for i in range(30)]


def card(**changed: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "run_id": "r", "version": "0", "plan_hash": "abc", "rows": 20, "attempts": 30,
        "funnel": {"generated": 30, "kept": 20}, "metrics": [], "params_yaml": "x: 1\n",
        "params": {"fewshot": {"set": "core"}},
        "engine": {"model": "m", "digest": "d", "dtype": "float32", "device": "cpu"},
        "qc": "passed: all 8 gates", "stopped": "20 rows kept",
        "cost": "$0.10", "run_cost": "$0.20", "published": True,
        "size_category": "n<1K",
    }  # fmt: skip
    return facts | changed


def test_shards_hold_what_was_attempted_and_end_at_the_target() -> None:
    shards = cut_shards(ROWS, Cut(rows=8, target=19))
    kept = [sum(s.kept for s in shard) for shard in shards]
    assert kept == [8, 8, 3]
    assert [s.index for shard in shards for s in shard] == list(range(28))
    assert cut_shards([], Cut(rows=8, target=5)) == []


def test_files_say_what_they_hold(tmp_path: Path) -> None:
    files = write_dataset(tmp_path, ROWS, cut=Cut(8, 100), card=card())
    for file in files:
        content = (tmp_path / file.path).read_bytes()
        assert hashlib.sha256(content).hexdigest() == file.sha256
        assert len(content) == file.bytes
    parquet = [f for f in files if f.path.endswith(".parquet")]
    assert [f.rows for f in parquet] == [8, 8, 4]
    first = pq.read_table(tmp_path / parquet[0].path).to_pylist()[0]
    assert first == row(ROWS[0])
    rejected = (tmp_path / "rejected.jsonl").read_text(encoding="utf-8")
    assert len(rejected.splitlines()) == 10


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    hashes = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        files = write_dataset(tmp_path / name, ROWS, cut=Cut(8, 9), card=card())
        hashes.append([(f.path, f.sha256) for f in files])
    assert hashes[0] == hashes[1]


def test_model_text_stays_byte_exact_in_rows(tmp_path: Path) -> None:
    write_dataset(tmp_path, [sample(0, text=HOSTILE)], cut=ALL, card=card())
    line = (tmp_path / "train.messages.jsonl").read_text(encoding="utf-8")
    assert json.loads(line)["messages"][1] == {"role": "assistant", "content": HOSTILE}
    table = pq.read_table(next((tmp_path / "data").glob("*.parquet")))
    assert table["response"].to_pylist() == [HOSTILE]


def test_a_card_says_when_qc_failed(tmp_path: Path) -> None:
    write_dataset(
        tmp_path,
        [sample(0)],
        cut=ALL,
        card=card(qc="failed: runaway 9.0%", stopped="shard 1 failed", published=False),
    )
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "**failed: runaway 9.0%**" in text and "shard 1 failed" in text


def test_the_manifest_lists_every_file(tmp_path: Path) -> None:
    files = write_dataset(tmp_path, [sample(0)], cut=ALL, card=card())
    write_manifest(tmp_path, files, {"rows": 1})
    manifest = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    named = {f["path"] for f in manifest["files"]} | {"manifest.json"}
    assert named == {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}


def test_every_attempt_is_in_one_file(tmp_path: Path) -> None:
    write_dataset(tmp_path, ROWS, cut=Cut(rows=8, target=13), card=card())
    counts = {
        name: len((tmp_path / f"{name}.jsonl").read_text(encoding="utf-8").splitlines())
        for name in ("train", "surplus", "rejected")
    }
    assert counts == {"train": 13, "surplus": 7, "rejected": 10}
    assert "7 beyond the number wanted" in (tmp_path / "README.md").read_text(encoding="utf-8")
