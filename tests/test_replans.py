"""When an engine's memory runs out: what the run shows, records, and holds to from then on."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.config_file import load_config
from agent.graph import open_machine
from agent.session import create_run, open_session
from pipeline.engine.base import Engine, EngineSpec
from pipeline.engine.process.engine import ProcessEngine

ROUND = "r01/b000"
QUIET: Callable[[Any], None] = lambda event: None  # noqa: E731


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
    assert [spec.batch_size for spec in opened.specs] == [None]
    with open_session(reports, "r", engine=opened) as session:
        found = session.buy("x", lambda e: {"size": e.info.batch_size}, QUIET, stage="pilot")
    assert found == {"size": 8} == {"size": opened.specs[1].batch_size}
    # A process that dies between its journal and its records loses nothing.
    with open_session(reports, "r", engine=opened) as session:
        session.note("running", "as before", engine=run.engine | {"batch_size": 16})
        session.buy(ROUND, lambda e: {}, QUIET, stage="pilot", round=1)
        assert session.store.load_run().engine == run.engine
