"""``whatif``: another setting's metrics from a run's folder alone, and what it refuses."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agent import runner
from agent.__main__ import app
from agent.archive import open_archive
from agent.config_file import load_config
from agent.errors import AgentError, ConfigError, RunError, RunLocked
from agent.lock import RunLock
from agent.money.database import RunDatabase
from agent.money.ledger import Ledger
from agent.session import create_run
from agent.stages.judges import calibration, probe
from agent.store import RunStore
from agent.whatif import parse_settings
from agent.whatif_screen import whatif
from pipeline.params import TUNABLE

STOPS = '["\\nInstruction", "\\nQ:", "\\n###", "\\nUser:"]'
SHORT = ["response.stop=" + STOPS, "response.max_new_tokens=12"]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run ``r`` that waits for approval."""
    folder = tmp_path_factory.mktemp("whatif")
    config = folder / "budget.yaml"
    config.write_text("engine: {kind: scripted}\nscale: {examples: 120}\n", encoding="utf-8")
    ending = runner.start(folder / "reports", load_config(config), "r", lambda _: None)
    assert ending.status == "waiting", ending.reason
    return folder / "reports"


@pytest.fixture
def copied(reports: Path, tmp_path: Path) -> Path:
    """A copy of it, to be written to."""
    shutil.copytree(reports, tmp_path / "reports")
    return tmp_path / "reports"


def asked(reports: Path, *settings: str, score: bool = False) -> dict[str, Any]:
    screen, _ = whatif(reports, "r", settings, score=score)
    return screen.data


def value(data: dict[str, Any], when: str, name: str) -> float | None:
    metrics = {m["name"]: m for m in data[when]}
    found: float | None = metrics[name]["value"]
    return found


def test_an_answer_holds_both_settings_on_the_same_rows(reports: Path) -> None:
    data = asked(reports, *SHORT)
    assert data["used"][0] == "open probe" and data["rows"] >= 10
    before, after = (value(data, when, "token_limit") for when in ("before", "after"))
    assert before is not None and after is not None and before < after
    assert value(data, "after", "runaway") == 0
    assert data["wanted"]["response"]["stop"] == json.loads(STOPS)
    assert 0 < data["changed"] <= data["rows"]


def test_a_changed_text_has_no_acceptance_until_it_is_scored(copied: Path) -> None:
    data = asked(copied, *SHORT)
    assert data["unscored"] > 0 and value(data, "after", "pair_acceptance") is None
    assert data["scoring"]["texts"] == data["unscored"] and data["scoring"]["seconds"] > 0
    store = RunStore.open(copied, "r")
    spent = store.load_run().confirmed_usd
    scored = asked(copied, *SHORT, score=True)
    assert scored["unscored"] == 0 and scored["scoring"] is None
    assert value(scored, "after", "pair_acceptance") is not None
    with RunDatabase(store.database_path) as database:
        books = Ledger(database)
        stages = {row.stage: row.confirmed for row in books.by_stage()}
        assert books.totals().confirmed_usd == store.load_run().confirmed_usd >= spent
    assert "whatif" in stages
    assert store.load_run().status == "waiting"
    assert asked(copied, *SHORT) == scored, "bought once, it is known"


def test_nothing_is_written_and_no_lock_is_needed(copied: Path) -> None:
    store = RunStore.open(copied, "r")
    before = {p: p.read_bytes() for p in store.path.rglob("*") if p.is_file()}
    with RunLock(store.lock_path):
        asked(copied, "response.max_new_tokens=60")
        with pytest.raises(RunLocked):
            asked(copied, *SHORT, score=True)
    after = {p: p.read_bytes() for p in store.path.rglob("*") if p.is_file()}
    changed = {p.name for p in before.keys() | after.keys() if before.get(p) != after.get(p)}
    assert changed <= {"run.lock"}


def test_rows_that_cannot_answer_are_left_out_by_name(reports: Path) -> None:
    data = asked(reports, "response.max_new_tokens=150")
    assert data["used"] == ["open probe"] and data["from"] == "round 1"
    reasons = {name: [r["parameter"] for r in found] for name, found in data["refused"].items()}
    assert reasons and all("response.max_new_tokens" in found for found in reasons.values())


def test_what_needs_generation_is_refused(reports: Path) -> None:
    screen, answered = whatif(reports, "r", ["response.temperature=0.9"], score=False)
    assert not answered and screen.data["after"] is None and screen.data["used"] == []
    assert screen.data["from"] == "round 2", "the present one is named"
    assert "response.temperature (open probe): it draws other tokens" in screen.text


