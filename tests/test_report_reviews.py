"""agent/report/reviews.py and baseline.py: a reviewer is shown beside what came of its words."""

import re
from typing import Any

import pytest
from builders import HOSTILE, review, round_record, run_record, story
from markdown_it import MarkdownIt
from test_report import _assert_rectangular, _html, line, section

from agent.records import RoundRecord
from agent.report.findings import learnings
from agent.report.render import next_params, round_report, run_report
from agent.report.reviews import CONSEQUENCES, review_view
from agent.review_records import Applied, Baseline, MetricAudit, Refused, Replay, Review

TITLE = "The review after this round"


def change(name: str, before: Any, after: Any, reason: str = "a reason") -> Applied:
    return Applied(parameter=name, before=before, after=after, reason=reason)


def rules(*applied: Applied, refused: tuple[Refused, ...] = (), stop: bool = False) -> Baseline:
    said = Review(
        diagnosis="Treated: repetition 5/96.", changes=(), predictions=(), confidence=0.6, stop=stop
    )
    return Baseline(review=said, applied=applied, refused=refused)


def told(**changes: Any) -> list[RoundRecord]:
    """The story up to its second review, with fields of that replaced."""
    rounds = story()[:2]
    asked = rounds[1].review
    assert asked is not None
    return [rounds[0], rounds[1].model_copy(update={"review": asked.model_copy(update=changes)})]


def undone() -> list[RoundRecord]:
    """The story, with its third round taken back and one change on top of the second."""
    rounds = story()
    asked = rounds[2].review
    assert asked is not None
    only = (change("fewshot.rotation", "fixed", "rotate"),)
    rounds[2] = rounds[2].model_copy(
        update={"review": asked.model_copy(update={"base": 2, "applied": only})}
    )
    return rounds


def shown(rounds: list[RoundRecord]) -> str:
    return section(round_report(rounds, run_record()), TITLE)


def test_predictions_stand_beside_what_was_measured() -> None:
    text = shown(told())
    assert line(text, "| Metric |") == (
        "| Metric | Foretold | With probability | Round 3 | Outcome | Brier score |"
    )
    assert line(text, "| repetition |") == (
        "| repetition | 0.0% to 2.0% | 80.0% | 16.7% | ❌ miss | 0.640 |"
    )


def test_before_the_trial_a_prediction_has_no_outcome() -> None:
    text = shown(told(outcomes=()))
    assert line(text, "| repetition |") == (
        "| repetition | 0.0% to 2.0% | 80.0% | awaited | – | – |"
    )


def test_what_a_stopped_run_foretold_is_not_awaited() -> None:
    asked = story()[1].review
    assert asked is not None
    said = asked.review.model_copy(update={"stop": True})
    rounds = told(review=said, outcomes=(), applied=())
    assert line(shown(rounds), "| repetition |").endswith("| 80.0% | not tried | – | – |")
    assert "| not tried |" in line(
        section(run_report(rounds, run_record()), "Reviews"), "| Round 2"
    )
    expected = section(round_report(rounds, run_record()), "Expected improvements")
    assert expected.strip() == "None: the run ended before anything was tried."


def test_what_was_not_measured_has_no_score() -> None:
    text = shown(story()[:3])
    assert line(text, "| duplicates |") == (
        "| duplicates | 0.0% to 10.0% | 80.0% | not measured | not scored | – |"
    )


def test_the_rules_stand_beside_the_reviewer() -> None:
    mine = change("response.temperature", 0.4, 0.2, "cooler")
    other = change("response.repetition_penalty", 1.1, 1.2, "5 of 96 rows loop")
    no = Refused(parameter="response.top_p", value="0.1", why="too large a step")
    text = shown(told(baseline=rules(mine, other, refused=(no,))))
    assert "would have recommended: other changes. They say: Treated: repetition 5/96.\n" in text
    assert line(text, "| Parameter |") == (
        "| Parameter | llm:gpt-5-mini | Rules | The rules' reason |"
    )
    assert line(text, "| `response.temperature` | 0.2 |").endswith("| 0.2 | the same | cooler |")
    assert line(text, "| `response.repetition_penalty`") == (
        "| `response.repetition_penalty` | – | 1.2 | 5 of 96 rows loop |"
    )
    assert "too large a step" in text


def test_agreement_is_two_words() -> None:
    baseline = rules(change("response.temperature", 0.4, 0.2))
    text = shown(told(baseline=baseline))
    assert "would have recommended: the same.\n" in text
    assert "| Rules |" not in text
    assert "They say" not in text


@pytest.mark.parametrize(
    ("baseline", "words", "cell"),
    [
        (rules(stop=True), "stop. They say", "stop"),
        (rules(), "no change. They say", "no change"),
        (
            rules(change("response.temperature", 0.4, 0.2), change("topics", "off", "hints")),
            "other changes. They say",
            "`response.temperature` (the same), `topics`",
        ),
    ],
)
def test_another_opinion_is_named(baseline: Baseline, words: str, cell: str) -> None:
    rounds = told(baseline=baseline)
    assert f"would have recommended: {words}" in shown(rounds)
    row = line(section(run_report(rounds, run_record()), "Reviews"), "| Round 2 |")
    assert row.split(" | ")[5] == cell


def test_a_list_is_the_same_value_whoever_names_it() -> None:
    """A record that was read back holds lists where a fresh one holds tuples."""
    asked = review({"response.stop": ((), ("\nQ:",))}, [])
    asked = asked.model_copy(update={"baseline": rules(change("response.stop", [], ["\nQ:"]))})
    view = review_view([round_record(review=asked)])
    assert view is not None and view.rules == "the same." and view.rules_table == ""


