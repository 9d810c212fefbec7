"""docs/RELIABILITY.md: its table is what the proofs measured, for every promise."""

import json
from pathlib import Path

from benchmarks import promises


def test_the_table_is_what_was_measured() -> None:
    text = promises.PAGE.read_text(encoding="utf-8")
    assert promises.page(text, promises.figures()) == text, "run python -m benchmarks.promises"


def test_every_promise_was_measured() -> None:
    measured = {found["promise"] for found in promises.figures().values()}
    assert {p.id for p in promises.PROMISES} <= measured


def test_every_figure_is_of_a_test_that_exists() -> None:
    for name in promises.figures():
        file, *_, test = name.split(" ")[0].split("::")
        assert f"def {test.split('[')[0]}(" in (promises.ROOT / file).read_text(encoding="utf-8")


def test_a_figure_cannot_break_the_table(tmp_path: Path) -> None:
    odd = {"t::x P1": {"promise": "P1", "figure": "a | b", "effort": "proof", "on": "2026-01-01"}}
    assert "a \\| b" in promises.table(json.loads(json.dumps(odd)))
