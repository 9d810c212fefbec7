"""The data set as files: Parquet and JSONL, a manifest of hashes, and a card.

Rows are written in draw order with fixed writer settings, so the same rows give the same bytes.
What the rows are worth is told by the QC results that the caller passes in; nothing is judged
here.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.types import Sample
from prompts.render import render


@dataclass(frozen=True, slots=True)
class DatasetFile:
    """One file of a data set."""

    path: str
    """Relative to the data set's folder."""
    sha256: str
    """Of its bytes."""
    bytes: int
    """Its size."""
    rows: int | None
    """Rows in it, for a file of rows."""


def row(sample: Sample) -> dict[str, Any]:
    """A kept sample as a row of the data set."""
    assert sample.kept, "only kept samples become rows"
    return {
        "id": sample.index,
        "instruction": sample.instruction,
        "response": sample.clean,
        "instruction_score": sample.instruction_score,
        "pair_scores": json.dumps(dict(sample.pair_scores), sort_keys=True),
        "finish_reason": sample.finish_reason,
        "tokens": sample.clean_tokens,
    }


def messages(sample: Sample) -> dict[str, Any]:
    """A kept sample in the chat form that trainers read."""
    return {
        "messages": [
            {"role": "user", "content": sample.instruction},
            {"role": "assistant", "content": sample.clean},
        ]
    }


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a data set ends, and where its files do."""

    rows: int
    """Rows in one shard."""
    target: int
    """Rows in all."""


def cut_shards(samples: Sequence[Sample], cut: Cut) -> list[list[Sample]]:
    """Samples in draw order, cut after every ``cut.rows`` kept ones, up to the target.

    A shard holds all samples of its stretch, dropped ones too.
    """
    shards: list[list[Sample]] = [[]]
    kept = 0
    for sample in samples:
        if kept == cut.target:
            break
        if kept and kept % cut.rows == 0 and shards[-1] and shards[-1][-1].kept:
            shards.append([])
        shards[-1].append(sample)
        kept += sample.kept
    return [shard for shard in shards if shard]


def write_dataset(
    folder: Path, attempted: Sequence[Sample], *, cut: Cut, card: Mapping[str, Any]
) -> list[DatasetFile]:
    """Write every file of a data set but its manifest into an empty ``folder``.

    Every sample that was attempted is in one of them: rows of the data set, rows kept beyond the
    target, and rows that were dropped.

    Args:
        folder: An existing, empty folder.
        attempted: Every sample, in draw order.
        cut: Where the target and its shards end.
        card: Values of the card's template.

    Raises:
        OSError: if the disk is full.
    """
    shards = cut_shards(attempted, cut)
    kept = [s for shard in shards for s in shard if s.kept]
    files = [
        _parquet(folder, f"data/train-{i:05d}-of-{len(shards):05d}.parquet", shard)
        for i, shard in enumerate(shards)
    ]
    surplus = [s for s in attempted if s.kept][len(kept) :]
    files += [
        _jsonl(folder, "train.jsonl", map(row, kept)),
        _jsonl(folder, "train.messages.jsonl", map(messages, kept)),
        _jsonl(folder, "surplus.jsonl", map(row, surplus)),
        _jsonl(folder, "rejected.jsonl", (s.to_json() for s in attempted if s.dropped)),
    ]
    text = render("dataset_card.md.j2", files=files, surplus=len(surplus), **card)
    files.append(_bytes(folder, "README.md", text.encode(), rows=None))
    return files


def write_manifest(
    folder: Path, files: Sequence[DatasetFile], facts: Mapping[str, Any]
) -> DatasetFile:
    """Write ``manifest.json``: every file's hash, and the facts that the rows came from."""
    entries = [
        {"path": f.path, "sha256": f.sha256, "bytes": f.bytes, "rows": f.rows} for f in files
    ]
    text = json.dumps({"files": entries, **facts}, indent=2, sort_keys=True, ensure_ascii=False)
    return _bytes(folder, "manifest.json", f"{text}\n".encode(), rows=None)


def _parquet(folder: Path, name: str, shard: Sequence[Sample]) -> DatasetFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            ("id", pa.int64()),
            ("instruction", pa.string()),
            ("response", pa.string()),
            ("instruction_score", pa.float64()),
            ("pair_scores", pa.string()),
            ("finish_reason", pa.string()),
            ("tokens", pa.int64()),
        ]
    )
    rows = [row(s) for s in shard if s.kept]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink, compression="zstd")
    return _bytes(folder, name, sink.getvalue().to_pybytes(), rows=len(rows))


def _jsonl(folder: Path, name: str, rows: Iterable[Mapping[str, Any]]) -> DatasetFile:
    lines = [json.dumps(r, ensure_ascii=False, sort_keys=True) for r in rows]
    return _bytes(folder, name, "".join(f"{line}\n" for line in lines).encode(), rows=len(lines))


def _bytes(folder: Path, name: str, content: bytes, *, rows: int | None) -> DatasetFile:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return DatasetFile(name, hashlib.sha256(content).hexdigest(), len(content), rows)
