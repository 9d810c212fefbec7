"""Every reviewer behind the one seam keeps the same contract."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

import pytest
from builders import story
from fake_server import chat, serving
from purse import Purse

from agent.config import ModelPrice, PricesSection, ReviewerSection
from agent.guard import usable
from agent.records import RoundRecord
from agent.review import parse_review
from agent.review_records import Review
from agent.reviewers import choose_reviewer
from agent.reviewers.base import Reviewer
from benchmarks.tuning.manual import ManualReviewer
from benchmarks.tuning.random_search import RandomReviewer
from pipeline.params import TUNABLE

PRICES = PricesSection(
    reviewers={"m": ModelPrice(input_usd_per_million=1.0, output_usd_per_million=10.0)}
)
ANSWER = {
    "diagnosis": "responses run on",
    "changes": [{"parameter": "response.stop", "value": ["\nInstruction"], "reason": "ends them"}],
    "predictions": [{"metric": "runaway", "low": 0, "high": 0.03, "probability": 0.8}],
    "distrusted_metrics": [],
    "confidence": 0.7,
    "stop": False,
}


class ReviewerContract:
    """What the loop takes for granted of whoever reviews."""

    name: ClassVar[str]
    free: ClassVar[bool] = True

    @contextmanager
    def opened(self) -> Iterator[Reviewer]:
        section = ReviewerSection.model_validate({"kind": self.name})
        yield choose_reviewer(section, PRICES, {}, 1)[0]

    def asked(self, rounds: Sequence[RoundRecord]) -> tuple[Review, Purse]:
        purse = Purse()
        with self.opened() as reviewer:
            return reviewer.review("# Learnings report", rounds, pay=purse.pay), purse

    def test_its_name_says_who_reviewed(self):
        with self.opened() as reviewer:
            assert reviewer.name.split(":")[0] == self.name

    @pytest.mark.parametrize("length", [1, 2, 3])
    def test_its_answer_is_one_that_would_be_read_from_text_too(self, length):
        review, _ = self.asked(story()[:length])
        assert parse_review(review.model_dump_json()) == review

    def test_the_same_question_has_the_same_answer(self):
        assert self.asked(story()[:2])[0] == self.asked(story()[:2])[0]

    def test_it_names_only_what_may_be_tuned_each_once(self):
        names = [c.parameter for c in self.asked(story()[:1])[0].changes]
        assert names and set(names) <= TUNABLE.keys() and len(set(names)) == len(names)

    def test_changes_carry_a_prediction_that_can_fail(self):
        review, _ = self.asked(story()[:1])
        assert any(usable(prediction) is None for prediction in review.predictions)

    def test_what_it_asks_for_is_paid(self):
        _, purse = self.asked(story()[:1])
        assert (purse.reserved == []) == self.free


class TestRules(ReviewerContract):
    name = "rules"


class TestBayes(ReviewerContract):
    name = "bayes"


class TestLlm(ReviewerContract):
    name = "llm"
    free = False

    @contextmanager
    def opened(self) -> Iterator[Reviewer]:
        with serving([chat(json.dumps(ANSWER))]) as server:
            values = {"kind": "llm", "model": "m", "base_url": server.url}
            section = ReviewerSection.model_validate(values)
            yield choose_reviewer(section, PRICES, {}, 1)[0]


class TestRandom(ReviewerContract):
    """Of the benchmark: it sits in the same seat."""

    name = "random"

    @contextmanager
    def opened(self) -> Iterator[Reviewer]:
        yield RandomReviewer(max_changes=4, seed=1)


class TestManual(ReviewerContract):
    """Of the benchmark too."""

    name = "manual"

    @contextmanager
    def opened(self) -> Iterator[Reviewer]:
        yield ManualReviewer(max_changes=4)
