"""The command line: exit codes, messages, and JSON that a program can read."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def agent(*arguments: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agent", *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120
    )


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run that waits for approval, and what ``run --json`` printed."""
    folder = tmp_path_factory.mktemp("cli")
    config = folder / "budget.yaml"
    config.write_text(
        "engine: {kind: scripted}\nscale: {examples: 60, micro_batch: 32}\n", encoding="utf-8"
    )
    reports = folder / "reports"
    done = agent("run", "--budget", "5", "--config", config, "--run-id", "r", "--json",
                 "--reports", reports)  # fmt: skip
    assert done.returncode == 3, done.stderr
    return reports, json.loads(done.stdout)


def test_run_prints_one_object_and_progress_elsewhere(
    waiting: tuple[Path, dict[str, Any]],
) -> None:
    _, facts = waiting
    assert facts["status"] == "waiting" and facts["exit_code"] == 3
    assert facts["limit_usd"] == 5.0 and 0 < facts["confirmed_usd"] < 0.01
    assert len(facts["plan"]) == 64


def test_closed_streams_are_nobody_to_ask(waiting: tuple[Path, dict[str, Any]]) -> None:
    reports, _ = waiting
    command = f"exec {sys.executable} -m agent resume r --reports {reports} <&- 2>&-"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 3 and "approve" in ended.stdout


def test_the_way_from_plan_to_data_set(waiting: tuple[Path, dict[str, Any]]) -> None:
    reports, _ = waiting
    plan = json.loads(
        agent("plan", "last", "--examples", "40", "--json", "--reports", reports).stdout
    )
    assert plan["examples"] == 40 and len(plan["hash"]) == 64
    wrong = agent("approve", "r", "--plan", "0" * 16, "--reports", reports)
    assert wrong.returncode == 2 and "no plan of this run begins" in wrong.stderr
    nobody = agent("approve", "r", "--examples", "40", "--reports", reports)
    assert nobody.returncode == 2 and "no terminal to ask on" in nobody.stderr
    neither = agent("approve", "r", "--reports", reports)
    assert neither.returncode == 2 and "exactly one of" in neither.stderr
    done = agent("approve", "r", "--plan", plan["hash"][:12], "--accept-shortfall", "--json",
                 "--reports", reports)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "done"
    again = agent("approve", "r", "--plan", plan["hash"], "--reports", reports)
    assert again.returncode == 2 and "does not wait" in again.stderr


@pytest.mark.parametrize("command", ["status", "ledger", "report"])
def test_a_screen_is_text_and_json(waiting: tuple[Path, dict[str, Any]], command: str) -> None:
    reports, _ = waiting
    text = agent(command, "r", "--reports", reports)
    data = agent(command, "r", "--json", "--reports", reports)
    assert text.returncode == data.returncode == 0, text.stderr
    assert text.stdout.strip() and isinstance(json.loads(data.stdout), dict)


def test_status_tells_the_commands_that_follow(waiting: tuple[Path, dict[str, Any]]) -> None:
    reports, _ = waiting
    text = agent("status", "r", "--reports", reports).stdout
    assert "waiting" in text and "approve r --plan" in text or "dataset" in text


HOSTILE = ["../r", "/etc", "r/../r", "..", "R", "", "a" * 99, "r\x1b[2J", "-x"]


@pytest.mark.parametrize("run_id", HOSTILE)
def test_a_run_id_that_leaves_the_folder(waiting: tuple[Path, dict[str, Any]], run_id: str) -> None:
    reports, _ = waiting
    done = agent("status", "--reports", reports, "--", run_id)
    assert done.returncode == 2
    assert "\x1b" not in done.stderr and "Traceback" not in done.stderr


