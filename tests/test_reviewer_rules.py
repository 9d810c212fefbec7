"""agent/reviewers/rules.py: the lessons as a table, the origin's own rounds, and the laws."""

from math import ceil
from typing import Any, Never

import pytest
from builders import flagged, metrics, rate, round_record, sample, story
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.best import base, clearly_worse
from agent.guard import guard
from agent.records import RoundRecord
from agent.review import METRICS, parse_review
from agent.review_records import Candidate, Review
from agent.reviewers.base import Reviewer
from agent.reviewers.evidence import gather
from agent.reviewers.markers import DEFAULT_STOPS, markers_seen, proposed_stops
from agent.reviewers.rules import RulesReviewer, recommend
from benchmarks.tuning.cells import run_cell
from benchmarks.tuning.starts import STARTS
from pipeline.params import GenParams

STOPS = ("\nInstruction", "\nQ:", "\n###")
SET = GenParams().replace({"response.stop": STOPS, "response.max_new_tokens": 100})


def measured(
    number: int = 1,
    params: GenParams = SET,
    *,
    n: int = 200,
    kept: int = 120,
    rows: tuple[dict[str, Any], ...] = (),
    distinct: float | None = 30_000.0,
    **bad: int | None,
) -> RoundRecord:
    """A round with given counts of bad rows and nothing else amiss."""
    table = metrics({"duplicates": 4, **bad}, n=n, generated=n, kept=kept, distinct=distinct)
    return round_record(
        number,
        params=params,
        metrics=table,
        causes={},
        stops={"\nInstruction": 150, "eos": 40, "\nQ:": 10},
        random_samples=tuple(sample(i) for i in range(10)),
        flagged_samples=rows,
        review=None,
    )


def changed(review: Review) -> dict[str, Any]:
    return {change.parameter: change.value for change in review.changes}


PLAIN = GenParams()
LOOP = tuple(
    flagged(i, ("repetition",), raw="the the the " * 9, cause="sampling") for i in (50, 51)
)
CUT = tuple(
    flagged(i, ("truncated",), raw="It is", finish_reason="stop", stop="\nQ:") for i in (50, 51, 52)
)
LONG = tuple(flagged(i, ("token_limit",), raw="and so on " * 20) for i in range(50, 54))
VOID = tuple(
    flagged(i, ("empty",), raw="", clean="", finish_reason="stop", stop="\n###")
    for i in (50, 51, 52)
)
LEAK = tuple(
    flagged(i, ("delimiter_leak",), raw="Paris.###END", clean="Paris.###END", finish_reason="eos")
    for i in (50, 51)
)


def at(**values: Any) -> GenParams:
    return SET.replace({name.replace("__", "."): value for name, value in values.items()})


