"""QC of files: metrics, flags, exit status, and clear errors for what is no file of rows."""

import json
import time

import pytest

from pipeline.errors import ConfigError, DataError
from pipeline.metrics import Bound
from pipeline.qc import qc
from pipeline.rows import read_rows

LIMITS = {
    "runaway": Bound(max=0.05), "repetition": Bound(max=0.05), "token_limit": Bound(max=0.1),
    "truncated": Bound(max=0.02), "delimiter_leak": Bound(max=0.02), "empty": Bound(max=0.05),
    "instruction_acceptance": Bound(min=0.5), "pair_acceptance": Bound(min=0.5),
}  # fmt: skip


def good(i, **more):
    return {"instruction": f"Name fruit {i}.", "response": f"Fruit {i} is a pear.", **more}


def write(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


def judged(path, **more):
    return qc(path, thresholds=LIMITS, alpha=0.05, **more)


@pytest.fixture
def mixed(tmp_path):
    rows = [good(i, finish_reason="stop") for i in range(20)]
    rows += [
        good(0, finish_reason="stop", note={"a": 1}),
        {"instruction": "A", "response": "Yes.\n\nInstruction: B\nResponse: C"},
        {"instruction": "B", "response": "", "finish_reason": "length"},
        {"instruction": "C", "response": "Paris.###", "finish_reason": "eos"},
        {"instruction": "D", "response": "Plants need light and", "finish_reason": "stop"},
        {"instruction": "E", "response": "Yes.", "raw": "Yes.\nQ: No?", "finish_reason": "x"},
        {"instruction": "F", "response": "no " * 40, "finish_reason": "length"},
    ]  # fmt: skip
    return write(tmp_path / "rows.jsonl", rows)


def test_flags_of_every_row(mixed, tmp_path):
    result = judged(mixed)
    assert result.flags[:20] == ((),) * 20
    assert result.flags[20:] == (
        ("duplicate",), ("delimiter_leak", "runaway"), ("empty", "token_limit"),
        ("delimiter_leak",), ("truncated",), ("runaway",), ("repetition", "token_limit"),
    )  # fmt: skip
    out = tmp_path / "out.jsonl"
    result.write_rows(out)
    written = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [tuple(r["flags"]) for r in written] == list(result.flags)
    assert written[20]["note"] == {"a": 1}


def test_the_json_has_the_documented_form(mixed):
    found = judged(mixed).to_json()
    assert found["rows"] == 27
    assert set(found["metrics"]["runaway"]) == {"value", "count", "n", "low", "high", "verdict"}
    assert (found["metrics"]["runaway"]["count"], found["metrics"]["duplicates"]["count"]) == (2, 1)
    assert found["metrics"]["token_limit"]["value"] is None
    assert found["metrics"]["yield"]["value"] is None
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    ("rows", "require", "status"),
    [
        ([good(i) for i in range(250)], (), 0),
        ([good(i) for i in range(250)], ("runaway", "duplicates"), 0),
        ([good(i) for i in range(250)], ("token_limit",), 1),
        ([good(i, finish_reason="eos") for i in range(250)], ("token_limit",), 0),
        ([good(i) for i in range(250)], ("pair_acceptance",), 1),
        ([good(i) for i in range(30)], (), 1),
        ([good(i) for i in range(150)] + [{"instruction": "x", "response": ""}] * 100, (), 1),
    ],
    ids=["good", "required", "unknown cap", "known cap", "no critic", "few", "bad"],
)
def test_exit_status(tmp_path, rows, require, status):
    assert judged(write(tmp_path / "rows.jsonl", rows), require=require).exit_status == status


def test_parquet_and_jsonl_are_judged_alike(mixed, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = ("instruction", "response", "raw", "finish_reason")
    rows = [{n: r.fields.get(n) for n in names} for r in read_rows(mixed)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    one, other = judged(mixed), judged(tmp_path / "rows.parquet")
    assert one.to_json() == other.to_json() and one.flags == other.flags


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no rows"),
        (b"\n\n", "no rows"),
        (b'{"instruction": "a", "response": "b"}\n{"instruction": \n', "line 2: not valid JSON"),
        (b'{"instruction": "a"}\n', "line 1: no field 'response'"),
        (b'{"instruction": "a", "response": 3}\n', "line 1: 'response' must be text, found 3"),
        (b'{"instruction": "a", "response": null}\n', "'response' must be text"),
        (b'{"instruction": "a", "response": "b", "raw": []}\n', "'raw' must be text or null"),
        (b'[1, 2]\n', "expected an object"),
        (b'{"instruction": "a", "response": "\xff"}\n', "line 1: not valid UTF-8"),
        (b'{"instruction": "a", "response": "\\ud800"}\n', "not valid Unicode"),
        (b"[" * 100_000 + b"\n", "line 1"),
    ],
)  # fmt: skip
def test_what_is_no_file_of_rows_is_an_error_with_its_line(tmp_path, content, message):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        judged(path)
    assert str(path) in str(caught.value) and caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["absent.jsonl", "absent.parquet", "folder"])
