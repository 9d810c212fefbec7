"""What a person sees while a run works."""

import io
from typing import Any

import pytest
from rich.console import Console

from agent.display import LiveDisplay, PlainDisplay, duration, one_line
from pipeline.types import Metric

RATE = Metric("runaway", 0.02, 2, 100, 0.01, 0.08, "< 0.05", "INSUFFICIENT", "", 40).to_json()
YIELD = Metric("yield", 40011.0, None, 416, 26285.0, 51561.0, ">= 15000", "PASS", "").to_json()
SHOWN = Metric("duplicates", 0.0, 0, 100, 0.0, 0.02, None, None, "").to_json()
NOTHING = Metric("empty", None, None, 0, None, None, "< 0.05", "INSUFFICIENT", "").to_json()

BATCH: dict[str, Any] = {
    "kind": "batch", "round": 2, "number": 0, "rows": 100, "kept": 90, "tokens": 2000,
    "seconds": 10.0, "metrics": [RATE, YIELD, SHOWN, NOTHING], "confirmed_usd": 0.0012,
    "limit_usd": 300.0, "seconds_left": 240.0,
}  # fmt: skip
WAVE: dict[str, Any] = {
    "kind": "wave", "number": 3, "kept": 200, "target": 1000, "attempts": 260,
    "confirmed_usd": 1.0, "limit_usd": 300.0, "seconds_left": None,
}  # fmt: skip


def test_a_micro_batch_in_one_line() -> None:
    line = one_line(BATCH)
    for part in ("round 2", "micro-batch 1", "200 tokens/s", "$0.0012 of $300.00", "about 4 min"):
        assert part in line
    assert "pass 1  fail 0  open 2" in line


def test_a_wave_in_one_line() -> None:
    assert "200/1000 rows kept" in one_line(WAVE)
    assert "left" not in one_line(WAVE)
    assert "1000/1000 rows kept, 22 spare " in one_line(WAVE | {"kept": 1022})


def test_a_cap_below_a_cent_keeps_its_places() -> None:
    line = one_line(WAVE | {"confirmed_usd": 0.000001, "limit_usd": 0.000002})
    assert "$0.000001 of $0.000002" in line


@pytest.mark.parametrize(
    ("seconds", "words"), [(12, "12 s"), (600, "10 min"), (9000, "2.5 h"), (0.2, "0 s")]
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_plain_lines_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainDisplay() as display:
        display.show({"kind": "phase", "text": "preflight"})
    out, err = capsys.readouterr()
    assert (out, err) == ("", "preflight\n")


def test_the_panel_shows_gates_and_no_percentage_of_rows() -> None:
    display = LiveDisplay()
    display.show(BATCH)
    console = Console(width=110, record=True, file=open("/dev/null", "w", encoding="utf-8"))
    console.print(display)
    text = console.export_text()
    assert "2.0% (2/100)" in text and "[1.0%, 8.0%]" in text and "INSUFFICIENT" in text
    assert "40,011" in text and "%" not in text.split("40,011")[1].splitlines()[0]
    assert "not measured" in text
    assert "duplicates" not in text
    assert "Ctrl-C" in text
    console.file.close()


def test_decisions_stay_on_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    with LiveDisplay() as display:
        display.show({"kind": "decision", "step": "REVIEW", "reason": "runaway [red]84 %[/red]"})
        display.show({"kind": "decision", "step": "CONTINUE", "reason": "not yet"})
    err = capsys.readouterr().err
    assert "[red]" in err and "not yet" not in err


class Gone(io.StringIO):
    """A terminal that was taken away."""

    def write(self, _: str) -> int:
        raise OSError(5, "Input/output error")


def test_a_terminal_that_is_gone_fails_no_run() -> None:
    display = LiveDisplay()
    display._console._force_terminal = True
    with display:
        display._console.file = Gone()
        display.show({"kind": "decision", "step": "REVIEW", "reason": "not yet"})
