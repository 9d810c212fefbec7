"""A finished run for proofs: made once by the real loop, then copied.

The engine is scripted, and the reviewer is asked over HTTP, so that there are answers to keep.
"""

import shutil
import tempfile
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path

from fake_server import Play, chat, serving

from agent import runner
from agent.config_file import load_config
from agent.reviewers.base import Bill
from agent.reviewers.rules import RulesReviewer
from agent.store import RunStore

RUN_ID = "r"
_MEMORY = Path("/dev/shm")


@cache
def finished(examples: int, micro_batch: int, shard_rows: int) -> Path:
    """A reports folder with a run ``r`` of so many rows that is done; not to be changed."""
    made = tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None)
    _MADE.append(made)  # removed when the session ends
    return make(Path(made.name), examples, micro_batch, shard_rows)


_MADE: list[tempfile.TemporaryDirectory[str]] = []


def make(folder: Path, examples: int, micro_batch: int, shard_rows: int) -> Path:
    """The same, in ``folder``: pilots, review, approval, scale and data set."""
    config = folder / "budget.yaml"
    reports = folder / "reports"
    with serving(lambda body, headers: _review(reports)) as provider:
        config.write_text(
            f"engine: {{kind: scripted}}\n"
            f"scale: {{examples: {examples}, micro_batch: {micro_batch}, "
            f"shard_rows: {shard_rows}}}\n"
            f"reviewer: {{kind: llm, model: fake, base_url: '{provider.url}', "
            "timeout_seconds: 5}\n"
            "prices: {reviewers: {fake: {input_usd_per_million: 1, output_usd_per_million: 2}}}\n",
            encoding="utf-8",
        )
        ending = runner.start(reports, load_config(config), RUN_ID, lambda event: None)
    assert ending.status == "waiting", ending.reason
    plan = runner.offer(reports, RUN_ID, examples)
    ending = runner.approve(
        reports, RUN_ID, plan.hash, lambda event: None, accept_shortfall=True, accept_need=True
    )
    assert ending.status == "done", ending.reason
    return reports


def _review(reports: Path) -> Play:
    """What the built-in rules say of the run so far, as a provider would."""
    rounds = RunStore.open(reports, RUN_ID).load_rounds()
    said = RulesReviewer(max_changes=4).review("", rounds, pay=_unpaid)
    return chat(said.model_dump_json())


def _unpaid(worst_case: int) -> AbstractContextManager[Bill]:
    raise AssertionError("rules ask nobody")


def copied(reports: Path, folder: Path) -> Path:
    """A copy that may be changed."""
    shutil.copytree(reports, folder)
    return folder
