"""agent/tracks.py: what reviewers foretold, over runs; no damage to anything stops the answer."""

import json
import os
import random
import resource
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from bookkeeping import in_memory
from builders import metrics, review, round_record, run_record, story

from agent import index, runner
from agent import tracks as tracked
from agent.config_file import load_config
from agent.errors import RunError
from agent.paths import list_runs
from agent.records import RoundRecord
from agent.session import create_run
from agent.store import RunStore
from agent.tracks import of_rounds, tracks
from agent.verify.check import verify

QUIET: Callable[[Any], None] = lambda event: None  # noqa: E731
memory = pytest.fixture(in_memory)
LLM = "llm:gpt-5-mini"


def undone_story() -> list[RoundRecord]:
    """The story, with its third round taken back."""
    rounds = story()
    back = rounds[2].review
    assert back is not None
    rounds[2] = rounds[2].model_copy(update={"review": back.model_copy(update={"base": 2})})
    return rounds


def make(root: Path, run_id: str, rounds: list[RoundRecord] | None = None) -> RunStore:
    store = RunStore.create(root, run_id)
    for record in undone_story() if rounds is None else rounds:
        store.save_round(record)
    store.save_run(run_record(run_id=run_id))
    return store


@pytest.fixture
def reports(memory: Path) -> Path:
    """Three runs, each of which tells the story."""
    for run_id in ("a", "b", "c"):
        make(memory, run_id)
    return memory


