"""agent/report/render.py: all that people read is there, computed, and hostile text is inert."""

import re

import pytest
import yaml
from builders import HOSTILE, flagged, metrics, review, round_record, run_record, sample, story
from markdown_it import MarkdownIt

from agent.config import RunConfig
from agent.records import RoundRecord, RunRecord
from agent.report.findings import LESSONS, learnings
from agent.report.render import next_params, render_all, round_report, run_report
from agent.report.tables import WIDEST
from agent.report.text import interval_of, threshold_of, value_of
from agent.review_records import Refused
from pipeline.types import Metric

ROUND_SECTIONS = (
    "Iterations", "Parameters", "Metrics of this round", "Learnings", "Root causes",
    "Causes of bad rows", "What ended the responses", "Reviews", "Next configuration",
    "Expected improvements", "Next steps", "Smoke test", "Flagged rows, raw and cleaned",
    "Funnel", "Cost", "Insights", "Rows drawn at random",
)  # fmt: skip
RUN_SECTIONS = (
    "Iterations", "Parameters", "Learnings", "Reviews", "Forecast and plan", "Data set", "Cost",
    "Insights", "Next configuration", "Provenance",
)  # fmt: skip


def headings(text: str) -> list[str]:
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    return [
        after.content
        for token, after in zip(tokens, tokens[1:], strict=False)
        if token.type == "heading_open"
    ]


def line(text: str, start: str) -> str:
    """The only line that begins with ``start``, white space folded."""
    found = [" ".join(x.split()) for x in text.splitlines()]
    (match,) = [x for x in found if x.startswith(start)]
    return match


def section(text: str, title: str) -> str:
    """The lines under a heading, up to the next one of its level or above."""
    level, rest = re.split(rf"^(#+) {re.escape(title)}$", text, maxsplit=1, flags=re.M)[1:]
    return re.split(rf"^#{{1,{len(level)}}} ", rest, maxsplit=1, flags=re.M)[0]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_every_section_stands_in_every_report(count):
    rounds = story()[:count]
    assert set(ROUND_SECTIONS) <= set(headings(round_report(rounds, run_record())))
    assert set(RUN_SECTIONS) <= set(headings(run_report(rounds, run_record())))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_every_figure_of_the_metric_table_appears(count):
    rounds = story()[:count]
    table = section(round_report(rounds, run_record()), "Metrics of this round")
    for metric in map(Metric.from_json, rounds[-1].metrics):
        row = line(table, f"| {metric.name} |")
        for figure in (value_of(metric), interval_of(metric), threshold_of(metric)):
            assert f"| {figure} |" in row
        assert (metric.verdict or "shown") in row
    for name, count_at_stage in rounds[-1].funnel.items():
        assert re.search(
            rf"^\| {name}\b.*\| +{count_at_stage} \|", round_report(rounds, run_record()), re.M
        )


def test_the_iteration_table_has_a_column_a_round_arrows_marks_and_targets():
    text = section(run_report(story(), run_record()), "Iterations")
    assert line(text, "| Metric |") == "| Metric | Round 1 | Round 2 | Round 3 | Round 4 | Target |"
    assert line(text, "| runaway |") == (
        "| runaway | 78.6% (22/28) ❌ | 0.0% (0/96) ↓↓ ❔ | 0.0% (0/96) ❔ | 0.0% (0/412) ✅ "
        "| < 5% |"
    )
    assert line(text, "| repetition |").split(" | ")[3] == "16.7% (16/96) (↑↑) ❌"
    assert line(text, "| yield |").split(" | ")[1:3] == ["not measured ❔", "9,400 ❌"]
    assert line(text, "| Rows kept |") == "| Rows kept | 4 | 70 | 52 | 355 | 448 |"