LESSONS: list[tuple[str, RoundRecord, dict[str, Any]]] = [
    (
        "run-ons get stop strings, seen ones first, and the cap a little room",
        measured(params=PLAIN, runaway=160, token_limit=100, rows=(flagged(50), flagged(51))),
        {
            "response.stop": ["\nInstruction", "\nResponse", "\nQ:", "\n###", "\nUser:"],
            "response.max_new_tokens": 100,
        },
    ),
    (
        "a cap that is hit without run-ons is doubled",
        measured(token_limit=80, rows=LONG),
        {"response.max_new_tokens": 200},
    ),
    (
        "a cap that is hit sometimes is raised by half",
        measured(token_limit=50, rows=LONG),
        {"response.max_new_tokens": 150},
    ),
    (
        "a cap far too low is doubled, not more",
        measured(params=at(response__max_new_tokens=16), token_limit=180, rows=LONG),
        {"response.max_new_tokens": 32},
    ),
    ("loops get a warmer draw", measured(repetition=18, rows=LOOP), {"response.temperature": 0.7}),
    (
        "many loops get more penalty too",
        measured(repetition=60, rows=LOOP),
        {"response.temperature": 0.7, "response.repetition_penalty": 1.2},
    ),
    (
        "loops at a moderate temperature get more penalty",
        measured(params=at(response__temperature=0.7), repetition=60, rows=LOOP),
        {"response.repetition_penalty": 1.2},
    ),
    (
        "a stop string that cuts sentences goes",
        measured(truncated=20, rows=CUT),
        {"response.stop": ["\nInstruction", "\n###"]},
    ),
    (
        "a stop string that ends most rows is not blamed for the cut ones",
        measured(
            params=at(response__temperature=1.6),
            truncated=20,
            rows=tuple({**row, "stop": "\nInstruction"} for row in CUT),
        ),
        {"response.temperature": 1.3},
    ),
    (
        "a strong penalty that breaks sentences off is eased",
        measured(params=at(response__repetition_penalty=1.3), truncated=20),
        {"response.repetition_penalty": 1.2},
    ),
    (
        "a hot draw that breaks sentences off is calmed",
        measured(params=at(response__temperature=1.6), truncated=20),
        {"response.temperature": 1.3},
    ),
    (
        "a stop string that fires at once goes",
        measured(empty=40, rows=VOID),
        {"response.stop": ["\nInstruction", "\nQ:"]},
    ),
    (
        "a leaking marker becomes a stop string",
        measured(params=PLAIN, delimiter_leak=40, rows=LEAK),
        {"response.stop": ["###", "\nInstruction", "\nQ:", "\nUser:", "\nResponse:"]},
    ),
    (
        "cold and penalised instructions return to moderate sampling",
        measured(
            params=at(instruction__temperature=0.2, instruction__repetition_penalty=1.3),
            instruction_acceptance=40,
        ),
        {"instruction.temperature": 0.5, "instruction.repetition_penalty": 1.2},
    ),
    (
        "instructions drawn too hot are calmed",
        measured(params=at(instruction__temperature=1.6), instruction_acceptance=40),
        {"instruction.temperature": 1.3},
    ),
    (
        "poor instructions at moderate sampling get more examples",
        measured(instruction_acceptance=40),
        {"fewshot.count": 9},
    ),
    (
        "poor pairs from a hot draw are calmed",
        measured(params=at(response__temperature=1.0), pair_acceptance=40),
        {"response.temperature": 0.7},
    ),
    (
        "poor pairs from a cold draw are warmed to the moderate range, not beyond",
        measured(params=at(response__temperature=0.2), pair_acceptance=40),
        {"response.temperature": 0.4},
    ),
    (
        "duplicates are a matter of the prompt",
        measured(duplicates=80, distinct=2000.0),
        {"topics": "hints", "fewshot.rotation": "rotate"},
    ),
    (
        "duplicates with rotation and hints get a pool",
        measured(
            params=at(topics="hints", fewshot__rotation="rotate"), duplicates=40, distinct=2000.0
        ),
        {"fewshot.rotation": "pool"},
    ),
    (
        "duplicates that stay get wider examples, then a warmer draw",
        measured(
            params=at(topics="hints", fewshot__rotation="pool", fewshot__set="wide"),
            distinct=2000.0,
        ),
        {"instruction.temperature": 1.0},
    ),
    (
        "a short yield with few duplicates is a matter of quality: both draws are calmed",
        measured(
            params=at(instruction__temperature=1.6, response__temperature=1.6), distinct=2000.0
        ),
        {"instruction.temperature": 1.3, "response.temperature": 1.3},
    ),
    (
        "many duplicates are treated though no gate names them",
        measured(duplicates=60),
        {"topics": "hints", "fewshot.rotation": "rotate"},
    ),
    (
        "what is undecided near its limit is treated when nothing fails",
        measured(n=40, kept=30, pair_acceptance=22),
        {"fewshot.count": 9},
    ),
]


@pytest.mark.parametrize(
    ("record", "expected"), [x[1:] for x in LESSONS], ids=[x[0] for x in LESSONS]
)
def test_lesson(record, expected):
    review = recommend([record], max_changes=4)
    assert changed(review) == expected
    assert not review.stop and review.predictions and review.diagnosis


def judged(record: RoundRecord, subject: str, *near: Candidate, **used: Any) -> RoundRecord:
    """The round with what controls say of one margin, and candidates."""
    return record.model_copy(update={"critics": {"used": {subject: used}}, "candidates": near})


def near(rows: int, changes: dict[str, Any], **values: float | None) -> Candidate:
    said = dict.fromkeys(METRICS[:8]) | values
    return Candidate(changes=changes, rows=rows, changed=0, unscored=0, values=said, verdicts={})


