"""``forecast``: a file of draws in, one JSON object or a short table out, errors that help."""

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from agent.config import RunConfig
from agent.errors import ConfigError, StorageError
from agent.quality import check, foresee
from pipeline.errors import DataError


def write(path: Path, instructions: Iterable[object]) -> Path:
    lines = (json.dumps({"instruction": text}) for text in instructions)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent", "forecast", *arguments],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.fixture
def draws(tmp_path: Path) -> Path:
    return write(tmp_path / "draws.jsonl", [f"Name thing {i % 97}." for i in range(200)])


def test_one_json_object_with_the_interval_in_order(draws: Path) -> None:
    done = command(str(draws), "--attempts", "1000", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {"attempts", "distinct", "coverage", "method"} <= found.keys()
    assert found["attempts"] == 1000 and 0 <= found["coverage"] <= 1
    assert found["distinct"]["low"] <= found["distinct"]["expected"] <= found["distinct"]["high"]
    assert 97 <= found["distinct"]["low"] and found["distinct"]["high"] < 1000


def test_a_short_table_for_people(draws: Path) -> None:
    assert "OUTSIDE THE VALIDATED RANGE" not in foresee(draws, 4000).text
    assert "OUTSIDE THE VALIDATED RANGE" in foresee(draws, 4001).text


def test_fewer_attempts_than_draws_are_interpolated(draws: Path) -> None:
    found = foresee(draws, 50).data["distinct"]
    assert 30 < found["low"] <= found["expected"] <= found["high"] <= 50


def test_parquet_needs_no_other_column(tmp_path: Path) -> None:
    path = tmp_path / "draws.parquet"
    pq.write_table(pa.table({"instruction": ["a", "b", "a"] * 50}), path)
    assert foresee(path, 1000).data["draws"] == 150


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"response": "x"}\n', "no field 'instruction'"),
        ("", "no rows"),
        ('{"instruction": 3}\n', "must be text"),
        ("nonsense\n", "line 1: not valid JSON"),
    ],
)
def test_bad_input_is_named(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=told):
        foresee(path, 100)


def test_less_than_one_attempt_is_refused(draws: Path) -> None:
    done = command(str(draws), "--attempts", "0")
    assert done.returncode == 2 and "greater than or equal to 1" in done.stderr


@pytest.mark.parametrize("texts", [["only one"], ["the same"] * 500])
def test_one_row_and_equal_rows_have_a_forecast(tmp_path: Path, texts: list[str]) -> None:
    found = foresee(write(tmp_path / "few.jsonl", texts), 1000).data["distinct"]
    assert 1 <= found["low"] <= found["expected"] <= found["high"] <= 1000


def test_the_same_draws_again_are_no_news(tmp_path: Path) -> None:
    found = foresee(write(tmp_path / "same.jsonl", ["the same"] * 500), 10_000).data["distinct"]
    assert found["high"] <= 5


def test_text_that_is_not_unicode_is_refused_by_its_line(tmp_path: Path) -> None:
    file = tmp_path / "draws.jsonl"
    file.write_text('{"instruction": "Fine."}\n{"instruction": "\\ud800"}\n', encoding="utf-8")
    with pytest.raises(DataError, match="line 2.*not valid Unicode"):
        foresee(file, 10)


def test_one_draw_is_a_draw(tmp_path: Path) -> None:
    file = tmp_path / "draws.jsonl"
    file.write_text('{"instruction": "Only this.", "response": 5}\n', encoding="utf-8")
    text = foresee(file, 1).text
    assert "1 draw\n" in text and "distinct in 1 draw " in text


def test_where_flagged_rows_cannot_be_written_is_bad_input(tmp_path: Path) -> None:
    """Before anything is judged: the file of rows is not even looked for."""
    for target, says in ((tmp_path, "is a folder"), (tmp_path / "no" / "f", "there is no folder")):
        with pytest.raises(ConfigError, match=says) as error:
            check(tmp_path / "none", RunConfig(), rows=target, require=[], critics=False)
        assert error.value.exit_code == 2


def test_a_disk_that_takes_no_flagged_rows_says_to_repeat_the_command(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"instruction": "Say yes.", "response": "Yes."}\n', encoding="utf-8")
    with pytest.raises(StorageError, match="disk is full.*then repeat the command"):
        check(file, RunConfig(), rows=Path("/dev/full"), require=[], critics=False)
