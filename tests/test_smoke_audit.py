"""The smoke-test audit: each question answered both ways, in the form that records keep."""

from dataclasses import asdict, replace

import pytest

from agent.records import SmokeAudit as SmokeAuditRecord
from pipeline.audit import audit, flagged_rows
from pipeline.detection.clean import clean
from pipeline.detection.detectors import DETECTORS, detect
from pipeline.metrics import Bound
from pipeline.types import Sample

LIMITS = {
    "runaway": Bound(max=0.05), "repetition": Bound(max=0.05), "token_limit": Bound(max=0.1),
    "truncated": Bound(max=0.02), "delimiter_leak": Bound(max=0.02), "empty": Bound(max=0.05),
}  # fmt: skip
STOP = ("\nInstruction",)


def row(index, raw=" A pear is a fruit.", *, stop=(), text=None, fired=None):
    text = clean(raw, stop=stop) if text is None else text
    reason = "stop" if fired else "eos"
    one = Sample(index, "", "Name it.", raw=raw, clean=text, finish_reason=reason, stop=fired)
    return replace(one, flags=detect(one, stop=stop))


def asked(samples, stop=STOP, **more):
    found = audit(samples, stop=stop, thresholds=LIMITS, **more)
    assert SmokeAuditRecord.model_validate(asdict(found)).passed == found.passed
    return found, {c.name: c.passed for c in found.checks}


def test_good_rows_pass():
    found, checks = asked([row(i, fired="\nInstruction") for i in range(32)])
    assert found.passed and set(checks.values()) == {True} and found.rows == 32
    assert "'\\nInstruction' 32" in found.checks[1].found


@pytest.mark.parametrize("dropped", [16, 17])
def test_half_of_the_rows_must_be_answered(dropped):
    samples = [row(i) for i in range(32 - dropped)]
    samples += [Sample(99, "", dropped="duplicate")] * dropped
    assert asked(samples)[1]["answers"] is (dropped == 16)
    assert asked(samples, wanted=64)[1]["answers"] is False


def test_rows_that_run_on_without_a_stop_string_are_found():
    running = " A pear.\n\nInstruction: Name another."
    found, checks = asked([row(i, running) for i in range(32)], stop=())
    assert checks == {"answers": True, "stop_strings": False, "cleaner": True, "flagged": False}
    assert not found.passed and "none is configured" in found.checks[1].found


def test_a_stop_string_that_is_still_in_a_raw_text_is_found():
    samples = [row(i) for i in range(31)] + [row(31, " A pear.\nInstruction: x", stop=STOP)]
    found, checks = asked(samples)
    assert checks["stop_strings"] is False and "still inside" in found.checks[1].found


def test_a_cleaner_that_cuts_at_blank_lines_is_found():
    raw = " Here is a simple Python program:\n\nprint('Hello, world, how are you today?')"
    spoilt = [row(i, raw, text="Here is a simple Python program:") for i in range(3)]
    assert asked([row(9) for _ in range(29)] + spoilt)[1]["cleaner"] is False
    assert asked([row(9) for _ in range(29)] + [row(i, raw) for i in range(3)])[1]["cleaner"]


@pytest.mark.parametrize(("rows", "passed"), [(3, True), (4, False)])
def test_a_rate_of_five_times_its_limit_is_hopeless(rows, passed):
    """10 % of 40 rows are truncated: four are that many, three are not."""
    bad = [row(i, " A pear is a fruit that is grown in the") for i in range(rows)]
    assert asked([row(9) for _ in range(40 - rows)] + bad)[1]["flagged"] is passed


def test_seven_rows_are_too_few_to_despair():
    bad = [row(i, " A pear is a fruit that is grown in the") for i in range(7)]
    assert asked(bad)[1]["flagged"] is True


def test_ten_flagged_rows_show_every_flag():
    samples = [replace(row(i), flags=("runaway",)) for i in range(30)]
    samples += [replace(row(30 + i), flags=(name,)) for i, name in enumerate(DETECTORS)]
    shown = flagged_rows(samples)
    assert len(shown) == 10 == len(set(shown))
    assert {f for s in samples if s.index in shown for f in s.flags} == set(DETECTORS)
    assert flagged_rows([row(1)]) == ()