def test_the_rules_need_no_opinion_of_themselves() -> None:
    text = run_report(story()[:1], run_record())
    assert "The rules" not in section(text, "Reviews")
    assert "built-in rules" not in round_report(story()[:1], run_record())


@pytest.mark.parametrize("outcome", list(CONSEQUENCES))
def test_distrust_has_a_consequence(outcome: Any) -> None:
    audit = MetricAudit(metric="truncated", outcome=outcome, found="sensitivity 99/99")
    text = shown(told(audits=(audit,)))
    assert f'- `"truncated"`: **{outcome}**: sensitivity 99/99. So {CONSEQUENCES[outcome]}.' in text
    assert "go on deciding as long" not in text


def test_distrust_that_nobody_audited_is_said_to_be_so() -> None:
    assert '- `"truncated"`: no audit was made of it.' in shown(told(audits=()))


def test_a_round_that_is_undone_says_so_everywhere() -> None:
    rounds = undone()
    assert (
        "**Round 3 is undone.** Round 3 kept 52 of 128 rows, round 2 70 of 128: significantly "
        "worse, so what follows applies to the setting of round 2.\n"
    ) in shown(rounds[:3])
    assert "is undone" not in shown(rounds[:2])
    report = run_report(rounds, run_record())
    reviews = section(report, "Reviews")
    assert "❌ repetition 16.7%; **undone**: back to round 2 |" in line(reviews, "| Round 2 |")
    assert "| back to round 2; `fewshot.rotation` fixed → rotate |" in line(reviews, "| Round 3 |")
    assert "then back to round 2; `fewshot.rotation`" in report.split("## Iterations")[0]
    second = learnings(rounds)[1]
    assert second.lessons[-1] == "Round 3 was significantly worse than round 2 and was undone."


def test_what_follows_a_revert_is_built_on_the_base() -> None:
    rounds = undone()[:3]
    after = next_params(rounds)
    assert after == rounds[1].params.replace({"fewshot.rotation": "rotate"})
    text = section(round_report(rounds, run_record()), "Next configuration")
    assert "    temperature: 0.4  # was 0.2\n" in text
    assert '  rotation: "rotate"  # was "fixed"\n' in text


def test_a_trial_after_a_revert_is_compared_with_its_base() -> None:
    third = learnings(undone())[2]
    assert third.title == "back to round 2; `fewshot.rotation` fixed → rotate"
    assert line(third.reality, "| Metric |").split(" | ")[1] == "Round 2"
    assert line(third.reality, "| repetition |").split(" | ")[1] == "5.2% (5/96)"


def test_a_revert_without_changes_ends_with_the_better_setting() -> None:
    rounds = undone()[:3]
    asked = rounds[2].review
    assert asked is not None
    rounds[2] = rounds[2].model_copy(update={"review": asked.model_copy(update={"applied": ()})})
    text = round_report(rounds, run_record())
    assert "This is the setting of round 2" in section(text, "Next configuration")
    assert "Round 4 (next)" not in text
    assert "Back to round 2" in line(section(text, "Parameters"), "| Parameter |")


def test_changes_that_a_stopped_run_never_tried_are_not_announced() -> None:
    asked = story()[1].review
    assert asked is not None
    said = asked.review.model_copy(update={"stop": True})
    text = round_report(told(review=said), run_record())
    assert "The run ended before these changes were tried." in text
    assert "Round 3 (next)" not in text and "Not tried" in text


def test_a_replayed_trial_says_that_it_was_one() -> None:
    said = Replay(
        params=story()[2].params, sources=("round 2",), refused={}, rows=96, changed=0, unscored=0,
        metrics=(), bought=False,
    )  # fmt: skip
    assert "| Round 3 (replayed) | Outcome |" in line(shown(told(replay=said)), "| Metric |")
    rounds = story()[:2]
    rounds[1] = rounds[1].model_copy(update={"replayed": True})
    text = section(run_report(rounds, run_record()), "Learnings")
    assert "**Reality** (measured in round 2 (replayed)):" in text


def test_what_a_review_could_cost_and_what_it_was_not_sent() -> None:
    text = shown(told(at_most_usd=0.0123, left_out=("samples", "candidates")))
    assert "$0.0031 for 1 request (the first could cost at most $0.012); it was sent" in text
    assert "The limit on its length left no room there for: samples, candidates." in text
    assert "at most" not in shown(told()) and "left no room" not in shown(told())


def test_hostile_words_of_rules_and_audits_stay_inert() -> None:
    odd = change("response.temperature", 0.4, 0.3, HOSTILE)
    said = Review(diagnosis=HOSTILE, changes=(), predictions=(), confidence=0.5)
    no = Refused(parameter=HOSTILE[:64], value=HOSTILE[:64], why=HOSTILE)
    text = shown(
        told(
            baseline=Baseline(review=said, applied=(odd,), refused=(no,)),
            audits=(MetricAudit(metric=HOSTILE[:64], outcome="stands", found=HOSTILE),),
            left_out=(HOSTILE,),
        )
    )
    parser = MarkdownIt("commonmark").enable("table")
    assert _html(parser, text) == []
    assert set(re.findall(r'(?:href|src)="([^"]*)"', parser.render(text))) == {
        "rounds/01-learnings.md"
    }
    assert "\x1b" not in text and "\u202e" not in text
    _assert_rectangular(text)
