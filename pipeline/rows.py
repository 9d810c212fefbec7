"""Reading files of rows, JSONL or Parquet, one row at a time, with errors that name the line.

A row has ``instruction`` and ``response``; ``raw`` and ``finish_reason`` are optional. What the
rows are worth is judged in ``qc.py``. The one idea: nothing is guessed; a row that is not what it
claims to be ends the reading.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import DataError

_TEXTS = ("instruction", "response")
_OPTIONAL = ("raw", "finish_reason")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file."""

    instruction: str
    """What was asked."""
    response: str
    """What the data set holds as the answer."""
    raw: str | None
    """What the engine returned, if the file says."""
    finish_reason: str | None
    """Why it ended, if the file says."""
    fields: Mapping[str, Any]
    """Every field of the row as it was read."""


def read_rows(path: Path) -> Iterator[Row]:
    """Every row of a ``.parquet`` file, or of a JSONL file under any other name.

    Raises:
        DataError: naming the file and the line or row, and what is wrong with it.
    """
    for where, fields in _objects(path, _TEXTS):
        yield _row(where, fields)


def read_instructions(path: Path) -> Iterator[str]:
    """The ``instruction`` of every row, whatever other fields there are.

    Raises:
        DataError: as :func:`read_rows`.
    """
    for where, fields in _objects(path, ("instruction",)):
        _check_unicode(where, {"instruction": fields["instruction"]})
        yield fields["instruction"]


def _objects(path: Path, texts: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Where each row stands, and its fields, of which those named are text."""
    found = 0
    parquet = path.suffix.lower() in {".parquet", ".pq"}
    for place, fields in _parquet(path, texts) if parquet else _jsonl(path):
        found += 1
        where = f"{path}, {place}"
        _check_texts(where, fields, texts)
        yield where, fields
    if not found:
        raise DataError(f"{path} has no rows; expected at least one")


def _check_texts(where: str, fields: Any, texts: Sequence[str]) -> None:
    if not isinstance(fields, dict):
        raise DataError(f"{where}: expected an object with fields, found {_shown(fields)}")
    for name in texts:
        if name not in fields:
            raise DataError(f"{where}: no field {name!r}; found {_shown(sorted(fields))}")
        if not isinstance(fields[name], str):
            raise DataError(f"{where}: {name!r} must be text, found {_shown(fields[name])}")


def _row(where: str, fields: Mapping[str, Any]) -> Row:
    for name in _OPTIONAL:
        if not isinstance(fields.get(name), str | None):
            raise DataError(f"{where}: {name!r} must be text or null, found {_shown(fields[name])}")
    _check_unicode(where, fields)
    return Row(
        fields["instruction"], fields["response"], fields.get("raw"), fields.get("finish_reason"),
        fields,
    )  # fmt: skip


def _check_unicode(where: str, fields: Mapping[str, Any]) -> None:
    """A lone surrogate, which JSON can spell, is no text that could be written again."""
    for name in (*_TEXTS, *_OPTIONAL):
        value = fields.get(name)
        try:
            (value or "").encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{where}: {name!r} is not valid Unicode: {error.reason}") from error


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _jsonl(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"line {number}", _parse(path, number, line)
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r}: {error.strerror or error}") from error


def _parse(path: Path, number: int, line: bytes) -> Any:
    where = f"{path}, line {number}"
    try:
        return json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not valid UTF-8 at byte {error.start} of the line") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not valid JSON: {error.msg} at column {error.colno}") from error
    except (RecursionError, ValueError) as error:
        raise DataError(f"{where}: cannot be read as JSON: {error}") from error


def _parquet(path: Path, texts: Sequence[str]) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            missing = [name for name in texts if name not in file.schema_arrow.names]
            if missing:
                found = _shown(sorted(file.schema_arrow.names))
                raise DataError(f"{path}: no field {missing[0]!r}; found {found}")
            number = 0
            for batch in file.iter_batches(batch_size=1024):
                for fields in _readable(batch).to_pylist():
                    number += 1
                    yield f"row {number}", fields
    except DataError:
        raise
    except (pa.ArrowException, ValueError, OverflowError) as error:
        why = str(error) or type(error).__name__
        raise DataError(f"{path}: not a Parquet file of rows: {why}") from error
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r}: {error.strerror or error}") from error


def _readable(batch: Any) -> Any:
    """The batch with columns of times as text, which Python's own types cannot always hold."""
    import pyarrow as pa

    columns = [
        column.cast(pa.string()) if pa.types.is_temporal(column.type) else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)