def unanswered(number: int, margin: float, **used: Any) -> RoundRecord:
    """A smoke test in which the instruction margin rejected everything."""
    names = [*METRICS[:8], "raw_acceptance"]
    table = tuple(rate(n, None, 0).to_json() for n in names)
    table = tuple(
        m | {"reason": "uncertified: 0 of 42"} if m["name"] in names[6::2] else m for m in table
    )
    record = measured(number, at(critic__instruction_margin=margin), n=32, kept=0, duplicates=12)
    duplicates = tuple(m for m in record.metrics if m["name"] in {"duplicates", "yield"})
    nothing = {**record.funnel, "accepted": 0, "answered": 0, "unflagged": 0, "kept": 0}
    record = record.model_copy(update={"metrics": (*table, *duplicates), "funnel": nothing})
    return judged(record, "instruction", **{"true_accept": 0.0, "floor": 0.2000775, **used})


def test_a_margin_that_rejects_good_controls_is_walked_down_to_its_floor_and_nothing_else():
    rounds: list[RoundRecord] = []
    margins = [9.0]
    while margins[-1] > 0.3:
        rounds.append(unanswered(len(rounds) + 1, margins[-1]))
        review = recommend(rounds, max_changes=4)
        assert list(changed(review)) == ["critic.instruction_margin"] and not review.stop
        why = f"Treated: the instruction margin of {margins[-1]} accepts 0% of good controls."
        assert why in review.diagnosis
        assert review.distrusted_metrics == ()
        floors = {"critic.instruction_margin": 0.2000775}
        params = base(rounds).params
        passed = guard(review, params, max_changes=4, tried=rounds, margin_floors=floors)
        assert not passed.refused
        margins.append(changed(review)["critic.instruction_margin"])
    assert margins == [9.0, 7.0, 5.0, 3.0, 1.0, 0.200078]
    end = recommend([*rounds, unanswered(6, 0.200078)], max_changes=4)
    assert end.stop, "nothing is left: three rounds and more kept no more rows"


def test_what_stored_rows_say_of_a_lower_margin_is_what_is_foretold():
    record = unanswered(1, 9.0)
    none = near(0, {"critic.instruction_margin": 7.0})
    some = near(30, {"critic.instruction_margin": 7.0}, instruction_acceptance=0.9)
    foretold = [
        recommend([record.model_copy(update={"candidates": said})], max_changes=4).predictions[0]
        for said in ((), (none,), (some,))
    ]
    assert [(p.low, p.high, p.probability) for p in foretold] == [
        (0.2, 0.95, 0.7), (0.0, 0.2, 0.8), (0.72, 1.0, 0.7),
    ]  # fmt: skip


PAIRS = at(critic__pair_margin=1.3, response__temperature=1.0)
LOWER = {"critic.pair_margin": 0.808627}


@pytest.mark.parametrize(
    ("candidates", "expected"),
    [
        ((near(200, LOWER, pair_acceptance=0.9),), LOWER),
        ((near(200, LOWER, pair_acceptance=0.4),), {"response.temperature": 0.7}),
        ((near(20, LOWER, pair_acceptance=0.9),), {"response.temperature": 0.7}),
        ((near(200, LOWER, pair_acceptance=None),), {"response.temperature": 0.7}),
        ((), {"response.temperature": 0.7}),
    ],
    ids=["own rows pass", "own rows fail", "other rows pass", "unknown", "not asked"],
)
def test_a_pair_margin_is_lowered_first_where_it_alone_decides(candidates, expected):
    record = measured(params=PAIRS, pair_acceptance=40)
    used = {"true_accept": 0.67, "floor": 0.8086264999999999}
    assert changed(recommend([judged(record, "pair", *candidates, **used)], max_changes=4)) == (
        expected
    )


def test_a_margin_whose_gate_passes_is_not_at_fault_whatever_controls_say():
    record = measured(params=at(critic__instruction_margin=1.0), repetition=18, rows=LOOP)
    record = judged(record, "instruction", true_accept=0.4, floor=0.2)
    assert record.metric("instruction_acceptance")["verdict"] == "PASS"
    assert changed(recommend([record], max_changes=4)) == {"response.temperature": 0.7}