WRONG = {
    "no such run": (("status", "never"), "there is no run 'never'"),
    "no run yet": (("status", "last"), "no run"),
    "no configuration": (("run", "--config", "none.yaml"), "no configuration at 'none.yaml'"),
    "negative budget": (("run", "--budget", "-3"), "greater than 0, found -3"),
    "absurd budget": (("run", "--budget", "1e12"), "found 1000000000000"),
    "a model that is not there": (("run", "--config", "missing.yaml"), "no model at '/no/such"),
    "no price": (("run", "--config", "unpriced.yaml"), "no price for device"),
    "a key that is not set": (("run", "--config", "keyless.yaml"), "OPENAI_API_KEY is not set"),
    "a reviewer without a price": (("run", "--config", "dear.yaml"), "price"),
    "no such file": (("qc", "none.jsonl"), "none.jsonl"),
    "no such command": (("fly",), "fly"),
}
CONFIGS = {
    "missing.yaml": "engine: {model: /no/such/model}",
    "unpriced.yaml": "engine: {kind: scripted}\nprices: {device_usd_per_hour: {cuda: 3}}",
    "keyless.yaml": "engine: {kind: scripted}\nreviewer: {kind: llm}",
    "dear.yaml": "engine: {kind: scripted}\n"
    "reviewer: {kind: llm, model: none, base_url: 'http://127.0.0.1:9/v1'}",
}


@pytest.mark.parametrize(("arguments", "message"), WRONG.values(), ids=WRONG)
def test_bad_input_is_told_and_leaves_nothing(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    for name, text in CONFIGS.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "budget.yaml").write_text("engine: {kind: scripted}", encoding="utf-8")
    done = agent(*arguments, cwd=tmp_path)
    assert done.returncode in (2, 10), (done.stdout, done.stderr)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "reports").exists(), "nothing was begun"


def test_malformed_jsonl_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"instruction": "a", "response": "b"}\n{"instruction": \n', encoding="utf-8")
    done = agent("qc", path)
    assert done.returncode == 2
    assert "rows.jsonl" in done.stderr and "2" in done.stderr


def test_qc_prints_json_and_writes_rows(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Name a city.", "response": "Paris is a city.", "finish_reason": "eos"},
        {"instruction": "Name a sea.", "response": "The Baltic Sea.\nInstruction: Name a lake.",
         "finish_reason": "length"},
        {"instruction": "name a city. ", "response": "", "finish_reason": "stop"},
    ]  # fmt: skip
    path, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    done = agent("qc", path, "--rows", out)
    assert done.returncode == 1, done.stderr
    facts = json.loads(done.stdout)
    assert facts["rows"] == 3
    assert set(facts["metrics"]["runaway"]) == {"value", "count", "n", "low", "high", "verdict"}
    assert facts["metrics"]["token_limit"]["count"] == 1
    flags = [set(json.loads(line)["flags"]) for line in out.read_text("utf-8").splitlines()]
    assert flags[0] == set()
    assert {"runaway", "token_limit"} <= flags[1]
    assert {"empty", "duplicate"} <= flags[2]


def test_doctor_checks_everything_for_free(tmp_path: Path) -> None:
    (tmp_path / "budget.yaml").write_text("engine: {kind: scripted}", encoding="utf-8")
    done = agent("doctor", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    names = [c["name"] for c in json.loads(done.stdout)["checks"]]
    assert names == ["configuration", "model", "device", "reviewer", "caps", "disk"]
    (tmp_path / "budget.yaml").write_text("engine: {model: nowhere}", encoding="utf-8")
    assert agent("doctor", cwd=tmp_path).returncode == 2
    for cap in ("limit_usd", "pilot_usd", "scale_usd"):
        text = f"engine: {{kind: scripted}}\nbudget: {{{cap}: 0.000001}}"
        (tmp_path / "budget.yaml").write_text(text, encoding="utf-8")
        done = agent("doctor", cwd=tmp_path)
        assert done.returncode == 2
        assert f"budget.{cap} $0.000001 can never pay" in done.stdout


COMMANDS = [
    "run",
    "resume",
    "status",
    "plan",
    "approve",
    "reject",
    "report",
    "ledger",
    "doctor",
    "qc",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_json(command: str) -> None:
    done = agent(command, "--help")
    assert done.returncode == 0 and "--json" in done.stdout