def test_the_parameter_table_marks_every_change_and_the_next_setting():
    text = section(round_report(story()[:3], run_record()), "Parameters")
    assert line(text, "| `response.temperature`") == (
        "| `response.temperature` | 0.4 | 0.4 | **0.2** ↓ | **0.4** ↑ (reverted) |"
    )
    assert line(text, "| `response.max_new_tokens`").split(" | ")[1:3] == ["80", "**100** ↑"]
    assert line(text, "| `fewshot.rotation`").endswith("| fixed | **rotate** ✎ |")
    assert r"""**`"\nInstruction"` `"\nQ:"` `"\n###"`** ✎""" in text
    assert "`instruction.top_p` 0.9" in line(text, "The same in every round:")


def test_a_learning_is_hypothesis_reality_why_and_lesson():
    text = section(run_report(story(), run_record()), "Learnings")
    assert "### Learning 2: `response.temperature` 0.4 → 0.2" in text
    second = text.split("### Learning 2")[1].split("### Learning 3")[0]
    assert (
        "`response.temperature`: a lower temperature gives shorter, more focused answers" in second
    )
    assert line(second, "| repetition |") == (
        "| repetition | 5.2% (5/96) | 0.0% to 2.0% | 80.0% | 16.7% (16/96) | [9.1%, 28.7%] "
        "| ❌ miss | 0.640 |"
    )
    assert "sampling 6/128 → 18/128; token_cap 4/128 → 6/128." in second
    assert f"- repetition {LESSONS['opposite']}" in second
    assert "chosen by a fixed table" in second


LESSON_CASES = [
    ("hit", (20, 96), (2, 96), (0.0, 0.05)),
    ("idle", (2, 96), (3, 96), (0.0, 0.05)),
    ("short", (90, 96), (30, 96), (0.0, 0.05)),
    ("overshot", (60, 96), (1, 96), (0.2, 0.4)),
    ("chance", (5, 96), (6, 96), (0.0, 0.01)),
    ("opposite", (1, 400), (60, 96), (0.0, 0.001)),
    ("opposite", (5, 96), (16, 96), (0.0, 0.02)),
    ("unmeasured", (5, 96), (None, 0), (0.0, 0.02)),
]


@pytest.mark.parametrize(("lesson", "was", "now", "span"), LESSON_CASES)
def test_the_lesson_follows_from_prediction_and_measurement(lesson, was, now, span):
    def measured(count, n):
        return metrics({"repetition": count}, n=n, generated=n, kept=n, distinct=None)

    actual = None if now[0] is None else now[0] / now[1]
    asked = review({"response.top_p": (0.9, 0.8)}, [("repetition", *span, actual)])
    before = round_record(1, metrics=measured(*was), review=asked)
    (learning,) = learnings([before, round_record(2, metrics=measured(*now), review=None)])
    assert learning.lessons == (f"repetition {LESSONS[lesson]}",)


def test_several_changes_at_once_cannot_be_told_apart():
    (learning,) = learnings(story()[:2])
    assert learning.lessons[-1].startswith("2 parameters changed at once")


def test_reviews_are_listed_with_recommendation_outcome_and_cost():
    text = section(run_report(story(), run_record()), "Reviews")
    assert line(text, "| Round 2 |") == (
        "| Round 2 | llm:gpt-5-mini | `response.temperature` 0.4 → 0.2 | ❌ repetition 16.7% "
        "| 0.640 | 80.0% | $0.0031 |"
    )
    assert "· duplicates not measured" in line(text, "| Round 3 |")


def test_what_the_guard_refused_and_what_the_reviewer_distrusts_is_shown():
    text = section(round_report(story()[:2], run_record()), "The review after this round")
    assert line(text, '| `"budget.limit_usd"`').endswith("| not a tunable parameter |")
    assert '`"truncated"`' in text