@pytest.mark.parametrize("subject", ["instruction", "pair"])
def test_a_margin_goes_last_where_nothing_else_is_left_and_never_below_its_floor(subject):
    name = f"critic.{subject}_margin"
    end = at(fewshot__count=12, fewshot__set="wide").replace({name: 1.3})
    record = measured(params=end, **{f"{subject}_acceptance": 40})
    assert recommend([record], max_changes=4).stop, "locked: controls certify no range"
    lower = judged(record, subject, true_accept=0.67, floor=0.8)
    assert changed(recommend([lower], max_changes=4)) == {name: 0.8}
    assert recommend([judged(record, subject, true_accept=0.67, floor=1.3)], max_changes=4).stop


HOT = at(response__temperature=1.6, instruction__temperature=1.2)
CALMER = {"response.temperature": 1.3, "instruction.temperature": 0.9}


def test_a_hot_draw_is_calmed_whatever_else_is_tried_and_no_cap_is_raised_for_it():
    record = measured(params=HOT, token_limit=80, rows=LONG, runaway=0)
    assert changed(recommend([record], max_changes=4)) == CALMER
    many = measured(params=HOT, duplicates=80)
    assert changed(recommend([many], max_changes=4)) == {
        **CALMER, "topics": "hints", "fewshot.rotation": "rotate",
    }  # fmt: skip


def test_a_hot_draw_is_calmed_on_though_no_round_was_better_and_not_where_that_did_harm():
    rounds = [
        measured(i + 1, at(response__temperature=t), kept=20, pair_acceptance=40)
        for i, t in enumerate((2.0, 1.7, 1.4, 1.1))
    ]
    assert changed(recommend(rounds, max_changes=4)) == {"response.temperature": 0.8}
    worse = [
        measured(1, at(response__temperature=1.6), kept=120, token_limit=80, rows=LONG),
        measured(2, at(response__temperature=1.3), kept=60, token_limit=80, rows=LONG),
    ]
    assert changed(recommend(worse, max_changes=4)) == {"response.max_new_tokens": 200}


@pytest.mark.slow
@pytest.mark.parametrize("start", STARTS)
def test_the_rules_reach_a_pass_from_every_bad_start(tmp_path, start):
    found = run_cell(start, "rules", 11, folder=tmp_path, engine="scripted")
    assert found.passed and found.rounds <= 6, found.path


def test_a_gate_that_would_cost_a_long_pilot_is_treated_beside_what_fails():
    record = measured(params=at(response__temperature=0.2), repetition=8, duplicates=80)
    near_limit = {"verdict": "INSUFFICIENT", "rows_needed": 588}

    def told(**gate: Any) -> tuple[str, ...]:
        table = tuple(m | gate if m["name"] == "repetition" else m for m in record.metrics)
        return gather([record.model_copy(update={"metrics": table})]).troubles()

    assert told(**near_limit) == ("yield", "repetition")
    assert told(**near_limit | {"rows_needed": 150}) == ("yield",)
    assert told(**near_limit | {"n": 95}) == ("yield",)
    assert told(**near_limit | {"count": 2}) == ("yield",)
    assert told(**near_limit | {"reason": "uncertified: 0.4"}) == ("yield",)


def test_no_rule_lowers_a_temperature_below_the_moderate_range():
    for _, record, _ in LESSONS:
        for change in recommend([record], max_changes=4).changes:
            if change.parameter.endswith("temperature"):
                assert change.value >= min(0.4, record.params.get(change.parameter))  # type: ignore[type-var]


def origin(
    number: int, params: GenParams, shares: dict[str, float], *, generated: int, answered: int
) -> RoundRecord:
    """A round as the team of the origin reported it."""
    table = [
        rate(name, round(share * n), n).to_json()
        for name, share in shares.items()
        for n in [generated if name == "raw_acceptance" else answered]
    ]
    return round_record(
        number,
        params=params,
        metrics=tuple(table),
        causes={},
        stops={},
        random_samples=(),
        flagged_samples=(),
        review=None,
    )


TIGHT = PLAIN.replace(
    {
        "instruction.temperature": 0.6,
        "instruction.top_p": 0.85,
        "instruction.repetition_penalty": 1.15,
        "response.temperature": 0.3,
        "response.top_p": 0.85,
        "response.repetition_penalty": 1.15,
    }
)
PILOT_1 = origin(
    1,
    PLAIN,
    {
        "runaway": 0.209,
        "token_limit": 0.522,
        "instruction_acceptance": 0.776,
        "raw_acceptance": 0.397,
    },
    generated=108,
    answered=67,
)
ITERATION_1 = origin(
    2,
    TIGHT,
    {
        "runaway": 0.538,
        "token_limit": 0.150,
        "instruction_acceptance": 0.646,
        "raw_acceptance": 0.244,
    },
    generated=53,
    answered=40,
)


