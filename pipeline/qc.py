"""QC of any file of rows: the same detectors, certificates and verdicts as in a run.

Reading is ``rows.py``, counting into verdicts is ``metrics.py``; printing and exit codes are the
caller's. The one idea: a row of a stranger's file becomes a sample, and is then judged by the code
that judges our own; what such a file cannot tell is unmeasured.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipeline.detection.certify import certify_detectors
from pipeline.detection.detectors import detect
from pipeline.errors import ConfigError, DataError
from pipeline.metrics import FLAGGED, METRICS, Bound, Rules, rate_metric, unmeasured
from pipeline.near_duplicates import NearDuplicates
from pipeline.novelty import normalise
from pipeline.rows import Row, read_rows
from pipeline.types import Metric, Sample

__all__ = ["QcResult", "flag_rows", "qc", "read_rows"]

_FROM_FILES: Final = (*FLAGGED, "duplicates", "near_duplicates")
"""Metrics that a file of rows can tell."""
_FLAGS: Final = {"duplicates": "duplicate", "near_duplicates": "near_duplicate"}
"""Flags that go by another name than their metrics."""


@dataclass(frozen=True, slots=True)
class QcResult:
    """What QC found in a file."""

    path: Path
    """The file."""
    rows: int
    """Rows in it."""
    metrics: tuple[Metric, ...]
    """Every metric of the table, the unmeasured ones too."""
    flags: tuple[tuple[str, ...], ...]
    """Flags of each row, sorted, in the order of the file."""
    require: frozenset[str]
    """Metrics that must have been measured, and pass."""
    scores: tuple[Mapping[str, Any], ...] | None = None
    """Critics' scores of each row; None where no critic was asked."""

    def to_json(self) -> dict[str, Any]:
        """Rows and metrics as JSON."""
        names = ("value", "count", "n", "low", "high", "verdict")
        table = {m.name: {name: getattr(m, name) for name in names} for m in self.metrics}
        return {"rows": self.rows, "metrics": table}

    @property
    def exit_status(self) -> int:
        """0: every measured gate, and every required metric, passes; 1: not so."""
        return int(any(not _passes(m, m.name in self.require) for m in self.metrics))

    def write_rows(self, path: Path) -> None:
        """Write every row of the file with its ``flags``, and ``scores`` if it has any, as JSONL.

        Raises:
            DataError: if the file changed since it was judged, or is the one to write.
            OSError: if ``path`` cannot be written.
        """
        if path.exists() and path.samefile(self.path):
            raise DataError(f"{path} is the file that is judged; give another name")
        with path.open("w", encoding="utf-8") as file:
            for index, (row, flags) in enumerate(_paired(self.path, self.flags)):
                fields = {**row.fields, "flags": list(flags)}
                if self.scores is not None:
                    fields["scores"] = self.scores[index]
                file.write(_line(fields) + "\n")


def _line(fields: Mapping[str, Any]) -> str:
    """A row as JSON that any reader takes: no NaN, and lone surrogates only as escapes."""
    text = json.dumps(_finite(fields), ensure_ascii=False, default=str)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(_finite(fields), default=str)
    return text


def _finite(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: _finite(inner) for key, inner in value.items()}
        case list():
            return [_finite(inner) for inner in value]
        case _:
            return value


def qc(
    path: Path,
    *,
    thresholds: Mapping[str, Bound],
    alpha: float,
    require: Sequence[str] = (),
    stop: Sequence[str] = (),
    minimum: float = 0.95,
) -> QcResult:
    """Judge a JSONL or Parquet file of rows.

    Args:
        path: The file.
        thresholds: Bounds by metric name.
        alpha: Probability of a false PASS.
        require: Metrics that count even if the file cannot tell them.
        stop: Stop strings that were in force, if known.
        minimum: What the lower limits of each detector's certificate must reach.

    Raises:
        DataError: if the file cannot be read as rows.
        ConfigError: if ``require`` names no metric.
    """
    for name in require:
        if name not in METRICS:
            raise ConfigError(f"no metric is called {name!r}; there are {', '.join(METRICS)}")
    counts: Counter[str] = Counter()
    flags: list[tuple[str, ...]] = []
    for row, found in flag_rows(path, stop=stop):
        counts.update(found)
        counts["has finish_reason"] += row.finish_reason is not None
        flags.append(found)
    rules = Rules(thresholds, certify_detectors(stop, minimum=minimum), alpha)
    metrics = tuple(_metric(name, counts, len(flags), rules) for name in METRICS)
    return QcResult(path, len(flags), metrics, tuple(flags), frozenset(require))


def flag_rows(path: Path, *, stop: Sequence[str] = ()) -> Iterator[tuple[Row, tuple[str, ...]]]:
    """Each row of a file with its flags, sorted."""
    seen: set[bytes] = set()
    near = NearDuplicates()
    for index, row in enumerate(read_rows(path)):
        found = detect(_sample(index, row), stop=stop)
        key = hashlib.blake2b(normalise(row.instruction).encode(), digest_size=16).digest()
        if key in seen:
            found = tuple(sorted((*found, "duplicate")))
        elif near.add(row.instruction):
            found = tuple(sorted((*found, "near_duplicate")))
        seen.add(key)
        yield row, found


def _sample(index: int, row: Row) -> Sample:
    """A row as a sample; a finish reason that no engine of ours knows is only not ``length``."""
    reason = row.finish_reason
    return Sample(
        index, row.instruction, row.instruction,
        raw=row.response if row.raw is None else row.raw, clean=row.response,
        finish_reason="length" if reason == "length" else None if reason is None else "eos",
    )  # fmt: skip


def _metric(name: str, counts: Counter[str], rows: int, rules: Rules) -> Metric:
    threshold = str(rules.thresholds[name]) if name in rules.thresholds else None
    if name not in _FROM_FILES:
        return unmeasured(name, "not measured: a file of rows does not tell", threshold=threshold)
    told = counts["has finish_reason"]
    if name == "token_limit" and told < rows:
        reason = f"not measured: {rows - told} of {rows} rows have no finish_reason"
        return unmeasured(name, reason, threshold=threshold)
    return rate_metric(name, counts[_FLAGS.get(name, name)], rows, rules)


def _passes(metric: Metric, required: bool) -> bool:
    if metric.value is None:
        return not required
    return metric.verdict in {None, "PASS"}


def _paired(path: Path, flags: Sequence[tuple[str, ...]]) -> Iterator[tuple[Row, tuple[str, ...]]]:
    left = iter(flags)
    for row in read_rows(path):
        mine = next(left, None)
        if mine is None:
            raise DataError(f"{path} has more rows than when it was judged")
        yield row, mine
    if next(left, None) is not None:
        raise DataError(f"{path} has fewer rows than when it was judged")