def test_a_critic_gets_its_margin_from_controls(reports: Path) -> None:
    with open_archive(reports, "r") as archive:
        names = {name for s in probe(archive).samples for name in s.pair_scores}
        margins = {name: calibration(archive).margin("pair", name).margin for name in names}
    present = asked(reports, "response.max_new_tokens=150")["present"]["critic"]
    (other,) = (n for n, at in margins.items() if at is not None and n != present["pair"])
    data = asked(reports, f"critic.pair={other}")
    assert data["wanted"]["critic"]["pair"] == other
    assert data["wanted"]["critic"]["pair_margin"] == margins[other] != present["pair_margin"]
    assert value(data, "after", "pair_acceptance") is not None


def test_a_critic_that_controls_do_not_certify_measures_nothing(reports: Path) -> None:
    with open_archive(reports, "r") as archive:
        assert calibration(archive).margin("pair", "label").margin is None
    data = asked(reports, "critic.pair=label")
    (found,) = (m for m in data["after"] if m["name"] == "pair_acceptance")
    assert found["value"] is None and "does not surely see shuffled" in found["reason"]
    assert value(data, "after", "raw_acceptance") is None, "nor of what is kept"
    assert value(data, "before", "pair_acceptance") is not None
    assert value(data, "before", "raw_acceptance") is not None


def test_it_says_as_which_round_it_judges(reports: Path) -> None:
    screen, _ = whatif(reports, "r", SHORT, score=False)
    assert screen.data["judged_as_pilot"] == 3
    assert "judged as pilot 3 would be" in screen.text and "rows as they were drawn" in screen.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('response.stop=["\\nInstruction"]', ["\nInstruction"]),
        ("response.stop=\\nQ:", ["\nQ:"]),
        ('response.stop="\\nQ:"', ["\nQ:"]),
        ("response.stop=[]", []),
        ("response.max_new_tokens=60", 60),
        ("critic.pair=label", "label"),
        ("fewshot.set=wide", "wide"),
        ("response.stop=a=b", ["a=b"]),
    ],
)
def test_values_are_json_or_bare_words(text: str, expected: Any) -> None:
    assert list(parse_settings([text]).values()) == [expected]


BAD = {
    "no value": (["response.stop"], "expected NAME=VALUE"),
    "unknown": (["response.top_k=5"], "there is no such parameter"),
    "not a leaf": (["response=5"], "there is no such parameter"),
    "a threshold": (["thresholds.runaway=0.5"], "there is no such parameter"),
    "twice": (["oversample=2", "oversample=3"], "named twice"),
    "nothing": ([], "at least one --set"),
    "out of range": (["response.max_new_tokens=5000"], "less than or equal to 1024"),
    "of another type": (["response.max_new_tokens=many"], "valid integer"),
    "not a number": (["response.temperature=NaN"], "finite number"),
    "too many strings": (['response.stop=["1","2","3","4","5","6","7","8","9"]'], "at most 8"),
    "an unknown critic": (["critic.pair=nobody"], "critic.pair"),
}


@pytest.mark.parametrize(("settings", "says"), BAD.values(), ids=BAD)
def test_bad_input_is_named(reports: Path, settings: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as error:
        whatif(reports, "r", settings, score=False)
    assert error.value.exit_code == 2


def test_runs_that_are_not_there_or_hold_no_rows(reports: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no run"):
        whatif(reports, "nobody", ["topics=hints"], score=False)
    config = tmp_path / "budget.yaml"
    config.write_text("engine: {kind: scripted}\n", encoding="utf-8")
    create_run(tmp_path, "begun", load_config(config))
    with pytest.raises(AgentError) as error:
        whatif(tmp_path, "begun", ["topics=hints"], score=False)
    assert "no stored rows" in str(error.value), error.value


def test_the_command_line(reports: Path) -> None:
    cli = CliRunner()
    at = ["--reports", str(reports)]
    found = cli.invoke(app, ["whatif", "last", "--set", SHORT[0], "--set", SHORT[1], *at])
    assert found.exit_code == 0, found.output
    assert "from the setting of round 1:\n  response.max_new_tokens: 80 -> 12" in found.output
    assert "token_limit" in found.output and "unmeasured: yield" in found.output
    data = cli.invoke(app, ["whatif", "r", "--set", SHORT[1], "--json", *at])
    assert json.loads(data.output)["wanted"]["response"]["max_new_tokens"] == 12
    refused = cli.invoke(app, ["whatif", "r", "--set", "oversample=2", *at])
    assert refused.exit_code == 1 and "another number of instructions" in refused.output
    assert "--score" in cli.invoke(app, ["whatif", "--help"]).output


def test_every_tunable_parameter_can_be_asked_about(reports: Path) -> None:
    """And is either answered or refused by its name."""
    for name, tunable in TUNABLE.items():
        wish = tunable.choices[-1] if tunable.choices else "[]"
        if tunable.kind in ("int", "float"):
            wish = "9" if tunable.kind == "int" else "1.25"
        data = asked(reports, f"{name}={wish.replace('1.25', '0.8') if 'top_p' in name else wish}")
        refused = {r["parameter"] for found in data["refused"].values() for r in found}
        assert data["used"] or name in refused, name