def test_a_prediction_that_could_not_miss_teaches_nothing():
    asked = review({"response.top_p": (0.9, 0.8)}, [("repetition", 0.0, 1.0, 0.5)])
    assert asked.outcomes[0].hit is None and asked.outcomes[0].score is None
    rounds = [round_record(review=asked), round_record(2, review=None)]
    (learning,) = learnings(rounds)
    assert learning.lessons == (f"repetition {LESSONS['unscored']}",)
    assert "| not scored | – |" in re.sub(" +", " ", learning.reality)


def test_an_unscored_review_says_that_it_waits():
    pending = round_record(review=review({"response.top_p": (0.9, 0.8)}, [("runaway", 0, 0.1, -1)]))
    assert "awaits the next round" in section(round_report([pending], run_record()), "Reviews")


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_next_configuration_is_a_budget_yaml(count):
    rounds = story()[:count]
    block = section(round_report(rounds, run_record()), "Next configuration")
    (text,) = re.findall(r"```yaml\n(.*?)```", block, re.S)
    config = RunConfig.model_validate(yaml.safe_load(text))
    assert config.parameters == next_params(rounds)


def test_a_changed_line_of_the_configuration_says_what_it_was():
    text = section(round_report(story()[:2], run_record()), "Next configuration")
    assert "    temperature: 0.2  # was 0.4\n" in text
    assert "repetition: 0.0% to 2.0%, with probability 80.0%" in text


def test_hostile_stop_strings_stay_strings_of_the_configuration():
    stops = ("\n```", "\n# was: x", '\n"', "\n'", "\n\u2028: {a: 1}")
    record = round_record(review=review({"response.stop": ((), stops)}, []))
    block = section(round_report([record], run_record()), "Next configuration")
    (text,) = re.findall(r"```yaml\n(.*?)\n```\n", block, re.S)
    assert tuple(yaml.safe_load(text)["parameters"]["response"]["stop"]) == stops


def test_the_smoke_test_answers_its_questions_and_shows_flagged_rows():
    text = section(round_report(story()[:2], run_record()), "Smoke test")
    assert "Are the stop strings firing?" in text
    assert "Does the cleaner leave good text alone?" in text
    assert "no longer failing: runaway, token_limit; failing since this round: yield" in text
    assert "ended by token cap after 80 tokens" in text
    assert "Cleaned, 6 of 74 characters left:\n\n```text\nParis.\n```" in text


def test_ten_flagged_and_ten_random_rows_are_shown():
    text = round_report(story()[:1], run_record())
    assert section(text, "Smoke test").count("<summary>") == 10
    assert section(text, "Rows drawn at random").count("<summary>") == 10


def test_next_steps_cover_both_cases_with_commands_and_what_is_left():
    text = section(round_report(story()[:2], run_record(plan=None)), "Next steps")
    assert "### If the next round passes" in text
    assert "`python -m agent plan 20261122-1433-a1b2 --examples 15000`" in text
    assert "### If the next round fails" in text
    assert "3 rounds would be left after it, of the $299.99 (>99.9%)" in text


ENDINGS = [
    ({"step": "STOP_ROUNDS", "review": None}, "`pilot.max_rounds`"),
    ({"step": "STOP_BUDGET", "review": None}, "`budget.limit_usd`"),
    ({"review": review({}, [])}, "no parameter that may be tuned was left"),
]


@pytest.mark.parametrize(("changes", "words"), ENDINGS)
def test_a_round_that_ended_the_run_says_what_a_person_can_do(changes, words):
    text = section(round_report([round_record(**changes)], run_record()), "Next steps")
    assert "### The run ended with this round" in text
    assert words in text


def test_costs_add_up_and_are_never_printed_as_nothing():
    text = section(run_report(story(), run_record()), "Cost")
    assert line(text, "| Round 1 |") == (
        "| Round 1 | 21 s | $0.00030 | $0.00 | $0.00030 | $0.00030 | <0.1% | $0.000074 |"
    )
    assert line(text, "| Round 4 |").split(" | ")[5] == "$0.011"
    assert "$0.012 confirmed, $0.012 possible, <0.1% of the cap of $300.00; $299.99 remain" in text