def test_pilot_1_gets_stop_strings_and_a_moderate_cap_instead_of_cooler_sampling():
    review = recommend([PILOT_1], max_changes=4)
    assert changed(review) == {
        "response.stop": list(DEFAULT_STOPS),
        "response.max_new_tokens": 100,
    }
    runaway = next(p for p in review.predictions if p.metric == "runaway")
    assert (runaway.low, runaway.high, runaway.probability) == (0.0, 0.03, 0.8)
    assert "runaway 14/67 (20.9%; wanted < 0.05)" in review.diagnosis


def test_iteration_1_is_reverted_and_the_cause_treated():
    review = recommend([PILOT_1, ITERATION_1], max_changes=4)
    assert base([PILOT_1, ITERATION_1]) is PILOT_1
    guarded = guard(review, PLAIN, max_changes=4, tried=[PLAIN, TIGHT])
    assert not guarded.refused
    assert guarded.params == PLAIN.replace(
        {"response.stop": DEFAULT_STOPS, "response.max_new_tokens": 100}
    )
    assert "made things worse and are undone" in review.diagnosis


def test_what_made_things_worse_is_not_tried_again():
    cold = measured(1, at(response__temperature=0.4), repetition=18, kept=120, rows=LOOP)
    warm = measured(2, at(response__temperature=0.7), repetition=60, kept=60, rows=LOOP)
    assert gather([cold, warm]).barred == {("response.temperature", "up")}
    review = recommend([cold, warm], max_changes=4)
    assert changed(review) == {"response.repetition_penalty": 1.2}, "from 0.4 degrees on"


def test_of_changes_made_at_once_each_gets_a_second_chance_alone():
    cut = {"truncated": 20, "pair_acceptance": 70}
    hot = at(response__temperature=1.6, fewshot__count=12, fewshot__set="wide")
    both = hot.replace({"response.temperature": 1.3, "response.top_p": 0.85})
    rounds = [measured(1, hot, kept=120, **cut), measured(2, both, kept=60, **cut)]
    assert gather(rounds).barred == {("response.temperature", "down"), ("response.top_p", "down")}
    assert gather(rounds, lenient=True).barred == frozenset()
    assert changed(recommend(rounds, max_changes=4)) == {"response.temperature": 1.3}


def test_noise_is_not_a_reason_to_revert():
    before = measured(1, kept=120, repetition=18, rows=LOOP)
    after = measured(2, at(response__temperature=0.7), kept=112, repetition=18, rows=LOOP)
    assert not clearly_worse(after, before)
    assert changed(recommend([before, after], max_changes=4)) == {
        "response.repetition_penalty": 1.2
    }


def test_the_story_is_reverted_after_its_third_round():
    review = recommend(story()[:3], max_changes=4)
    assert changed(review)["response.temperature"] > 0.2
    assert "Round 3 kept 52 of 128 rows, round 2 70 of 128" in review.diagnosis


def test_three_fruitless_rounds_say_stop():
    shares = (120, 118, 100, 119)
    rounds = [
        measured(i + 1, at(fewshot__count=3 + i), kept=kept, repetition=30, rows=LOOP)
        for i, kept in enumerate(shares)
    ]
    review = recommend(rounds, max_changes=4)
    assert review.stop and review.changes == () and "last 3" in review.diagnosis
    better = [*rounds[:3], measured(4, at(fewshot__count=6), kept=140, repetition=30, rows=LOOP)]
    assert not recommend(better, max_changes=4).stop


def test_nothing_left_to_try_says_stop():
    end = at(fewshot__count=12, fewshot__set="wide")
    review = recommend([measured(1, end, instruction_acceptance=40)], max_changes=4)
    assert review.stop and "Every remedy" in review.diagnosis


def test_an_uncertified_metric_is_distrusted_and_not_treated():
    record = measured(repetition=60, truncated=40, rows=LOOP)
    table = tuple(
        {**m, "verdict": "INSUFFICIENT", "reason": "uncertified: sensitivity 0.4"}
        if m["name"] == "repetition"
        else m
        for m in record.metrics
    )
    review = recommend([record.model_copy(update={"metrics": table})], max_changes=4)
    assert review.distrusted_metrics == ("repetition",)
    assert "response.temperature" not in changed(review)
    assert "Not certified, so ignored: repetition" in review.diagnosis


