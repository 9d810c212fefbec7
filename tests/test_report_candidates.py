"""agent/report/candidates.py: what stored rows say of other settings, as people read it."""

from typing import Any

from builders import round_record, run_record
from test_report import line, section

from agent.records import RoundRecord
from agent.report.candidates import candidate_table, stop_string_table
from agent.report.render import round_report
from agent.review_records import Candidate, StopDryRun

STOPS = ["\nInstruction", "\n|`<b>"]


def candidate(changes: dict[str, Any], **fields: Any) -> Candidate:
    values = {
        "rows": 59, "changed": 52, "unscored": 3,
        "values": {"runaway": 0.102, "yield": 40.0, "empty": None, "raw_acceptance": None},
        "verdicts": {"runaway": "FAIL", "yield": "FAIL", "empty": "INSUFFICIENT"},
    }  # fmt: skip
    return Candidate.model_validate({"changes": changes, **values, **fields})


def told() -> RoundRecord:
    passed = {"values": {"runaway": 0.0, "raw_acceptance": 0.5}, "verdicts": {"runaway": "PASS"}}
    return round_record(
        candidates=(
            candidate({"response.max_new_tokens": 40, "response.stop": STOPS}),
            candidate({"response.stop": STOPS}, **passed),
            candidate({}),
        ),
        stop_candidates=(StopDryRun(stop="\n|`<b>", ended=61, flagged=62, cut=2, good=11),),
    )


def test_a_candidate_shows_what_fails_and_what_is_open() -> None:
    text = section(
        round_report([told()], run_record()), "What stored rows say of the obvious next settings"
    )
    assert line(text, "| `response.max_new_tokens` 40;") == (
        "| `response.max_new_tokens` 40; `response.stop` S1 | 59 | 52 | runaway 10.2%, yield 40 "
        "| empty | not measured |"
    )
    assert (
        line(text, "| `response.stop` S1 |") == "| `response.stop` S1 | 59 | 52 | – | – | 50.0% |"
    )
    assert line(text, "| as it is |")


def test_a_list_of_strings_is_written_once() -> None:
    text = candidate_table(told())
    assert text.count("Instruction") == 1
    assert r"""S1: `"\nInstruction"` `"\n\u007c\u0060<b>"`.""" in text


def test_a_stop_string_shows_what_it_ends_and_what_it_cuts() -> None:
    text = section(round_report([told()], run_record()), "What stored rows say of stop strings")
    assert line(text, r'| `"\n').endswith("| 61 of 62 | 2 of 11 |")


def test_nothing_is_shown_where_nothing_was_asked() -> None:
    record = round_record()
    assert (candidate_table(record), stop_string_table(record)) == ("", "")
    assert "What stored rows say" not in round_report([record], run_record())