@contextmanager
def reading(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the runs whose records are opened meanwhile."""
    opened: list[str] = []
    real = tracked._rounds

    def noted(folder: Path) -> Any:
        opened.append(folder.name)
        return real(folder)

    with monkeypatch.context() as patch:
        patch.setattr(tracked, "_rounds", noted)
        yield opened


def test_every_figure_of_a_track_is_counted(reports: Path) -> None:
    found = tracks(reports)
    llm, rules = found.by_reviewer
    assert (llm.reviewer, llm.runs, llm.reviews) == (LLM, 3, 6)
    assert (llm.predictions, llm.hits) == (6, 3), "of nine, three were not measured"
    assert llm.claimed == pytest.approx(0.8)
    assert llm.brier == pytest.approx((0.8**2 + 0.2**2) / 2)
    assert (llm.reverted, llm.cost_usd) == (3, 0.018)
    assert (rules.reviewer, rules.predictions, rules.hits, rules.reverted) == ("rules", 6, 6, 0)
    assert rules.brier == pytest.approx(0.04)
    assert (found.runs, found.skipped, found.note) == (3, {}, "")


def test_what_is_undone_is_laid_to_whoever_proposed_it() -> None:
    rounds = undone_story()
    proposed = rounds[1].review
    assert proposed is not None
    by_rules = proposed.model_copy(update={"reviewer": "rules"})
    rounds[1] = rounds[1].model_copy(update={"review": by_rules})
    assert {t.reviewer: t.reverted for t in of_rounds(rounds)} == {"rules": 1, LLM: 0}


@pytest.mark.parametrize(
    ("kept", "step", "lost"),
    [(10, "STOP_ROUNDS", 1), (45, "STOP_ROUNDS", 0), (10, "APPROVE", 0)],
    ids=["clearly worse", "about the same", "passed"],
)
def test_a_last_round_that_is_clearly_worse_is_laid_to_its_reviewer_too(
    memory: Path, kept: int, step: str, lost: int
) -> None:
    tables = [metrics({}, n=100, generated=100, kept=k, distinct=None) for k in (50, kept)]
    first, last = (round_record(i + 1, metrics=t, review=None) for i, t in enumerate(tables))
    asked = first.model_copy(update={"review": review({}, [])})
    rounds = [asked, last.model_copy(update={"step": step})]
    assert [t.reverted for t in of_rounds(rounds)] == [lost]
    make(memory, "a", rounds)
    assert [t.reverted for t in tracks(memory).by_reviewer] == [lost]


def test_one_run_is_counted_as_all_are(memory: Path) -> None:
    make(memory, "a")
    assert of_rounds(undone_story()) == tracks(memory).by_reviewer


def test_only_what_changed_is_read(reports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tracks(reports)
    with reading(monkeypatch) as opened:
        assert tracks(reports) == first and opened == []
        RunStore(reports, "b").save_round(round_record(1, review=None))
        second = tracks(reports)
        assert opened == ["b"]
        assert second.by_reviewer[1].reviews == 2
        RunStore(reports, "c").save_run(run_record(run_id="c", status="done"))
        assert tracks(reports) == second and opened == ["b", "c"]


def test_a_deleted_run_counts_no_more(reports: Path) -> None:
    tracks(reports)
    shutil.rmtree(reports / "a")
    found = tracks(reports)
    assert (found.runs, found.by_reviewer[0].runs) == (2, 2)
    with closing(sqlite3.connect(reports / index.NAME)) as kept:
        for table in ("runs", "reviews", "predictions"):
            assert kept.execute(f"SELECT count(*) FROM {table} WHERE run_id = 'a'").fetchone() == (
                0,
            )


def test_an_empty_folder_has_no_reviewer_and_gets_no_file(memory: Path) -> None:
    for root in (memory, memory / "none"):
        found = tracks(root)
        assert (found.by_reviewer, found.runs, found.note) == ((), 0, "")
    assert list(memory.iterdir()) == []


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(5000))


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def another(path: Path) -> None:
    """A good file with other tables."""
    with closing(sqlite3.connect(":memory:")) as other:
        other.execute(f"PRAGMA user_version = {index.VERSION}")
        path.write_bytes(index._sealed(other.serialize()))


def wrong_values(path: Path) -> None:
    """The right tables with what this program never writes, in a run that has not changed."""
    found, _ = index.load(path)
    with closing(found):
        found._sql.execute("UPDATE reviews SET cost_usd = 1e999 WHERE run_id = 'a'")
        index.save(found, path)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    (path / "inner").mkdir(parents=True)


def link(path: Path) -> None:
    path.with_name("target").write_bytes(b"must stay")
    path.symlink_to(path.with_name("target"))


@pytest.mark.parametrize(
    "damage",
    [garbage, emptied, another, wrong_values, pipe, link, folder],
    ids=lambda d: d.__name__,
)
def test_a_damaged_index_is_made_again(reports: Path, damage: Callable[[Path], None]) -> None:
    expected = tracks(reports).by_reviewer
    path = reports / index.NAME
    if damage is not wrong_values:
        path.unlink()
    damage(path)
    found = tracks(reports)
    assert found.by_reviewer == expected and found.note
    if damage is folder:
        assert "cannot be written" in found.note and path.is_dir()
        return
    assert tracks(reports).note == "", "it was replaced"
    if damage is link:
        assert (reports / "target").read_bytes() == b"must stay"


def test_a_full_disk_changes_no_answer(reports: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        found = tracks(reports)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "cannot be written" in found.note
    assert {path.name for path in reports.iterdir()} == {"a", "b", "c"}, "nothing is left over"
    assert tracks(reports).by_reviewer == found.by_reviewer


def no_json(run: Path) -> None:
    (run / "run.json").write_text("{", encoding="utf-8")


def renamed(run: Path) -> None:
    text = (run / "run.json").read_text(encoding="utf-8")
    (run / "run.json").write_text(text.replace('"run_id": "b"', '"run_id": "other"'))


def linked(run: Path) -> None:
    (run / "run.json").rename(run / "else.json")
    (run / "run.json").symlink_to(run / "else.json")


def linked_rounds(run: Path) -> None:
    (run / "rounds").rename(run / "else")
    (run / "rounds").symlink_to(run / "else")


def piped_round(run: Path) -> None:
    os.mkfifo(run / "rounds" / "05.json")


def rewritten(run: Path, **prediction: Any) -> None:
    path = run / "rounds" / "02.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["review"]["outcomes"][0]["prediction"].update(prediction)
    path.unlink()
    path.write_text(json.dumps(record), encoding="utf-8")


def said_otherwise(run: Path, **values: Any) -> None:
    path = run / "rounds" / "02.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["review"].update(values.pop("review", {}))
    path.unlink()
    path.write_text(json.dumps(record | values), encoding="utf-8")


def endless_round(run: Path) -> None:
    said_otherwise(run, round=10**30)


def round_zero(run: Path) -> None:
    said_otherwise(run, round=0)


def paid_back(run: Path) -> None:
    said_otherwise(run, review={"cost_usd": -1e9})


def beyond_all_sums(run: Path) -> None:
    said_otherwise(run, review={"cost_usd": 1.7e308})


def endless_rows(run: Path) -> None:
    said_otherwise(run, funnel={"generated": 10**30, "answered": 10**30, "unflagged": 1})


def more_than_all(run: Path) -> None:
    said_otherwise(run, funnel={"generated": 9, "answered": 9, "unflagged": 10})


def impossible(run: Path) -> None:
    rewritten(run, probability=5.0)


def not_a_number(run: Path) -> None:
    rewritten(run, low=float("nan"))


@pytest.mark.parametrize(
    "damage",
    [
        no_json, renamed, linked, linked_rounds, piped_round, impossible, not_a_number,
        endless_round, round_zero, paid_back, beyond_all_sums, endless_rows, more_than_all,
    ],
    ids=lambda d: d.__name__,
)  # fmt: skip
def test_a_damaged_run_is_skipped_and_counted(
    reports: Path, damage: Callable[[Path], None]
) -> None:
    tracks(reports)
    damage(reports / "b")
    for _ in range(2):
        found = tracks(reports)
        assert set(found.skipped) == {"b"} and found.skipped["b"]
        assert found.runs == 3 and found.by_reviewer[0].runs == 2


def test_records_of_older_programs_count_with_scores_of_today(memory: Path) -> None:
    make(memory, "a", story()[:3])
    expected = tracks(memory).by_reviewer
    for path in (memory / "a" / "rounds").glob("*.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        for name in ("base", "baseline", "audits", "at_most_usd", "left_out", "replay"):
            del record["review"][name]
        for outcome in record["review"]["outcomes"]:
            del outcome["score"]
        del record["candidates"], record["stop_candidates"], record["audit"]
        path.unlink()
        path.write_text(json.dumps(record), encoding="utf-8")
    found = tracks(memory)
    assert found.by_reviewer == expected and found.skipped == {}


def test_what_lies_beside_runs_is_no_run(reports: Path) -> None:
    (reports / "README.md").write_text("runs", encoding="utf-8")
    (reports / "unborn").mkdir()
    (reports / "link").symlink_to(reports / "a")
    assert tracks(reports).runs == 3


def test_no_run_takes_the_name_of_the_index(reports: Path) -> None:
    tracks(reports)
    for root in (reports, reports / "none"):
        with pytest.raises(RunError, match="the index of all runs"):
            RunStore.create(root, index.NAME)
    assert list_runs(reports) == ["a", "b", "c"]


def _asked(root: Path) -> list[int]:
    return [tracks(root).by_reviewer[0].runs for _ in range(20)]


def test_processes_that_ask_at_once_do_not_hurt_each_other(reports: Path) -> None:
    """Each writes the index while runs come, and every answer is of some moment in between."""
    with ProcessPoolExecutor(4, mp_context=get_context("fork")) as pool:
        asked = [pool.submit(_asked, reports) for _ in range(4)]
        for number in range(10):
            make(reports, f"late{number}")
        answers = [answer.result() for answer in asked]
    for runs in answers:
        assert all(3 <= count <= 13 for count in runs) and runs == sorted(runs)
    assert tracks(reports).by_reviewer[0].runs == 13
    found, wrong = index.load(reports / index.NAME)
    found.close()
    assert wrong == ""
    assert not list(reports.glob(".*")), "no scratch file is left"


def test_the_index_says_what_the_records_say(reports: Path) -> None:
    """After any history, the answer is that of a folder which never had an index."""
    chance = random.Random(5)
    path = reports / index.NAME
    for _ in range(40):
        run_id = chance.choice("abcdef")
        there = (reports / run_id).is_dir()
        match chance.randrange(5):
            case 0 if there:
                shutil.rmtree(reports / run_id)
            case 1 if there:
                cost = chance.random()
                asked = review({}, [("runaway", 0, 0.1, chance.random())], cost=round(cost, 4))
                RunStore(reports, run_id).save_round(round_record(1, review=asked))
            case 2 if there:
                chance.choice([no_json, renamed, linked_rounds])(reports / run_id)
            case 3 if path.exists():
                garbage(path)
            case _ if not there:
                make(reports, run_id)
        found = tracks(reports)
        again = tracks(reports, rebuild=True)
        assert (found.by_reviewer, found.runs, found.skipped) == (
            again.by_reviewer, again.runs, again.skipped,
        )  # fmt: skip


def test_a_thousand_runs_slow_no_beginning(memory: Path) -> None:
    rounds = undone_story()
    texts = {
        f"{r.round:02d}.json": json.dumps(
            {"round": r.round, "review": r.review and r.review.model_dump(mode="json")}
        )
        for r in [*rounds, round_record(5, review=rounds[0].review)]
    }
    for number in range(1000):
        run = memory / f"r{number:04d}"
        (run / "rounds").mkdir(parents=True)
        (run / "run.json").write_text(json.dumps({"run_id": run.name}), encoding="utf-8")
        for name, text in texts.items():
            (run / "rounds" / name).write_text(text, encoding="utf-8")
    assert tracks(memory).by_reviewer[0].reviews == 2000
    seconds = []
    for _ in range(7):
        began = time.process_time()
        tracks(memory)
        seconds.append(time.process_time() - began)
    assert min(seconds) < 0.05, seconds


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reports folder with two runs of the whole program, one after another."""
    config = tmp_path_factory.mktemp("tracks") / "budget.yaml"
    config.write_text("engine: {kind: scripted}\nscale: {examples: 60, micro_batch: 32}\n")
    root = config.parent / "reports"
    for run_id in ("first", "second"):
        assert runner.start(root, load_config(config), run_id, QUIET).status == "waiting"
    return root


def test_a_run_remembers_how_reviewers_had_done_when_it_began(two_runs: Path) -> None:
    first, second = (RunStore.open(two_runs, name) for name in ("first", "second"))
    assert first.load_run().tracks == ()
    (before,) = second.load_run().tracks
    assert (before.reviewer, before.runs) == ("rules", 1)
    assert before == of_rounds(first.load_rounds())[0]
    report = (second.path / "report.md").read_text(encoding="utf-8")
    assert "In 1 earlier run: " in report and "too few to judge" in report


def test_verify_takes_earlier_runs_as_told_and_finds_a_changed_figure(
    two_runs: Path, tmp_path: Path
) -> None:
    reports = shutil.copytree(two_runs, tmp_path / "reports")
    found = verify(reports, "second")
    assert [check.name for check in found.differing] == []
    assert any("how reviewers did in other runs" in what for what in found.unverifiable)
    path = reports / "second" / "run.json"
    run = json.loads(path.read_text(encoding="utf-8"))
    run["tracks"][0]["hits"] += 1
    path.write_text(
        json.dumps(run, sort_keys=True, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    assert "report.md" in [check.name for check in verify(reports, "second").differing]


def test_a_run_begins_whatever_other_runs_records_say(memory: Path, scripted_yaml: Path) -> None:
    for run_id, damage in (("a", endless_round), ("b", beyond_all_sums), ("c", beyond_all_sums)):
        make(memory, run_id)
        damage(memory / run_id)
    make(memory, "d")
    create_run(memory, "r", load_config(scripted_yaml), show=QUIET)
    assert RunStore.open(memory, "r").load_run().tracks == of_rounds(undone_story())


def test_a_run_begins_whatever_the_index_is(memory: Path, scripted_yaml: Path) -> None:
    make(memory, "a")
    folder(memory / index.NAME)
    told: list[str] = []
    create_run(
        memory, "r", load_config(scripted_yaml), show=lambda event: told.append(event["text"])
    )
    assert RunStore.open(memory, "r").load_run().tracks == of_rounds(undone_story())
    (note,) = told
    assert note.startswith("index.sqlite: ") and note.endswith("the runs' own records are used")