def test_one_bad_row_among_few_is_no_trouble():
    record = measured(n=32, kept=20, truncated=1, repetition=12, rows=LOOP)
    assert gather([record]).troubles() == ("repetition",)


def test_a_short_yield_without_duplicates_is_left_to_the_other_troubles():
    rows = (flagged(50), flagged(51))
    few = measured(params=PLAIN, runaway=160, duplicates=4, distinct=9000.0, rows=rows)
    assert gather([few]).troubles() == ("runaway",)
    many = measured(params=PLAIN, runaway=160, duplicates=40, distinct=9000.0, rows=rows)
    assert gather([many]).troubles() == ("runaway", "yield")
    alone = measured(duplicates=4, distinct=9000.0)
    assert gather([alone]).troubles() == ("yield",)


def test_nothing_answered_is_a_trouble_of_instructions():
    record = measured(instruction_acceptance=0, n=32, kept=0)
    empty = {**record.funnel, "accepted": 0, "answered": 0, "unflagged": 0, "kept": 0}
    names = [m["name"] for m in record.metrics]
    unmeasured = tuple(rate(n, None, 0).to_json() for n in names[:8])
    record = record.model_copy(update={"funnel": empty, "metrics": unmeasured})
    assert changed(recommend([record], max_changes=4)) == {"fewshot.count": 9}


def test_good_answers_that_hold_a_marker_keep_it_out_of_the_stop_strings():
    good = [sample(1, raw="## Title\n### Part\nText.", clean="## Title\n### Part\nText.")]
    assert "\n###" not in proposed_stops((), [], good)
    assert "\n###" in proposed_stops((), [], [])


@pytest.mark.parametrize(
    ("raw", "marks"),
    [
        (" Paris.\n\nInstruction: Name a river.\nResponse: Ebro", {"\nInstruction", "\nResponse"}),
        ("4\nQ: 2+3?\nA: 5", {"\nQ:", "\nA:"}),
        ("Yes.\n### Input\nx", {"\n###"}),
        ("Yes.\nTask 12: next", {"\nTask:"}),
        ("Instruction: again", {"\nInstruction"}),
        ("The quantity Q: a number. A: is a letter.", set()),
        ("Input the number.\nOutput is shown.", set()),
    ],
)
def test_markers_are_seen_where_a_line_starts_a_task(raw, marks):
    assert set(markers_seen([sample(1, raw=raw)])) == marks


def test_the_reviewer_is_free():
    reviewer: Reviewer = RulesReviewer(max_changes=4)

    def pay(worst_case: int) -> Never:
        raise AssertionError("the rules send nothing")

    review = reviewer.review("report", story()[:1], pay=pay)
    assert reviewer.name == "rules"
    assert parse_review(review.model_dump_json()) == review


_PARAMS = st.builds(
    lambda t1, p1, r1, t2, p2, r2, cap, stop, count, rot, topics: PLAIN.replace(
        {
            "instruction.temperature": t1,
            "instruction.top_p": p1,
            "instruction.repetition_penalty": r1,
            "response.temperature": t2,
            "response.top_p": p2,
            "response.repetition_penalty": r2,
            "response.max_new_tokens": cap,
            "response.stop": stop,
            "fewshot.count": count,
            "fewshot.rotation": rot,
            "topics": topics,
        }
    ),
    *(st.floats(0.1, 2.0), st.floats(0.5, 1.0), st.floats(1.0, 1.5)) * 2,
    st.integers(8, 1024),
    st.sampled_from([(), ("\nQ:",), STOPS, DEFAULT_STOPS]),
    st.integers(3, 12),
    st.sampled_from(["fixed", "rotate", "pool"]),
    st.sampled_from(["off", "hints"]),
)
_COUNTS = st.dictionaries(st.sampled_from(METRICS[:8]), st.integers(0, 100) | st.none())
_ROWS = st.lists(
    st.builds(
        lambda i, flag, raw, stop: flagged(i, (flag,), raw=raw, clean=raw[:9], stop=stop),
        st.integers(20, 40),
        st.sampled_from(METRICS[:6]),
        st.text(max_size=9) | st.sampled_from(["x\nQ: a", "y\n### z", "\nInstruction: b", ""]),
        st.sampled_from([None, *STOPS]),
    ),
    max_size=5,
).map(tuple)