def test_insights_are_quotients_of_records():
    text = section(run_report(story(), run_record()), "Insights")
    assert "12.5% (round 1), 54.7% (round 2), 40.6% (round 3), 79.2% (round 4)" in text
    assert line(text, "- **Predictions of rules:**") == (
        "- **Predictions of rules:** 2 of 2 held (100.0%), 80.0% claimed on average, Brier score "
        "0.040. It reviewed no earlier run here."
    )
    assert "token_cap: 78.6% (11/14)" in text


def test_where_there_is_nothing_to_say_the_report_says_so():
    unmeasured = dict.fromkeys(("runaway", "empty"), None)
    empty = round_record(
        metrics=metrics(unmeasured, n=0, generated=0, kept=0, distinct=None),
        funnel=dict.fromkeys(story()[0].funnel, 0),
        causes={}, stops={}, response_tokens=(), certificates=(), random_samples=(),
        flagged_samples=(), review=None,
    )  # fmt: skip
    text = round_report([empty], run_record(engine=None, plan=None))
    for words in (
        "No change has been tried yet", "No bad row was found", "No response was generated",
        "No control was run", "No review was asked for", "nothing is predicted",
        "No row was flagged", "No row was answered", "| runaway | not measured |",
    ):  # fmt: skip
        assert words in re.sub(" +", " ", text)
    assert "0.0%" not in section(text, "Metrics of this round").split("| empty")[0]


def test_a_run_without_rounds_has_a_report():
    text = run_report([], run_record(status="running", reason="just begun", plan=None))
    assert "No round has been measured yet." in text
    assert "python -m agent resume 20261122-1433-a1b2" in text


@pytest.mark.parametrize(
    ("status", "command"),
    [
        ("waiting", f"approve 20261122-1433-a1b2 --plan {'9f2c' * 16}"),
        ("held", "resume 20261122-1433-a1b2"),
        ("stop_rounds", "ledger 20261122-1433-a1b2"),
    ],
)
def test_the_summary_gives_the_command_that_carries_on(status, command):
    text = run_report(story(), run_record(status=status)).split("## Iterations")[0]
    assert f"python -m agent {command}\n" in text
    assert "[Round 4](round-04.md), **APPROVE**: no gate failed." in text


def test_plan_and_data_set_are_shown_when_they_exist():
    interval = {"expected": 0.61, "low": 0.5, "high": 0.8}
    found = {
        "rows": 15_000, "forecast": {"expected": 14_900.0, "low": 14_000.0, "high": 15_900.0},
        "funnel": story()[3].funnel, "qc": "passed: all 8 gates",
        "files": [{"path": "train.parquet", "rows": 15_000}],
        "metrics": {"runaway": {"value": 0.0, "count": 0, "n": 15_000, "low": 0.0, "high": 0.001,
                                "verdict": "PASS"}},
    }  # fmt: skip
    run = run_record(plan={"cost_usd": interval, "max_cost_usd": 1.92}, dataset=found)
    text = run_report(story(), run)
    assert "| $0.61 [$0.50, $0.80] |" in text
    assert line(text, "| Cost at most") == "| Cost at most: what approval sets aside | $1.92 |"
    table = section(text, "Data set")
    assert line(table, "| Rows |") == "| Rows | 15,000 |"
    assert line(table, "| Rows forecast") == (
        "| Rows forecast, with 90 % interval | 14,900 [14,000, 15,900] |"
    )
    assert "unflagged: with no detector's flag" in table
    assert line(table, "| runaway |").startswith("| runaway | 0.0% (0/15000) | [0.0%, 0.1%]")
    assert "train.parquet" in table


def test_a_forecast_outside_its_validated_range_says_so():
    text = section(round_report(story()[:2], run_record()), "Forecast")
    assert "**9,400 rows**, 90 % interval [7,520, 11,750]; 15,000 are wanted, and are not" in text
    assert "outside the validated range" in text


