"""What went wrong when a team did all this by hand: measurement, gates and generation.

Each test tells one fact of that story and shows that it cannot happen here.
"""

import ast
import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.causes import cause
from pipeline.detection.certify import certify
from pipeline.detection.clean import clean
from pipeline.detection.detectors import DETECTORS, detect
from pipeline.engine.scripted import ScriptedEngine
from pipeline.engine.stops import settle
from pipeline.forecast import forecast_distinct
from pipeline.generate import MicroBatch, run_micro_batch
from pipeline.good_pairs import good_pairs
from pipeline.metrics import Bound, Margins, Rules, measure
from pipeline.near_duplicates import NearDuplicates
from pipeline.novelty import NoveltyIndex
from pipeline.params import GenParams
from pipeline.qc import qc
from pipeline.types import Certificate, Completion, Sample
from pipeline.verdict import clopper_pearson, judge_rate

STOPS = ("\nInstruction", "\nQ:", "\n###", "\nUser:", "\nResponse:")
LIMITS = {"runaway": Bound(max=0.05), "truncated": Bound(max=0.02), "token_limit": Bound(max=0.1)}
ROOT = Path(__file__).parents[1]


def sample(raw, instruction="", *, text=None, reason="eos", index=0, **more):
    text = clean(raw, stop=STOPS, instruction=instruction) if text is None else text
    one = Sample(index, instruction, instruction, raw=raw, clean=text, finish_reason=reason, **more)
    return replace(one, flags=detect(one, stop=STOPS))


def rules(*names, margins=None):
    certified = {n: Certificate(n, 1.0, 1.0, 99, 99, True, "") for n in names}
    limits = {n: LIMITS.get(n, Bound(min=0.5)) for n in names}
    return Rules(limits, certified, 0.05, margins or Margins(None, None, "lift"))


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("length", [279, 471])
def test_01_long_good_answers_are_no_runaways(length):
    """A rule of 200 characters or three full stops called good definitions runaways, twice."""
    pair = next(p for p in good_pairs() if len(p.response) == length)
    assert pair.kind == "explanation" and pair.response.endswith(".")
    assert sample(f" {pair.response}", pair.instruction).flags == ()
    by_length = replace(
        DETECTORS["runaway"],
        check=lambda s, stop: len(s.clean or "") > 200 or (s.clean or "").count(".") > 3,
    )
    assert not certify(by_length, STOPS).certified


def test_02_there_is_one_detector_of_each_kind():
    """The wrong detector was copied into another script and mended in one of the two places."""
    defined = [
        (path.name, node.name)
        for folder in ("agent", "pipeline")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name in {"detect", "next_task", "loops"}
    ]
    assert sorted(defined) == [
        ("boundary.py", "next_task"), ("detectors.py", "detect"), ("repetition.py", "loops"),
    ]  # fmt: skip


def test_03_a_detector_that_looks_at_what_was_cleaned_away_is_not_certified():
    """The repaired detector searched cleaned text for marks that the cleaner removes: always 0."""
    blind = replace(
        DETECTORS["runaway"],
        check=lambda s, stop: any(form in (s.clean or "") for form in STOPS),
    )
    found = certify(blind, STOPS)
    assert not found.certified and found.sensitivity_high is not None
    assert found.sensitivity_high < 0.5
    assert certify(DETECTORS["runaway"], STOPS).certified


def test_04_truncation_is_counted_before_flagged_rows_are_dropped():
    """Cut rows were filtered out first and counted afterwards, so there were none."""
    rows = [sample(" A pear is a fruit.", index=i) for i in range(90)]
    rows += [
        replace(sample(" Plants need light and", index=i), dropped="detector")
        for i in range(90, 100)
    ]
    found = measure(rows, rules("truncated"), wanted=100)
    assert (found["truncated"].count, found["truncated"].n) == (10, 100)
    assert found.funnel.kept == 90


@pytest.mark.parametrize("left", ["###", "##", "###END", "###END###"])
def test_05_every_part_of_a_delimiter_is_a_leak(left):
    """``###END###`` was looked for while ``###`` stood at the end of 38 % of the responses."""
    text = f"The capital of France is Paris.{left}"
    assert sample(text, text=text).flags == ("delimiter_leak",)
    assert clean(text, stop=("###END###",)) == "The capital of France is Paris."


def test_06_what_a_file_does_not_tell_is_unmeasured(tmp_path):
    """The merged check wrote 0 token limits without looking, and passed."""
    rows = [{"instruction": f"Name fruit {i}.", "response": "A pear."} for i in range(200)]
    found = qc(
        write(tmp_path / "rows.jsonl", rows), thresholds=LIMITS, alpha=0.05,
        require=("token_limit",),
    )  # fmt: skip
    limit = next(m for m in found.metrics if m.name == "token_limit")
    assert (limit.value, limit.count, limit.verdict) == (None, None, "INSUFFICIENT")
    assert found.exit_status == 1


def test_07_tokens_are_the_models_own():
    """Model tokens, words and characters by four were all called tokens at one gate."""
    rows = [sample(" A pear.", index=i) for i in range(4)]
    counted = [replace(r, clean_tokens=7) for r in rows]
    assert measure(counted, rules(), wanted=4)["median_tokens"].value == 7
    partly = [*counted[:3], rows[3]]
    assert measure(partly, rules(), wanted=4)["median_tokens"].value is None


