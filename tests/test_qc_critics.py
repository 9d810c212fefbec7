"""``qc --critics``: scores of every row, the certificate, acceptance where a critic may judge."""

import json
from pathlib import Path

import pytest

from agent.config import RunConfig
from agent.errors import AgentError
from agent.quality import check, settings
from pipeline.critics.panel import Panel
from pipeline.engine.scripted import ScriptedEngine
from pipeline.good_pairs import good_pairs
from pipeline.qc_critics import LONGEST, score_rows

SCRIPTED = RunConfig.model_validate({"engine": {"kind": "scripted"}})


def write(path: Path, rows: list[tuple[str, str]]) -> Path:
    lines = (json.dumps({"instruction": i, "response": r}) for i, r in rows)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Ten good pairs, ten shuffled ones, and one without an answer."""
    good = [(p.instruction, p.response) for p in good_pairs() if p.kind == "fact"][:10]
    shuffled = [(i, good[(k + 5) % 10][1]) for k, (i, _) in enumerate(good)]
    return write(tmp_path / "rows.jsonl", [*good, *shuffled, (good[0][0], " ")])


def test_every_row_has_every_critics_score(rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    screen, _ = check(rows, SCRIPTED, rows=out, require=[], critics=True)
    written = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len(written) == 21
    for row in written[:20]:
        pair = {n: v for n, v in row["scores"].items() if n != "instruction"}
        assert pair.keys() == {"label", "lift", "combined"}
        assert row["scores"]["instruction"].keys() == pair.keys()
        assert all(isinstance(value, float) for value in pair.values())
    good, shuffled = (
        sum(r["scores"]["lift"] for r in part) for part in (written[:10], written[10:20])
    )
    assert good > shuffled
    assert "empty" in written[20]["flags"]
    assert written[20]["scores"]["lift"] is None
    assert written[20]["scores"]["instruction"]["label"] is not None
    assert screen.data["critics"]["scored"] == 20


def test_the_certificate_stands_in_the_output(rows: Path) -> None:
    screen, _ = check(rows, SCRIPTED, rows=None, require=[], critics=True)
    faults = screen.data["certificate"]["faults"]
    assert {(f["subject"], f["critic"]) for f in faults} == {
        (s, c) for s in ("instruction", "pair") for c in ("label", "lift", "combined")
    }
    assert all(f["low"] <= f["area"] <= f["high"] for f in faults if f["area"] is not None)
    acceptance = screen.data["metrics"]["pair_acceptance"]
    assert acceptance["n"] == 21 and 0 < acceptance["count"] < 21
    assert "relevance, not correctness" in screen.text


def test_without_a_margin_acceptance_stays_unmeasured(rows: Path) -> None:
    strict = RunConfig.model_validate(
        {"engine": {"kind": "scripted"}, "critic": {"max_false_accept": 0.001}}
    )
    screen, passed = check(rows, strict, rows=None, require=["pair_acceptance"], critics=True)
    assert screen.data["metrics"]["pair_acceptance"]["value"] is None
    assert not passed


def test_without_critics_nothing_is_scored(rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    screen, _ = check(rows, RunConfig(), rows=out, require=[], critics=False)
    assert "certificate" not in screen.data
    assert "scores" not in json.loads(out.read_text(encoding="utf-8").splitlines()[0])


def test_a_text_too_long_for_the_model_has_no_score(tmp_path: Path) -> None:
    path = write(
        tmp_path / "long.jsonl",
        [("Tell me all.", "word " * (LONGEST + 1)), ("Tell me all.", "x" * 10**7), ("Go.", "Yes.")],
    )
    engine = ScriptedEngine()
    found = list(score_rows(engine, path, Panel.of(engine.info)))
    assert [row.pair["lift"] is None for row in found] == [True, True, False]


def test_a_model_that_is_not_there_is_named(rows: Path, tmp_path: Path) -> None:
    config = settings(None, model=str(tmp_path / "nowhere"))
    with pytest.raises(AgentError, match="nowhere"):
        check(rows, config, rows=None, require=[], critics=True)