def test_many_rounds_show_the_baseline_and_the_latest():
    rounds = [round_record(n) for n in range(1, 13)]
    text = section(run_report(rounds, run_record()), "Iterations")
    header = line(text, "| Metric |")
    assert header.count("Round") == WIDEST
    assert "Round 1 |" in header and "Round 12 |" in header
    assert "Left out here: 6 of the earlier rounds" in text


def test_reports_are_the_same_bytes_each_time():
    assert render_all(run_record(), story()[:2]) == render_all(run_record(), story()[:2])


def test_render_all_names_every_file_that_the_reports_point_to():
    files = render_all(run_record(), story()[:2])
    assert sorted(files) == [
        "plots/metrics.png", "plots/spend.png", "plots/tokens-01.png", "plots/tokens-02.png",
        "report.md", "round-01.md", "round-02.md",
    ]  # fmt: skip
    for name, text in files.items():
        for target in re.findall(r"\]\(([^)]+)\)", text) if isinstance(text, str) else ():
            assert target in files or target.startswith("rounds/"), (name, target)


def hostile_rounds() -> tuple[list[RoundRecord], RunRecord]:
    asked = review(
        {"response.stop": ((), ("\n|`<b>",))},
        [(HOSTILE, 0.0, 0.1, 0.5), ("runaway", 0.0, 0.1, 0.5)],
        reviewer="llm:" + HOSTILE,
        refused=[Refused(parameter=HOSTILE[:64], value=HOSTILE[:64], why=HOSTILE)],
        distrusted=[HOSTILE],
        reason=HOSTILE,
    )
    rows = tuple(
        flagged(i, instruction=HOSTILE, instruction_raw=HOSTILE, raw=HOSTILE, clean=HOSTILE[:90])
        for i in range(3)
    )
    first = round_record(
        1, review=asked, reason=HOSTILE, random_samples=rows, flagged_samples=rows,
        stops={"\n|`<b>": 3, HOSTILE[:32]: 2, "eos": 1},
    )  # fmt: skip
    second = round_record(2, random_samples=(sample(1, raw=HOSTILE),), reason=HOSTILE)
    return [first, second], run_record(reason=HOSTILE, reviewer=HOSTILE, status="held")


def test_hostile_text_of_a_model_stays_inert():
    """No tag, link, picture, heading or table row comes from a model's text."""
    rounds, run = hostile_rounds()
    parser = MarkdownIt("commonmark").enable("table")
    for text in (round_report(rounds[:1], run), round_report(rounds, run), run_report(rounds, run)):
        tags = set(re.findall(r"</?\w+", " ".join(_html(parser, text))))
        assert tags <= {"<details", "</details", "<summary", "</summary"}
        blocks = _of_type(parser, text, "html_block")
        assert blocks.count("<details>") == blocks.count("</details>") == blocks.count("Row ")
        assert not re.search(r"(href|src)=\"(?!round|plots/)", parser.render(text))
        assert "not a heading" not in headings(text)
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e]", text)
        assert "A" * 2_000 not in text
        _assert_rectangular(text)


def _html(parser: MarkdownIt, text: str) -> list[str]:
    found = []
    for token in parser.parse(text):
        found += [token.content] if token.type == "html_block" else []
        found += [c.content for c in token.children or () if c.type == "html_inline"]
    return found


def _of_type(parser: MarkdownIt, text: str, kind: str) -> str:
    return "\n".join(t.content for t in parser.parse(text) if t.type == kind)


def _assert_rectangular(text: str) -> None:
    """Outside fences, every row of a table has as many cells as its header, escapes or not."""
    outside = re.sub(r"^(`{3,})\w*\n.*?^\1$", "", text, flags=re.S | re.M)
    for block in re.findall(r"(?:^\|.*\n)+", outside, re.M):
        widths = {row.count("|") for row in block.splitlines()}
        assert len(widths) == 1, block
