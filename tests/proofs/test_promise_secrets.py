"""P20: a canary key passes through every fault, and is nowhere in what the program leaves."""

import base64
import functools
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from bookkeeping import ROOT
from builders import story
from completion_server import server as engine_server
from fake_server import Body, Play, serving
from leaks import ENGINE_LEAKS, KEY, LEAKS, TELLTALE, Headers, found_in, leaks
from provider import FAULTS, without_certificates

from agent import runner
from agent.config import RunConfig
from agent.config_file import check_config
from agent.errors import AgentError, ReviewerError
from agent.reviewers.llm import LlmReviewer
from agent.session import create_run, open_session
from agent.stages import reviewing
from agent.store import RunStore

HOLDING = (
    "answered twice", "compressed", "cut short", "deep", "forbidden", "huge", "no completion",
    "no such format", "no such model", "not JSON", "not text", "overloaded", "prose", "redirect",
    "request timeout", "reset", "server error", "conflict", "cut at the cap", "bad request",
)  # fmt: skip
"""Faults of the provider after which the run holds, quickly."""


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("ENGINE_API_KEY", KEY)
    patient = functools.partial(LlmReviewer, sleep=lambda seconds: None)
    monkeypatch.setattr("agent.reviewers.llm.LlmReviewer", patient)
    without_certificates(monkeypatch)


def config(engine: dict[str, Any], url: str) -> RunConfig:
    price = {"input_usd_per_million": 0.3, "output_usd_per_million": 1.7}
    tree = {
        "engine": engine,
        "scale": {"examples": 60, "micro_batch": 32},
        "reviewer": {"kind": "llm", "model": "m", "base_url": url, "timeout_seconds": 60.0},
        "prices": {
            "device_usd_per_hour": {"cpu": 0.05, "server": 0.05},
            "reviewers": {"m": price},
        },
    }
    return check_config(tree, source="test")


def told(error: BaseException) -> str:
    """All that an uncaught error would print."""
    return "".join(traceback.format_exception(error)) + repr(error)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(KEY, id="plain"),
        pytest.param(quote(KEY, safe=""), id="quoted"),
        pytest.param(base64.b64encode(f"Bearer {KEY}".encode()).decode(), id="base64"),
        pytest.param(base64.b64encode(f"xBearer {KEY}!".encode()).decode(), id="base64, shifted"),
        pytest.param(KEY.replace("/", "\\/"), id="escaped"),
    ],
)
def test_the_search_finds_a_key(tmp_path: Path, text: str) -> None:
    assert leaks(f"before {text} after") and not leaks("before *** after")
    (tmp_path / "a.json").write_text(f"before {text} after", encoding="utf-8")
    assert found_in(tmp_path, [text]) == ["text 0", str(tmp_path / "a.json")]


def test_no_fault_of_a_reviewer_writes_the_key_anywhere(
    tmp_path: Path, effort: Any, figure: Any
) -> None:
    names = HOLDING[: effort(sample=2, proof=len(HOLDING), soak=len(HOLDING))]
    fault: Callable[[Headers], Play] = TELLTALE
    said: list[str] = []

    def play(body: Body, headers: Headers) -> Play:
        assert headers["authorization"] == f"Bearer {KEY}"
        return fault(headers)

    def ask() -> None:
        with open_session(tmp_path, "r") as session:
            reviewing.ask(session, 1, lambda event: said.append(str(event)))

    with serving(play) as server:
        create_run(tmp_path, "r", config({"kind": "scripted"}, server.url))
        store = RunStore.open(tmp_path, "r")
        store.save_round(story()[0].model_copy(update={"review": None}))
        held = {}
        plain = {name: (lambda _, name=name: FAULTS[name]((9, 9))) for name in names}
        for name, fault in (LEAKS | plain).items():  # noqa: B007
            with pytest.raises(ReviewerError) as caught:
                ask()
            said.append(told(caught.value))
            held[name] = str(caught.value)
        fault = TELLTALE
        ask()
    kept = store.read_text(f"rounds/01-answer-{_answers(store)}.txt")
    assert "I was sent Bearer ***" in kept, "the server did repeat it"
    assert "***" in held["401 with our headers"]
    hits = found_in(tmp_path, said)
    assert hits == []
    figure("P20", f"reviewer: {len(held) + 1} faults and echoes, {len(hits)} hits")


def _answers(store: RunStore) -> int:
    stems = [path.stem for path in store.path.glob("rounds/01-answer-*.txt")]
    return max(int(stem.rsplit("-", 1)[1]) for stem in stems)


def test_no_fault_of_an_engine_server_writes_the_key_anywhere(tmp_path: Path, figure: Any) -> None:
    said: list[str] = []
    answer: Any = None
    with engine_server(lambda path, body: answer) as (url, _):
        engine = {"kind": "server", "model": "base", "base_url": url}
        create_run(tmp_path, "r", config(engine, "http://127.0.0.1:9/v1"))
        for answer in ENGINE_LEAKS.values():  # noqa: B007
            with pytest.raises(AgentError) as caught:
                runner.resume(tmp_path, "r", lambda event: said.append(str(event)))
            said.append(told(caught.value))
    assert any("***" in text for text in said), "a server did repeat it"
    hits = found_in(tmp_path, said)
    assert hits == []
    figure("P20", f"engine server: {len(ENGINE_LEAKS)} faults, {len(hits)} hits")


def test_a_run_that_holds_prints_and_writes_no_key(
    tmp_path: Path, effort: Any, figure: Any
) -> None:
    names = list(LEAKS)[: effort(sample=1, proof=4, soak=len(LEAKS))]
    fault: Callable[[Headers], Play] = TELLTALE
    printed: list[str] = []

    def agent(*arguments: str | Path) -> int:
        command = [sys.executable, "-m", "agent", *map(str, arguments)]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=120, env=os.environ
        )
        printed.extend([done.stdout, done.stderr])
        return done.returncode

    path, reports = tmp_path / "budget.yaml", tmp_path / "reports"
    with serving(lambda body, headers: fault(headers)) as server:
        path.write_text(
            "engine: {kind: scripted}\nscale: {examples: 60, micro_batch: 32}\n"
            f"reviewer: {{kind: llm, model: m, base_url: '{server.url}', timeout_seconds: 5}}\n"
            "prices: {reviewers: {m: {input_usd_per_million: 1, output_usd_per_million: 2}}}\n",
            encoding="utf-8",
        )
        fault = LEAKS[names[0]]
        assert agent("run", "--config", path, "--run-id", "r", "--reports", reports) == 9
        for name in names[1:]:
            fault = LEAKS[name]
            assert agent("resume", "r", "--reports", reports) == 9, name
        assert any("***" in text for text in printed), "the server did repeat it"
        for _ in range(effort(sample=0, proof=1, soak=1)):
            fault = TELLTALE
            assert agent("resume", "r", "--reports", reports) == 6
            review = RunStore.open(reports, "r").load_rounds()[0].review
            assert review is not None and "I was sent Bearer ***" in review.review.diagnosis
    hits = found_in(tmp_path, printed)
    assert hits == []
    files = sum(p.is_file() for p in tmp_path.rglob("*"))
    figure(
        "P20",
        f"a real run that held {len(names)} times: {len(hits)} hits in {files} files, "
        f"both databases and {sum(map(len, printed)):,} characters printed",
    )
