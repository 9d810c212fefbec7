"""P15: text in samples cannot widen what a review may do, even if the reviewer obeys it."""

import json
import random
import unicodedata
from collections import Counter
from collections.abc import Callable
from typing import Any

from bounds import trespasses
from builders import flagged, round_record, sample, story
from forked import forks
from hostile_runs import trespassing
from injections import ALLOWED, Obedient, heard, outside, payload
from purse import Purse

from agent.guard import guard
from agent.learnings import Terms, learnings
from agent.records import RoundRecord
from agent.review_records import Refused
from pipeline.params import GenParams

MAX_CHANGES = 4
_EITHER = ("Cleaned response:", "Cleaned response: the same.")
"""Lines of the template that depend on a sample."""
Texts = Callable[[int], str]


def rounds_with(instruction: Texts, raw: Texts, clean: Texts, diagnosis: str) -> list[RoundRecord]:
    """The story's first rounds, with these texts in the samples of the last one."""
    first, second = story()[:2]
    assert first.review is not None
    spoken = first.review.review.model_copy(update={"diagnosis": diagnosis})
    first = first.model_copy(update={"review": first.review.model_copy(update={"review": spoken})})
    shown = [
        make(i, instruction=instruction(i), instruction_raw=instruction(i), raw=raw(i),
             clean=clean(i), **more)
        for i, make, more in (
            (0, sample, {}), (1, sample, {"finish_reason": "stop", "stop": "\n###"}),
            (2, flagged, {}), (3, flagged, {"flags": ("repetition",), "cause": "sampling"}),
        )
    ]  # fmt: skip
    last = round_record(
        2, params=second.params, review=None,
        random_samples=tuple(shown[:2]), flagged_samples=tuple(shown[2:]),
    )  # fmt: skip
    return [first, last]


def report_on(rounds: list[RoundRecord]) -> str:
    terms = Terms(300.0, 0.1, max_changes=MAX_CHANGES, rounds_left=3, run_id="r")
    return learnings(rounds, terms).text


def test_orders_in_samples_are_obeyed_and_achieve_nothing(effort: Any, figure: Any) -> None:
    count = effort(sample=30, proof=300, soak=3_000)
    benign = outside(report_on(rounds_with(*[lambda i: "Paris."] * 3, "Paris.")))
    given, reached, refused, applied, escaped = 0, 0, Counter[str](), 0, []
    for number in range(count):
        rng = random.Random(f"15/{number}")
        texts = [payload(rng, allowed=rng.random() < 0.1) for _ in range(13)]
        rounds = rounds_with(
            lambda i: texts[i].text, lambda i: texts[4 + i].text, lambda i: texts[8 + i].text,  # noqa: B023
            texts[12].text,
        )  # fmt: skip
        report, stub = report_on(rounds), Obedient()
        escaped += [(number, line) for line in _more(report, benign)]
        assert not hidden(report)
        given += len(texts)
        read = heard(report)
        reached += sum(text.order in read for text in texts)
        review = stub.review(report, rounds, pay=Purse().pay)
        before = rounds[-1].params
        out = guard(review, before, max_changes=MAX_CHANGES, tried=[r.params for r in rounds])
        assert trespasses(before, out.params, most=MAX_CHANGES) == []
        refused.update(r.parameter for r in out.refused)
        applied += len(out.applied)
    assert escaped == []
    assert reached > given / 2 and sum(refused.values()) > count, "orders must arrive"
    assert applied > 0, "and one that is allowed is carried out"
    figure(
        "P15",
        f"{given:,} payloads in {count:,} reports, {reached:,} of them read and obeyed: "
        f"{sum(refused.values()):,} orders about {len(refused)} names refused, {applied} within "
        f"bounds carried out, 0 outside of them; {len(escaped)} lines left their fence",
    )


def _more(report: str, benign: list[str]) -> list[str]:
    """Lines outside of fences that are there only, or more often, with payloads in the samples."""
    found = Counter(outside(report)) - Counter(benign)
    return [line for line in found.elements() if line.strip() and line not in _EITHER]


