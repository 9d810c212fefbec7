"""The ``reviewers`` command: a table, the same as JSON, and honest about what it did not count."""

import json
from pathlib import Path

import pytest
from test_tracks import make, undone_story
from typer.testing import CliRunner

from agent.__main__ import app
from agent.review_records import Track


def ask(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, ["reviewers", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    """Two runs that tell the story, and one that is damaged."""
    for run_id in ("a", "b", "c"):
        make(tmp_path, run_id)
    (tmp_path / "c" / "run.json").write_text("{", encoding="utf-8")
    return tmp_path


def test_a_line_for_each_reviewer(reports: Path) -> None:
    lines = [" ".join(x.split()) for x in ask("--reports", reports).splitlines()]
    assert lines[0] == f"3 runs in '{reports}'"
    assert lines[2] == "reviewer runs reviews measured held claimed Brier undone cost judgement"
    few = "fewer than 20 predictions measured, too few to judge"
    assert lines[3] == f"llm:gpt-5-mini 2 4 4 50.0% 80.0% 0.340 2 $0.012 {few}"
    assert lines[4] == f"rules 2 2 4 100.0% 80.0% 0.040 0 $0.00 {few}"
    assert lines[6:] == ["1 run not counted:", "c: run.json is damaged"]


def test_json_has_the_same_facts(reports: Path) -> None:
    facts = json.loads(ask("--json", "--reports", reports))
    assert (facts["runs"], list(facts["skipped"]), facts["note"]) == (3, ["c"], "")
    llm = facts["reviewers"][0]
    assert llm.pop("judgement").endswith("too few to judge")
    assert Track.model_validate(llm).hits == 2


def test_rebuild_reads_every_run_again(reports: Path) -> None:
    before = ask("--reports", reports)
    (reports / "index.sqlite").write_bytes(b"garbage")
    assert "note: index.sqlite: it is damaged" in ask("--reports", reports)
    assert ask("--rebuild", "--reports", reports) == before


def test_an_empty_folder_says_so(tmp_path: Path) -> None:
    assert ask("--reports", tmp_path / "none").startswith("there is no run in ")
    assert json.loads(ask("--json", "--reports", tmp_path))["reviewers"] == []


def test_runs_without_reviews_say_so(tmp_path: Path) -> None:
    make(tmp_path, "a", [])
    assert ask("--reports", tmp_path) == f"1 run in '{tmp_path}': none was reviewed\n"


def test_the_name_of_a_reviewer_is_inert(tmp_path: Path) -> None:
    rounds = undone_story()[:1]
    named = rounds[0].review
    assert named is not None
    odd = named.model_copy(update={"reviewer": "llm:\x1b[31m\u202ered\n\n"})
    make(tmp_path, "a", [rounds[0].model_copy(update={"review": odd})])
    text = ask("--reports", tmp_path)
    assert "\x1b" not in text and "\u202e" not in text and len(text.splitlines()) == 4


def test_a_file_is_no_folder_of_reports(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x", encoding="utf-8")
    done = CliRunner().invoke(app, ["reviewers", "--reports", str(path)])
    assert done.exit_code != 0