_USED = st.fixed_dictionaries(
    {
        "margin": st.none() | st.floats(-20, 20),
        "true_accept": st.none() | st.floats(0, 1),
        "floor": st.none() | st.floats(-20, 20),
    }
)
_JUDGED = st.dictionaries(st.sampled_from(("instruction", "pair")), _USED)


def with_margins(record: RoundRecord, used: dict[str, dict[str, float | None]]) -> RoundRecord:
    """The round at these margins, with what controls and stored rows say of them and lower ones."""
    margins = {f"critic.{s}_margin": found["margin"] for s, found in used.items()}
    lower = tuple(
        near(
            200,
            {name: ceil(max(value - 2.0, -20.0) * 1e6) / 1e6},
            **dict.fromkeys(METRICS[6:8], 0.9),
        )
        for name, value in margins.items()
        if value is not None
    )
    params = record.params.replace(margins)
    changes = {"params": params, "critics": {"used": used}, "candidates": lower}
    return record.model_copy(update=changes)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(_PARAMS, st.integers(0, 100), _COUNTS, _ROWS), min_size=1, max_size=5),
    _JUDGED,
)
def test_whatever_was_measured_the_guard_refuses_nothing_of_a_recommendation(history, used):
    rounds = [
        with_margins(
            measured(i + 1, params, n=100, kept=kept, rows=rows, distinct=20_000.0, **counts), used
        )
        for i, (params, kept, counts, rows) in enumerate(history)
    ]
    review = recommend(rounds, max_changes=4)
    assert parse_review(review.model_dump_json()) == review
    assert review == recommend(rounds, max_changes=4)
    assert review.stop != bool(review.changes)
    floors = {f"critic.{s}_margin": f["floor"] for s, f in used.items() if f["floor"] is not None}
    guarded = guard(review, base(rounds).params, max_changes=4, tried=rounds, margin_floors=floors)
    assert not guarded.refused
    assert not review.changes or guarded.params not in [record.params for record in rounds]


def damaged(record: RoundRecord, what: dict[str, str], *, replayed: bool) -> RoundRecord:
    """The record with metrics missing, unmeasured, uncertified, or of no rows."""

    def one(metric: dict[str, Any]) -> dict[str, Any]:
        none = {"value": None, "count": None, "n": 0, "low": None, "high": None}
        match what.get(metric["name"]):
            case "unmeasured":
                return metric | none | {"reason": "not measured"}
            case "no threshold":
                return metric | {"threshold": None, "verdict": None}
            case "uncertified":
                return metric | {"verdict": "INSUFFICIENT", "reason": "uncertified: 3 of 9"}
            case "undecided":
                return metric | {"verdict": "INSUFFICIENT", "reason": "more rows"}
        return metric

    table = tuple(one(m) for m in record.metrics if what.get(m["name"]) != "missing")
    funnel = dict.fromkeys(record.funnel, 0) if "nothing" in what.values() else record.funnel
    changes = {"metrics": table, "funnel": funnel, "replayed": replayed, "causes": {}, "stops": {}}
    return RoundRecord.model_validate(record.model_dump() | changes)


_DAMAGE = st.dictionaries(
    st.sampled_from(METRICS),
    st.sampled_from(
        ["missing", "unmeasured", "no threshold", "uncertified", "undecided", "nothing"]
    ),
)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.tuples(_PARAMS, st.integers(0, 100), _COUNTS, _DAMAGE, st.booleans()),
        min_size=1, max_size=4,
    ),
    _JUDGED,
)  # fmt: skip
def test_the_rules_answer_whatever_is_missing(history, used):
    """Their opinion stands beside every other reviewer's, so nothing may stop them."""
    rounds = [
        with_margins(
            damaged(
                measured(i + 1, params, n=100, kept=kept, distinct=20_000.0, **counts),
                damage, replayed=replayed and i > 0,
            ),
            used,
        )
        for i, (params, kept, counts, damage, replayed) in enumerate(history)
    ]  # fmt: skip
    review = recommend(rounds, max_changes=4)
    assert review.stop != bool(review.changes)
    assert parse_review(review.model_dump_json()) == review
