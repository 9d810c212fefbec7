"""Verify: a run in any state, copied, damaged, or told otherwise; nothing is changed by looking."""

import hashlib
import json
import os
import shutil
import signal
import sqlite3
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from fake_server import chat, refusal, serving
from renders import Kept
from typer.testing import CliRunner

from agent import runner
from agent.__main__ import app
from agent.config_file import check_config, load_config
from agent.errors import ReviewerError, RunError
from agent.lock import RunLock
from agent.records import RunRecord
from agent.session import Session, create_run
from agent.stages import reviewing
from agent.verify import rendering
from agent.verify.check import verify
from agent.verify.findings import Check, Difference, Verified, shown
from agent.verify.screen import screen, verdict
from agent.verify.writers import other_program

QUIET: Callable[[Any], None] = lambda event: None  # noqa: E731


RENDERS = Kept(most=1000)


def books(reports: Path) -> sqlite3.Connection:
    return sqlite3.connect(reports / "r" / "run.sqlite")


def look(reports: Path, run_id: str = "r", *, detectors: bool = False) -> Verified:
    return verify(reports, run_id, renders=RENDERS, detectors=detectors)


def names(found: Verified) -> list[str]:
    return [check.name for check in found.differing]


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reports folder with a run ``r`` that waits for approval; not to be changed."""
    folder = tmp_path_factory.mktemp("waiting")
    config = folder / "budget.yaml"
    config.write_text(
        "engine: {kind: scripted}\nscale: {examples: 60, micro_batch: 32, shard_rows: 50}\n",
        encoding="utf-8",
    )
    reports = folder / "reports"
    assert runner.start(reports, load_config(config), "r", QUIET).status == "waiting"
    return reports


def test_the_seal_is_the_end_of_the_books(waiting: Path) -> None:
    """A person who noted it down can tell another whole history from this one."""
    with closing(books(waiting)) as database:
        number, last = database.execute("SELECT entries, head FROM totals").fetchone()
    assert look(waiting).seal == f"{number} entries, {last}"


@pytest.fixture(scope="module")
def done(waiting: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, with its data set; not to be changed."""
    reports = shutil.copytree(waiting, tmp_path_factory.mktemp("done") / "reports")
    plan = runner.offer(reports, "r", 60)
    ending = runner.approve(reports, "r", plan.hash, QUIET, accept_shortfall=True, accept_need=True)
    assert ending.status == "done", ending.reason
    return reports


@pytest.fixture
def copy(done: Path, tmp_path: Path) -> Path:
    """A copy of the finished run that may be changed."""
    return shutil.copytree(done, tmp_path / "reports")


def digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_a_finished_run_is_verified_and_left_as_it_was(done: Path) -> None:
    before = digests(done)
    found = verify(done, "r")  # with pictures, rendered in a process of their own
    assert names(found) == []
    assert found.left_out == []
    assert {check.group for check in found.verified} >= {
        "ledger", "artifacts", "records", "reviews", "plan", "data set", "reports",
    }  # fmt: skip
    assert digests(done) == before


def test_a_run_that_waits_is_verified(waiting: Path) -> None:
    found = look(waiting)
    assert names(found) == [] and found.left_out == []


def test_a_rejected_run_is_verified(waiting: Path, tmp_path: Path) -> None:
    reports = shutil.copytree(waiting, tmp_path / "reports")
    assert runner.reject(reports, "r", "too dear", QUIET).exit_code == 8
    found = look(reports)
    assert names(found) == [] and found.left_out == []


def test_detectors_look_at_every_response_again(done: Path, copy: Path) -> None:
    found = look(done, detectors=True)
    assert names(found) == []
    assert sum(check.group == "rows" for check in found.verified) >= 4


