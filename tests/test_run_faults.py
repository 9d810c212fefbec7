"""What goes wrong during a run: signals, an unreachable reviewer, a full disk."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fake_server import chat, refusal, serving

from agent import runner
from agent.config_file import load_config
from agent.errors import ReviewerError, StorageError
from agent.store import RunStore

QUIET: Callable[[Any], None] = lambda event: None  # noqa: E731

REVIEW = {
    "diagnosis": "responses run on into another instruction",
    "changes": [
        {"parameter": "response.stop", "value": ["\nInstruction", "\nResponse"], "reason": "ends"},
        {"parameter": "response.max_new_tokens", "value": 120, "reason": "room"},
        {"parameter": "fewshot.rotation", "value": "rotate", "reason": "variety"},
        {"parameter": "engine.model", "value": "gpt-9", "reason": "try to leave the list"},
    ],
    "predictions": [{"metric": "runaway", "low": 0.0, "high": 0.05, "probability": 0.9}],
    "distrusted_metrics": [],
    "confidence": 0.8,
    "stop": False,
}


def config_with_reviewer(tmp_path: Path, url: str) -> Path:
    path = tmp_path / "budget.yaml"
    path.write_text(
        "engine: {kind: scripted}\nscale: {examples: 60}\n"
        f"reviewer: {{kind: llm, model: fake, base_url: '{url}', timeout_seconds: 5}}\n"
        "prices: {reviewers: {fake: {input_usd_per_million: 1, output_usd_per_million: 2}}}\n",
        encoding="utf-8",
    )
    return path


def test_an_unreachable_reviewer_holds_the_run_and_resume_goes_on(tmp_path: Path) -> None:
    reports = tmp_path / "reports"
    with serving([refusal(401)]) as broken:
        config = load_config(config_with_reviewer(tmp_path, broken.url))
        with pytest.raises(ReviewerError):
            runner.start(reports, config, "r", QUIET)
    store = RunStore.open(reports, "r")
    assert store.load_run().status == "held"
    assert len(store.load_rounds()) == 1, "what was measured is kept"
    with serving([chat(json.dumps(REVIEW), usage=(1000, 200))]) as server:
        record = store.load_run()
        settings = record.config | {
            "reviewer": record.config["reviewer"] | {"base_url": server.url}
        }
        store.save_run(record.model_copy(update={"config": settings}))
        ending = runner.resume(reports, "r", QUIET)
    assert ending.status in {"waiting", "stop_rounds", "held", "stop_no_change"}
    review = store.load_rounds()[0].review
    assert review is not None and review.reviewer == "llm:fake"
    assert [r.parameter for r in review.refused] == ["engine.model"]
    assert review.cost_usd == pytest.approx(0.0014)
    sent = (reports / "r" / review.learnings_path).read_text(encoding="utf-8")
    assert "runaway" in sent


class TestSignals:
    """Ctrl-C, SIGTERM and SIGHUP stop at the next border; the run goes on from there."""

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_a_signal_drains(
        self, tmp_path: Path, scripted_yaml: Path, number: signal.Signals
    ) -> None:
        reports = tmp_path / "reports"
        process = subprocess.Popen(
            [sys.executable, "-m", "agent", "run", "--config", str(scripted_yaml),
             "--run-id", "r", "--reports", str(reports)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        artifacts = reports / "r" / "artifacts"
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if artifacts.is_dir() and len(list(artifacts.glob("*.jsonl"))) >= 2:
                process.send_signal(number)
                break
            time.sleep(0.005)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        assert "python -m agent resume r" in out
        assert RunStore.open(reports, "r").load_run().status == "drained"
        assert runner.resume(reports, "r", QUIET).status == "waiting"

    def test_a_terminal_that_is_gone_drains_too(self, tmp_path: Path, scripted_yaml: Path) -> None:
        reports = tmp_path / "reports"
        pid, terminal = pty.fork()
        if pid == 0:
            os.execv(
                sys.executable,
                [sys.executable, "-m", "agent", "run", "--config", str(scripted_yaml),
                 "--run-id", "r", "--reports", str(reports)],
            )  # fmt: skip
        os.set_blocking(terminal, False)
        artifacts = reports / "r" / "artifacts"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with suppress(OSError):
                os.read(terminal, 65_536)
            if artifacts.is_dir() and len(list(artifacts.glob("*.jsonl"))) >= 2:
                break
            time.sleep(0.005)
        os.close(terminal)  # as when the line to a remote machine breaks: SIGHUP, then EIO
        _, how = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(how) == 130
        assert RunStore.open(reports, "r").load_run().status == "drained"
        assert runner.resume(reports, "r", QUIET).status == "waiting"


def test_a_full_disk_has_its_own_exit_code_and_loses_nothing(
    tmp_path: Path, scripted_yaml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = tmp_path / "reports"
    real, calls = os.fsync, [0]

    def fsync(handle: int) -> None:
        calls[0] += 1
        if calls[0] > 25:
            raise OSError(28, "No space left on device")
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(StorageError, match="free some space") as caught:
            runner.start(reports, load_config(scripted_yaml), "r", QUIET)
    assert caught.value.exit_code == 12
    assert runner.resume(reports, "r", QUIET).status == "waiting"
