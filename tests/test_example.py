"""The committed example is a real run: its reports follow from its records and its files."""

import hashlib
import json
from pathlib import Path

from agent.policy import Step
from agent.records import RoundRecord, RunRecord
from agent.report.render import render_all
from agent.verify.check import verify
from agent.verify.screen import screen

FOLDER = Path(__file__).parents[1] / "reports" / "example"


def records() -> tuple[RunRecord, list[RoundRecord]]:
    run = RunRecord.model_validate_json((FOLDER / "run.json").read_text(encoding="utf-8"))
    paths = sorted((FOLDER / "rounds").glob("[0-9][0-9].json"))
    rounds = [RoundRecord.model_validate_json(p.read_text(encoding="utf-8")) for p in paths]
    return run, rounds


def test_it_failed_was_reviewed_and_passed() -> None:
    run, rounds = records()
    assert run.engine is not None and run.engine["model"] == "gemma-3-270m"
    assert rounds[0].step == Step.REVIEW and rounds[0].review is not None
    assert rounds[-1].step == Step.APPROVE
    assert run.status == "done"


def test_every_report_is_what_its_records_say() -> None:
    run, rounds = records()
    for name, content in render_all(run, rounds).items():
        if isinstance(content, str):
            assert (FOLDER / name).read_text(encoding="utf-8") == content, name
        else:
            assert (FOLDER / name).read_bytes().startswith(b"\x89PNG")


def test_every_figure_follows_from_its_rows_and_its_books() -> None:
    found = verify(FOLDER.parent, FOLDER.name, detectors=True)
    assert not found.differing and not found.left_out, screen(found).text


def test_its_raw_rows_are_named_by_their_hashes() -> None:
    paths = list((FOLDER / "artifacts").glob("*.jsonl"))
    assert paths
    for path in paths:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.stem


def test_its_data_set_is_what_its_manifest_says() -> None:
    manifest = json.loads((FOLDER / "dataset" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["rows"] == 200
    for file in manifest["files"]:
        content = (FOLDER / "dataset" / file["path"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == file["sha256"]