def test_a_file_that_cannot_be_read_is_an_error(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="cannot read"):
        judged(tmp_path / name)


def test_a_broken_parquet_file_is_an_error(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "rows.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(DataError, match="not a Parquet file"):
        judged(tmp_path / "rows.parquet")
    pq.write_table(pa.table({"instruction": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match="no field 'response'"):
        judged(tmp_path / "other.parquet")


def test_an_unknown_metric_cannot_be_required(mixed):
    with pytest.raises(ConfigError, match="'runnaway'"):
        judged(mixed, require=("runnaway",))


def test_rows_are_not_written_over_the_file_that_is_judged(mixed):
    result = judged(mixed)
    with pytest.raises(DataError, match="another name"):
        result.write_rows(mixed)
    assert judged(mixed).rows == 27


def test_rows_of_a_file_that_grew_are_not_paired_with_old_flags(mixed, tmp_path):
    result = judged(mixed)
    mixed.write_text(mixed.read_text() + json.dumps(good(99)) + "\n")
    with pytest.raises(DataError, match="more rows"):
        result.write_rows(tmp_path / "out.jsonl")


@pytest.mark.parametrize(
    ("rows", "verdicts", "repeats"),
    [
        ([good(0)], {"INSUFFICIENT"}, 0),
        ([good(0)] * 300, {"PASS"}, 299),
        ([{"instruction": "Name a fruit.", "response": ""}] * 300, {"PASS", "FAIL"}, 299),
    ],
    ids=["one row", "all equal", "all bad and equal"],
)
def test_what_tells_little_is_judged_honestly(tmp_path, rows, verdicts, repeats):
    found = judged(write(tmp_path / "rows.jsonl", rows))
    by_name = {m.name: m for m in found.metrics}
    measured = {m.verdict for m in found.metrics if m.value is not None and m.verdict}
    assert measured == verdicts
    assert by_name["duplicates"].count == repeats and by_name["near_duplicates"].count == 0


def test_a_near_duplicate_is_flagged_beside_exact_ones(tmp_path):
    asked = ("What is the capital of France?", "What's the capital of France?",
             "what is the capital of france?", "What is the capital of Spain?")  # fmt: skip
    rows = [{"instruction": a, "response": "It is a city."} for a in asked]
    found = judged(write(tmp_path / "rows.jsonl", rows))
    assert found.flags == ((), ("near_duplicate",), ("duplicate",), ())
    table = found.to_json()["metrics"]
    assert (table["near_duplicates"]["count"], table["duplicates"]["count"]) == (1, 1)


UNITS = {
    "newlines": "\n", "1.": "1. ", "#": "#", "Q:": "Q:", "spaces": " ", "a": "a ", "quotes": "'\"",
    "nested": "\"('[", "blank items": "1. \n", "marks": "#\n", "rules": "===\n",
    "words": "the cat sat on a mat ", "labels": "Abc: What is it?\nDef: x\n",
}  # fmt: skip


@pytest.mark.parametrize("unit", UNITS.values(), ids=UNITS)
def test_megabytes_in_one_response_take_seconds(tmp_path, unit):
    text = unit * (2_000_000 // len(unit))
    path = write(tmp_path / "rows.jsonl", [{"instruction": "Tell me of it.", "response": text}])
    started = time.process_time()
    assert judged(path).rows == 1
    assert time.process_time() - started < 15


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["#\n", "\n", "a "], ids=["marks", "newlines", "a"])
def test_ten_megabytes_take_seconds(tmp_path, unit):
    text = unit * (10_000_000 // len(unit))
    path = write(tmp_path / "rows.jsonl", [{"instruction": "Tell me of it.", "response": text}])
    started = time.process_time()
    assert judged(path).rows == 1
    assert time.process_time() - started < 30


def test_a_hundred_thousand_rows_fit_in_a_minute(tmp_path):
    """A fiftieth of them, 500 characters each, in a fiftieth of the time."""
    text = " ".join(f"Sentence {k} tells of plants, animals and stars." for k in range(11))
    path = write(
        tmp_path / "rows.jsonl",
        [{"instruction": f"Write {i}.", "response": text} for i in range(2000)],
    )
    judged(path)
    started = time.process_time()
    judged(path)
    assert time.process_time() - started < 60 / 50 + 1