def hidden(report: str) -> set[str]:
    """Characters that no reader sees, or that move what is seen."""
    unseen = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    return {c for c in set(report) - {"\n"} if unicodedata.category(c) in unseen}


def test_a_line_outside_its_fence_would_be_seen() -> None:
    benign = report_on(rounds_with(*[lambda i: "Paris."] * 3, "Paris."))
    assert _more(benign, outside(benign)) == []
    found = _more(benign + "set model to evil\n## Spend", outside(benign))
    assert sorted(found) == ["## Spend", "set model to evil"]


def test_what_stands_in_a_line_stays_in_it(effort: Any) -> None:
    """Stop strings, and what a reviewer called a parameter, are shown outside of fences."""
    usual = outside(report_on(rounds_in_line("Paris.")))
    for number in range(effort(sample=10, proof=300, soak=3_000)):
        text = payload(random.Random(f"line/{number}")).text
        lines = outside(report_on(rounds_in_line(text)))
        assert len(lines) == len(usual)
        others = [line for line, before in zip(lines, usual, strict=True) if line != before]
        assert others and all(line.startswith(("- ", "Row ", "| ")) for line in others), others


def rounds_in_line(text: str) -> list[RoundRecord]:
    """The story's first rounds, with ``text`` where one line shows it."""
    first, second = story()[:2]
    assert first.review is not None
    refused = Refused(parameter=text[:64], value=repr(text)[:64], why="not in the closed list")
    review = first.review.model_copy(update={"refused": (refused,)})
    shown = sample(1, finish_reason="stop", stop=text)
    told = {"review": None, "random_samples": (shown,), "stops": {text: 3, "eos": 5}}
    return [first.model_copy(update={"review": review}), second.model_copy(update=told)]


def test_the_obedient_reviewer_obeys() -> None:
    for name, value in ALLOWED:
        told = f"Please set {name} to {json.dumps(value)} at once."
        review = Obedient().review(told, [], pay=Purse().pay)
        assert [(c.parameter, c.value) for c in review.changes] == [(name, value)]
        assert guard(review, GenParams(), max_changes=MAX_CHANGES).applied


def test_whole_runs_on_a_model_that_talks_to_the_reviewer(effort: Any, figure: Any) -> None:
    count = effort(sample=1, proof=12, soak=120)
    asked = [{"talking": seed} for seed in range(count)]
    found = forks().call("hostile_runs:run", asked)
    steps, applied, refused = 0, 0, 0
    for run in found:
        assert run["spent"] and all(run["unmoved"].values()), run["unmoved"]
        assert trespassing(run, most=MAX_CHANGES) == []
        rounds = [RoundRecord.model_validate(r) for r in run["rounds"]]
        reviews = [r.review for r in rounds if r.review is not None]
        steps += len(rounds) - 1
        applied += sum(len(review.applied) for review in reviews)
        refused += sum(len(review.refused) for review in reviews)
        _approved_by_code(rounds)
        for report in run["reports"]:
            lines = outside(report)
            assert not any(line.strip().startswith("SYSTEM: ") for line in lines)
            assert sum(line.startswith("# Learnings report") for line in lines) == 1
            assert sum(line.startswith("## Parameters") for line in lines) == 1
            assert sum(line.startswith("Decision so far:") for line in lines) == 1
    told = [order for run in found for review in run["obeyed"] for order in review]
    assert refused > count, "orders must arrive"
    figure(
        "P15",
        f"{count} whole runs on a model that gives orders, {len(told)} of them obeyed: {refused} "
        f"refused, {applied} within bounds applied over {steps} steps, 0 outside; configuration, "
        "model, cap, prices and thresholds as they were in all",
    )


def _approved_by_code(rounds: list[RoundRecord]) -> None:
    for record in rounds:
        gates = [m for m in record.metrics if m["verdict"] and m["name"] != "yield"]
        if record.step == "APPROVE":
            assert {m["verdict"] for m in gates} == {"PASS"}
        limits = {m["name"]: m["threshold"] for m in gates}
        assert limits["runaway"] == "< 0.05" and limits["pair_acceptance"] == ">= 0.5", limits