def test_08_a_row_is_accepted_by_the_rule_that_keeps_it():
    """77.6 % "good" were reported where "good and confident" kept 39.7 %."""
    margins = Margins(None, 1.0, "lift")
    scores = [0.5] * 38 + [2.0] * 40 + [-1.0] * 22
    rows = [
        sample(" A pear.", index=i, pair_scores={"lift": score},
               dropped=None if score > 1.0 else "pair_critic")
        for i, score in enumerate(scores)
    ]  # fmt: skip
    found = measure(rows, rules("pair_acceptance", margins=margins), wanted=100)
    assert found["pair_acceptance"].count == found.funnel.kept == 40


def test_09_nothing_passes_on_no_rows():
    """0 runaways of 0 rows went through the gate."""
    found = measure([], rules("runaway", "truncated"), wanted=100)
    assert all(m.verdict != "PASS" for m in found.metrics)
    assert judge_rate(0, 0, limit=0.05, alpha=0.05).verdict == "INSUFFICIENT"


def test_10_thirty_clean_rows_are_too_few():
    """A gate of 5 % passed on 30 rows; none of 30 allows 9.5 %."""
    assert 0.09 < clopper_pearson(0, 30, 0.1)[1] < 0.1
    result = judge_rate(0, 30, limit=0.05, alpha=0.05)
    assert result.verdict == "INSUFFICIENT" and result.rows_needed == 33
    assert judge_rate(0, 63, limit=0.05, alpha=0.05).verdict == "PASS"


def test_12_a_pilot_sees_that_instructions_repeat():
    """Two of three rows were duplicates at scale; a pilot of 100 could have told."""
    texts = [f"What is the capital city of country {i % 33}?" for i in range(100)]
    seen = NoveltyIndex()
    rows = [
        replace(sample(" Paris.", text, index=i), dropped=None if seen.add(text) else "duplicate")
        for i, text in enumerate(texts)
    ]
    found = measure(rows, rules(), wanted=100)
    assert found["duplicates"].count == 67
    assert forecast_distinct(texts, 4_000).high < 200
    index = NearDuplicates()
    assert [
        index.add(t) for t in ("What is the capital of France?", "What's the capital of France")
    ]
    assert len(index) == 1


def test_19_stop_strings_are_matched_on_text_and_trimmed():
    """The last token of ``\\nQ:`` served as the end token, so that any colon ended a response."""
    text = " The ratio is 3: 1.\nQ: Why?"
    pieces = list(text)
    ending = settle(lambda k: "".join(pieces[:k]), len(pieces), stops=("\nQ:",), cap=99, eos=False)
    assert (ending.text, ending.finish_reason, ending.stop) == (
        " The ratio is 3: 1.",
        "stop",
        "\nQ:",
    )


def test_20_code_after_a_blank_line_is_not_cut_and_a_cut_is_the_cleaners_fault():
    """Answers were cut at the first blank line, the cap was blamed and doubled."""
    raw = " Here is a simple Python program:\n\nprint('Hello')"
    assert clean(raw, stop=STOPS) == raw.strip()
    assert sample(raw).flags == ()
    cut = sample(raw, text="Here is a simple Python program:", reason="stop")
    assert cut.flags == ("truncated",) and cause(cut) == "cleaner"


class _Capped(ScriptedEngine):
    """Every fourth instruction is cut by the cap."""

    def generate(self, requests):
        if not requests[0].suffix.endswith("Instruction:"):
            return super().generate(requests)
        return [
            Completion(f" Name fruit {i}.", (1,), "stop" if i % 4 else "length")
            for i, _ in enumerate(requests)
        ]


def test_21_every_completion_is_one_row_and_a_cut_one_is_not_accepted():
    """The first instruction of each completion was lost, and one cut by the cap was accepted."""
    batch = MicroBatch("pilot", round=1, number=0, first_index=0, rows=24, seed=7)
    params = GenParams().replace(
        {
            "critic.instruction": "label", "critic.pair": "lift",
            "critic.instruction_margin": -9.0, "critic.pair_margin": -9.0,
        }
    )  # fmt: skip
    result = run_micro_batch(_Capped(), batch, params, seen=NoveltyIndex())
    lost = {s.index for s in result.samples if s.dropped == "parser"}
    assert lost == {i for i in range(len(result.samples)) if i % 4 == 0}
    assert result.samples[1].instruction == "Name fruit 1." and result.samples[1].answered
    assert all(s.cause == "parser" for s in result.samples if s.index in lost)
    found = measure(result.samples, rules(), wanted=24)
    assert (found.funnel.generated, found.funnel.parsed) == (24, 18)


def test_24_the_whole_answer_is_looked_at_not_its_first_paragraph():
    """A critic read the first paragraph only and could not see that an answer was cut."""
    raw = " Plants need light.\n\nThey take in water and\n"
    assert sample(raw).flags == ("truncated",)
    assert sample(" Plants need light.\n\nThey take in water.\n").flags == ()
    certificate = certify(DETECTORS["truncated"], STOPS)
    assert certificate.certified and certificate.sensitivity_low is not None
    assert certificate.sensitivity_low >= 0.95
