"""When an engine's memory runs out: what the run shows, records, and holds to from then on."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.config_file import load_config
from agent.graph import open_machine
from agent.session import create_run, open_session
from agent.stages import preflight
from pipeline.engine.base import Engine, EngineSpec
from pipeline.engine.process.engine import ProcessEngine
from tests.faulty_engines import BATCH

ROUND = "r01/b000"
QUIET: Callable[[Any], None] = lambda event: None  # noqa: E731


def scripted(spec: EngineSpec) -> Engine:
    """An engine with room for everything."""
    return ProcessEngine(replace(spec, model="none"), factory="tests.faulty_engines:faulty")


class Starving:
    """Opens engines that run out of memory on long rows, and keeps what they were asked for."""

    def __init__(self) -> None:
        self.specs: list[EngineSpec] = []

    def __call__(self, spec: EngineSpec) -> Engine:
        self.specs.append(spec)
        starving = replace(spec, model="starves on long rows")
        return ProcessEngine(starving, factory="tests.faulty_engines:faulty")


def test_a_smaller_batch_is_shown_recorded_reported_and_held_to(
    tmp_path: Path, scripted_yaml: Path
) -> None:
    reports, opened, shown = tmp_path / "reports", Starving(), list[Mapping[str, Any]]()
    with scripted_yaml.open("a", encoding="utf-8") as file:
        file.write("pilot: {max_rounds: 1}\n")
    create_run(reports, "r", load_config(scripted_yaml))
    with open_session(reports, "r", engine=scripted) as session:
        preflight.check(session, QUIET)  # there is room until the first round
    with open_session(reports, "r", engine=opened) as session, open_machine(session) as machine:
        machine.advance(shown.append)
        (first, *_) = session.paid(ROUND)["replans"]
        record, run = session.store.load_rounds()[0], session.store.load_run()
    assert (first["before"], first["after"]) == (16, 8)
    assert record.replans[0] == first and "no room" in first["cause"]
    told = [e["text"] for e in shown if e["kind"] == "replan"]
    assert told[0] == "out of memory: batch 16 -> 8"
    report = (reports / "r" / "round-01.md").read_text(encoding="utf-8")
    assert "Memory ran out, and the engine's batch went from 16 to 8 rows" in report
    assert run.engine is not None and run.engine["batch_size"] == 8
    assert run.replans == () and [spec.batch_size for spec in opened.specs] == [BATCH]
    with open_session(reports, "r", engine=opened) as session:
        found = session.buy("x", lambda e: {"size": e.info.batch_size}, QUIET, stage="pilot")
    assert found == {"size": 8} == {"size": opened.specs[1].batch_size}
    # A process that dies between its journal and its records loses nothing.
    with open_session(reports, "r", engine=opened) as session:
        session.note("running", "as before", engine=run.engine | {"batch_size": 16})
        session.buy(ROUND, lambda e: {}, QUIET, stage="pilot", round=1)
        assert session.store.load_run().engine == run.engine


def test_memory_that_runs_out_before_the_first_round_is_reported_too(
    tmp_path: Path, scripted_yaml: Path
) -> None:
    """The open probe's rows are the longest of a run."""
    reports, opened, shown = tmp_path / "reports", Starving(), list[Mapping[str, Any]]()
    create_run(reports, "r", load_config(scripted_yaml))
    with open_session(reports, "r", engine=opened) as session:
        preflight.check(session, shown.append)
        run = session.store.load_run()
        session.write_reports()
    assert [(r["before"], r["after"]) for r in run.replans] == [(16, 8), (8, 4)]
    assert [e["text"] for e in shown if e["kind"] == "replan"] == [
        "out of memory: batch 16 -> 8", "out of memory: batch 8 -> 4",
    ]  # fmt: skip
    assert run.engine is not None and run.engine["batch_size"] == 4
    report = (reports / "r" / "report.md").read_text(encoding="utf-8")
    told = "Memory ran out before the first round, and the engine's batch went from"
    assert f"{told} 16 to 8 rows, then 8 to 4 rows: " in report
    with open_session(reports, "r", engine=opened) as session:
        preflight.check(session, QUIET)
        assert session.store.load_run().replans == run.replans, "found bought"