def test_another_cleaner_is_seen_by_detectors_alone(
    done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.verify.rows.clean", lambda raw, **_: raw.upper())
    assert names(look(done)) == []
    assert any("open probe" in name for name in names(look(done, detectors=True)))


def test_a_copy_under_another_name_says_so(done: Path, tmp_path: Path) -> None:
    shutil.copytree(done / "r", tmp_path / "theirs")
    found = look(tmp_path, "theirs")
    assert names(found) == []
    assert "'theirs' and holds run 'r'" in found.notes[0]


def test_the_environment_of_another_machine_changes_nothing(
    done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "somebody's")
    assert names(look(done)) == []


@pytest.mark.parametrize("after", ["preflight", "r01/b000", "r01/review", "r02/b001"])
def test_a_run_that_was_killed_is_verified_as_far_as_it_came(
    after: str, tmp_path: Path, scripted_yaml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies right after an operation was paid for: nothing it would write is there."""
    from agent.money.journal import Journal

    once = Journal.once

    def dying(self: Journal, op_id: str, **rest: Any) -> Any:
        found = once(self, op_id, **rest)
        if op_id == after:
            raise SystemExit("killed")
        return found

    monkeypatch.setattr(Journal, "once", dying)
    with pytest.raises(SystemExit):
        runner.start(tmp_path / "reports", load_config(scripted_yaml), "r", QUIET)
    found = look(tmp_path / "reports")
    assert names(found) == []
    assert any("done again as far as it has come" in note for note in found.notes)


def test_a_run_that_holds_says_why(tmp_path: Path, scripted_yaml: Path) -> None:
    with serving([refusal(401)]) as provider:
        scripted_yaml.write_text(
            "engine: {kind: scripted}\n"
            f"reviewer: {{kind: llm, model: fake, base_url: '{provider.url}', "
            "timeout_seconds: 5}\n"
            "prices: {reviewers: {fake: {input_usd_per_million: 1, output_usd_per_million: 2}}}\n",
            encoding="utf-8",
        )
        with pytest.raises(ReviewerError):
            runner.start(tmp_path / "reports", load_config(scripted_yaml), "r", QUIET)
    found = look(tmp_path / "reports")
    assert names(found) == []
    assert any("why the run is held" in what for what in found.unverifiable)


def _advice(*changes: tuple[str, Any]) -> str:
    told = [{"parameter": name, "value": value, "reason": "to see"} for name, value in changes]
    expected = {"metric": "runaway", "low": 0.0, "high": 0.4, "probability": 0.5}
    return json.dumps({"diagnosis": "unclear", "changes": told, "predictions": [expected],
                       "distrusted_metrics": [], "confidence": 0.5, "stop": False})  # fmt: skip


def test_a_run_killed_before_its_last_reports_is_genuine(
    tmp_path: Path, scripted_yaml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = Session.write_reports, iter(range(9))

    def die(self: Session) -> None:
        if next(calls) == 1:
            raise SystemExit(9)
        write(self)

    monkeypatch.setattr(Session, "write_reports", die)
    replies = [_advice(("response.temperature", 0.45)), _advice()]
    with serving([chat(text, usage=(1000, 100)) for text in replies]) as provider:
        scripted_yaml.write_text(
            "engine: {kind: scripted}\n"
            f"reviewer: {{kind: llm, model: fake, base_url: '{provider.url}', "
            "timeout_seconds: 5}\n"
            "prices: {reviewers: {fake: {input_usd_per_million: 1, output_usd_per_million: 2}}}\n",
            encoding="utf-8",
        )
        with pytest.raises(SystemExit):
            runner.start(tmp_path / "reports", load_config(scripted_yaml), "r", QUIET)
    found = look(tmp_path / "reports")
    assert names(found) == []
    assert "report.md" in {check.name for check in found.left_out}
    report = tmp_path / "reports" / "r" / "report.md"
    report.write_text(report.read_text(encoding="utf-8") + "x", encoding="utf-8")
    assert names(look(tmp_path / "reports")) == ["report.md"]


def test_a_run_that_is_being_worked_on_says_so(done: Path, copy: Path) -> None:
    with RunLock(copy / "r" / "run.lock"):
        found = look(copy)
    assert names(found) == []
    assert any("works on the run" in note for note in found.notes)
    assert any(check.name == "report.md" for check in found.left_out)


def damaged(path: Path, how: str) -> None:
    match how:
        case "missing":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "truncated":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        case "not text":
            path.write_bytes(b"\xff\xfe" + path.read_bytes()[2:])
        case "nested":
            path.write_bytes(b"[" * 100_000)


@pytest.mark.parametrize("how", ["missing", "empty", "truncated", "not text", "nested"])
def test_every_damaged_file_is_named_in_a_line(how: str, done: Path, copy: Path) -> None:
    skipped = ("run.lock", "checkpoints.sqlite", "run.sqlite-journal")
    files = [p for p in sorted((copy / "r").rglob("*")) if p.is_file() and p.name not in skipped]
    kinds: dict[tuple[str, str], Path] = {(p.parent.name, p.suffix): p for p in files}
    for path in kinds.values():
        kept = path.read_bytes()
        damaged(path, how)
        found = look(copy)
        relative = path.relative_to(copy / "r").as_posix()
        assert relative in names(found), (relative, verdict(found))
        text = screen(found).text
        assert "Traceback" not in text
        assert all(len(line) < 500 for line in text.splitlines() if "not verifiable" not in line)
        path.write_bytes(kept)
    assert names(look(copy)) == []


def test_a_file_that_nothing_accounts_for_is_named(copy: Path) -> None:
    (copy / "r" / "artifacts" / f"{'0' * 64}.jsonl").write_text("{}\n", encoding="utf-8")
    (copy / "r" / "round-09.md").write_text("# A better round\n", encoding="utf-8")
    (copy / "r" / "notes").symlink_to("/etc")
    assert set(names(look(copy))) == {f"artifacts/{'0' * 64}.jsonl", "round-09.md", "notes"}


def test_an_older_schema_is_refused_in_a_line(copy: Path) -> None:
    with closing(sqlite3.connect(copy / "r" / "run.sqlite")) as sql:
        sql.execute("PRAGMA user_version=1")
    found = look(copy)
    (difference,) = next(c for c in found.differing if c.name == "run.sqlite").differences
    assert "version 1" in difference.found


def test_a_figure_that_was_improved_is_named_with_its_field(copy: Path) -> None:
    path = copy / "r" / "rounds" / "02.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    place = next(i for i, m in enumerate(record["metrics"]) if m["value"])
    record["metrics"][place]["value"] = 0.0
    text = json.dumps(record, sort_keys=True, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
    (check,) = look(copy).differing
    assert check.name == "rounds/02.json"
    assert [d.where for d in check.differences] == [f"metrics.{place}.value"]
    assert check.differences[0].found == "0.0"


def test_a_lie_that_is_told_everywhere_is_found_at_its_root(copy: Path) -> None:
    """Rows, their hash and the result that names them are changed together: the chain is left."""
    folder = copy / "r"
    path = next(
        p for p in (folder / "artifacts").iterdir() if b'"cause":"stop_rule"' in p.read_bytes()
    )
    rows = path.read_bytes().replace(b'"cause":"stop_rule"', b'"cause":"sampling"')
    path.unlink()
    name = hashlib.sha256(rows).hexdigest()
    (folder / "artifacts" / f"{name}.jsonl").write_bytes(rows)
    with closing(sqlite3.connect(folder / "run.sqlite")) as sql:
        sql.execute("UPDATE results SET body = replace(body, ?, ?)", (path.stem, name))
        sql.commit()
    assert "hash chain and balances" in names(look(copy))


def test_a_run_that_is_not_there_is_refused(done: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no run"):
        look(done, "s")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="it is no run"):
        look(tmp_path, "empty")


def test_the_command_says_it_with_its_exit_code(done: Path, copy: Path) -> None:
    invoke = CliRunner().invoke
    well = invoke(app, ["verify", "r", "--reports", str(done)])
    assert well.exit_code == 0 and "r: verified" in well.stdout
    (copy / "r" / "report.md").write_text("# All is well\n", encoding="utf-8")
    badly = invoke(app, ["verify", "last", "--reports", str(copy), "--json"])
    data = json.loads(badly.stdout)
    assert badly.exit_code == 1 and data["differing"] == 1
    assert [c["name"] for c in data["checks"] if c["differences"]] == ["report.md"]


@pytest.fixture
def picture() -> Iterator[bytes]:
    from io import BytesIO

    from matplotlib.figure import Figure

    stream = BytesIO()
    Figure(figsize=(1, 1)).savefig(stream, format="png", metadata={"Software": "matplotlib 0.1"})
    yield stream.getvalue()


def test_a_picture_by_another_program_is_not_compared(picture: bytes) -> None:
    assert "matplotlib 0.1 wrote it" in other_program("plots/spend.png", picture)
    place = picture.index(b"matplotlib 0.1") + 13
    forged = picture[:place] + b"2" + picture[place + 1 :]
    assert other_program("plots/spend.png", forged) == "", "a damaged picture is compared"


def test_rows_by_another_program_are_compared_as_rows(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy / "r" / "dataset"
    path = next((folder / "data").iterdir())
    before = path.read_bytes()
    pq.write_table(pq.read_table(path), path, compression="none")
    manifest = (folder / "manifest.json").read_text(encoding="utf-8")
    old, new = (hashlib.sha256(b).hexdigest() for b in (before, path.read_bytes()))
    (folder / "manifest.json").write_text(manifest.replace(old, new), encoding="utf-8")
    relative = path.relative_to(copy / "r").as_posix()
    assert set(names(look(copy))) == {relative, "dataset/manifest.json"}
    monkeypatch.setattr("agent.verify.writers.version", lambda name: "0")
    found = look(copy)
    assert names(found) == []
    assert {c.name for c in found.left_out} == {relative, "dataset/manifest.json"}
    pq.write_table(pq.read_table(path).slice(1), path, compression="none")
    last = hashlib.sha256(path.read_bytes()).hexdigest()
    text = manifest.replace(old, last)
    (folder / "manifest.json").write_text(text, encoding="utf-8")
    assert relative in names(look(copy)), "a row is missing"


def test_a_picture_that_does_not_say_who_drew_it_is_compared(done: Path) -> None:
    content = (done / "r" / "plots" / "spend.png").read_bytes()
    assert other_program("plots/spend.png", content) == ""


def test_rendering_beside_gives_what_rendering_here_gives(waiting: Path) -> None:
    from agent.store import RunStore

    store = RunStore.open(waiting, "r")
    run, rounds = store.load_run(), store.load_rounds()
    beside = rendering.Beside()
    beside.begin(run, rounds)
    assert beside.files(run, rounds) == RENDERS.files(run, rounds)
    other = run.model_copy(update={"reason": "another"})
    beside = rendering.Beside()
    beside.begin(run, rounds)
    assert beside.files(other, ())["report.md"] != RENDERS.files(run, rounds)["report.md"]
    beside.close()


def test_nothing_renders_on_when_a_check_is_over(
    waiting: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda *args, **more: begun.append(start(*args, **more)) or begun[-1]
    )
    verify(waiting, "r")
    told(copy, reason="another")  # what was begun is not what is asked for
    verify(copy, "r")
    assert [process.poll() for process in begun] == [0, -9]


def told(reports: Path, **values: Any) -> None:
    """Have ``run.json`` say something else."""
    path = reports / "r" / "run.json"
    record = json.loads(path.read_text(encoding="utf-8")) | values
    text = json.dumps(record, sort_keys=True, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def test_a_cap_that_was_raised_in_the_record_is_not_the_ledgers(copy: Path) -> None:
    record = RunRecord.model_validate_json((copy / "r" / "run.json").read_bytes())
    config = check_config(record.config, source="run.json")
    budget = config.budget.model_copy(update={"limit_usd": 500.0, "scale_usd": 400.0})
    config = config.model_copy(update={"budget": budget})
    dumped = config.model_dump(mode="json")
    told(copy, config=dumped, config_digest=config.digest(), limit_usd=500.0)
    (caps,) = [c for c in look(copy).differing if c.name == "caps"]
    assert [d.where for d in caps.differences] == ["budget.limit_usd", "budget.scale_usd"]


@pytest.mark.parametrize("field", ["config_digest", "limit_usd"])
def test_a_record_at_odds_with_its_own_configuration_needs_no_books(field: str, copy: Path) -> None:
    told(copy, **{field: "0" * 64 if field == "config_digest" else 7.0})
    assert names(look(copy)) and "run.json" in names(look(copy))
    (copy / "r" / "run.sqlite").unlink()
    assert {"run.json", "run.sqlite"} <= set(names(look(copy)))


@pytest.mark.parametrize("status", ["done", "stop_rejected", "stop_budget", "failed"])
def test_an_ending_that_the_books_do_not_hold_differs(
    status: str, waiting: Path, tmp_path: Path
) -> None:
    reports = shutil.copytree(waiting, tmp_path / "reports")
    told(reports, status=status, reason="it was so")
    (check,) = [c for c in look(reports).differing if c.name == "run.json"]
    assert check.differences[-1].expected == "'waiting'"


@pytest.mark.parametrize("status", ["running", "failed", "held", "drained"])
def test_no_status_keeps_reports_from_being_checked(status: str, copy: Path) -> None:
    told(copy, status=status)
    (copy / "r" / "round-09.md").write_text("# A better round\n", encoding="utf-8")
    (copy / "r" / "report.md").write_text("# All is well\n", encoding="utf-8")
    assert {"report.md", "round-09.md"} <= set(names(look(copy)))
    assert ("run.json" in names(look(copy))) == (status in {"running", "failed"})


def test_a_record_that_is_older_than_its_report_differs(copy: Path) -> None:
    told(copy, status="running", reason="the data set is written")
    assert "run.json" in names(look(copy))
    (copy / "r" / "report.md").write_text("# All is well\n", encoding="utf-8")
    assert "report.md" in names(look(copy)), "nobody works on the run"


@pytest.fixture
def drained(tmp_path: Path, scripted_yaml: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was asked to stop when its first review had been applied."""
    apply = reviewing.apply

    def interrupted(*given: Any) -> Any:
        found = apply(*given)
        os.kill(os.getpid(), signal.SIGTERM)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(reviewing, "apply", interrupted)
        ending = runner.start(tmp_path / "reports", load_config(scripted_yaml), "r", QUIET)
    assert ending.status == "drained"
    return tmp_path / "reports"


def test_a_run_that_stopped_before_its_replay_is_verified(drained: Path) -> None:
    found = look(drained)
    assert names(found) == []
    assert "round-01.md" in [check.name for check in found.verified]


def test_an_answer_without_a_review_is_explained_at_any_time(drained: Path) -> None:
    (drained / "r" / "rounds" / "02-answer-1.txt").write_text("no JSON", encoding="utf-8")
    (check,) = [c for c in look(drained).left_out if "answer" in c.name]
    assert "an answer from which no review came" in check.left_out


def test_books_in_the_middle_of_a_transaction_are_read_as_resume_finds_them(
    done: Path, tmp_path: Path
) -> None:
    """The folder is copied as a process that was killed leaves it."""
    reports = tmp_path / "reports"
    with closing(sqlite3.connect(done / "r" / "run.sqlite", isolation_level=None)) as sql:
        sql.execute("PRAGMA cache_size=1")
        sql.execute("BEGIN IMMEDIATE")
        sql.execute("CREATE TABLE torn (x)")
        sql.executemany("INSERT INTO torn VALUES (?)", [("x" * 4000,)] * 50)
        shutil.copytree(done, reports)
        sql.execute("ROLLBACK")
    before = digests(reports)
    found = look(reports)
    assert names(found) == []
    assert "a transaction was cut short; checked as resume would find it" in found.notes
    assert len(found.verified) == len(look(done).verified)
    assert digests(reports) == before
    (reports / "r" / "report.md").write_text("# All is well\n", encoding="utf-8")
    assert names(look(reports)) == ["report.md"]


@pytest.mark.parametrize("books", [None, b""])
def test_a_run_that_was_killed_before_its_books_is_no_difference(
    books: bytes | None, tmp_path: Path, scripted_yaml: Path
) -> None:
    create_run(tmp_path, "r", load_config(scripted_yaml))
    if books is not None:
        (tmp_path / "r" / "run.sqlite").write_bytes(books)
    found = look(tmp_path)
    assert names(found) == [] and "nothing was bought yet" in found.notes[-1]
    told(tmp_path, confirmed_usd=1.0)
    assert names(look(tmp_path)) == ["run.sqlite"]


def test_one_picture_by_another_program_among_others_differs(copy: Path) -> None:
    path = copy / "r" / "plots" / "spend.png"
    path.write_bytes(_by_another_program(path.read_bytes()))
    assert names(look(copy)) == ["plots/spend.png"]


def test_pictures_that_are_all_by_another_program_are_left_out_aloud(copy: Path) -> None:
    pictures = list((copy / "r").rglob("*.png"))
    for path in pictures:
        path.write_bytes(_by_another_program(path.read_bytes()))
    found = look(copy)
    assert names(found) == []
    assert verdict(found).endswith(f"checks; {len(pictures)} left out")


def _by_another_program(picture: bytes) -> bytes:
    place = picture.index(b"tEXt")
    (size,) = struct.unpack_from(">I", picture, place - 4)
    part = b"tEXtSoftware\0matplotlib 0.1"
    sealed = struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part))
    return picture[: place - 4] + sealed + picture[place + 8 + size :]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("created", "2001-01-01T00:00:00+00:00"),
        ("created", "2999-01-01T00:00:00+00:00"),
        ("created", "yesterday"),
        ("reviewer", "a panel of professors"),
        ("device_price_usd_per_hour", 0.001),
        ("device_price_usd_per_hour", None),
    ],
)
def test_a_beginning_that_cannot_have_been_differs(field: str, value: Any, copy: Path) -> None:
    told(copy, **{field: value})
    found = look(copy)
    assert [d.where for c in found.differing for d in c.differences if d.where == field] == [field]


def test_messages_are_plain(copy: Path) -> None:
    found = Verified("r", checks=[Check("plan", "p", (Difference("", "a", "b"),))])
    assert verdict(found) == "r: 1 of 1 check differs"
    assert shown('it\'s "so"\nand so\x1b') == 'it\'s "so" and so\\x1b'
