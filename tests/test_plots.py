"""agent/report/plots.py: pictures are byte-stable and draw what was measured, however little."""

from io import BytesIO

import matplotlib
import numpy as np
import pytest
from builders import metrics, round_record, run_record, story

from agent.records import Spend
from agent.report import plots
from agent.report.plot_style import ORANGE


def pixels(picture: bytes) -> np.ndarray:
    from matplotlib.image import imread

    return np.asarray(imread(BytesIO(picture), format="png"))


def amount(picture: bytes, colour: str) -> int:
    """Pixels of about that colour."""
    from matplotlib.colors import to_rgb

    return int((np.abs(pixels(picture)[..., :3] - to_rgb(colour)).max(axis=-1) < 0.04).sum())


def test_pictures_are_the_same_bytes_whatever_the_users_style(tmp_path):
    first = plots.metrics_over_rounds(story()), plots.spend(story(), run_record())
    with matplotlib.rc_context({"axes.facecolor": "black", "savefig.dpi": 50, "font.size": 20}):
        second = plots.metrics_over_rounds(story()), plots.spend(story(), run_record())
        assert matplotlib.rcParams["axes.facecolor"] == "black"
    assert first == second


def test_pictures_name_what_drew_them_and_carry_no_date():
    png = plots.token_lengths(story()[0])
    assert png.count(b"tEXt") == 1 and b"Software\0matplotlib " in png
    assert b"tIME" not in png and b"Creation Time" not in png


@pytest.mark.parametrize("count", [1, 4, 12])
def test_pictures_are_legible_at_700_pixels(count):
    rounds = [round_record(n) for n in range(1, count + 1)]
    for picture in (plots.metrics_over_rounds(rounds), plots.spend(rounds, run_record())):
        assert pixels(picture).shape[1] == 1440


def test_a_failing_gate_looks_different():
    good = {"runaway": 0, "token_limit": 0}
    rows = {"n": 400, "generated": 400, "kept": 300, "distinct": 20_000.0}
    passing = round_record(metrics=metrics(good, **rows))
    failing = round_record(metrics=metrics({**good, "runaway": 200}, **rows))
    fails = amount(plots.metrics_over_rounds([failing]), ORANGE)
    assert fails > amount(plots.metrics_over_rounds([passing]), ORANGE)


def test_an_unmeasured_gate_is_written_and_has_no_point(monkeypatch):
    monkeypatch.setattr(plots, "png", lambda figure: figure)
    rows = {"n": 30, "generated": 32, "kept": 4, "distinct": 20_000.0}
    unmeasured = round_record(metrics=metrics({"runaway": None}, **rows))
    panel = plots.metrics_over_rounds([unmeasured]).axes[0]
    assert [t.get_text() for t in panel.texts] == ["not measured"]
    assert not [line for line in panel.lines if line.get_marker() in "oXD"]


def test_responses_at_the_cap_are_drawn_apart():
    hit = round_record(response_tokens=(80,) * 20 + (10,) * 8)
    free = round_record(response_tokens=(10,) * 28, stops={"eos": 28})
    assert amount(plots.token_lengths(hit), ORANGE) > 4 * amount(plots.token_lengths(free), ORANGE)


@pytest.mark.parametrize("lengths", [(), (80,), (1, 1, 1), (0, 80)])
def test_any_lengths_can_be_drawn(lengths):
    assert plots.token_lengths(round_record(response_tokens=lengths)).startswith(b"\x89PNG")


def test_a_run_that_cost_nothing_can_be_drawn():
    free = round_record(spend=Spend())
    assert plots.spend([free], run_record()).startswith(b"\x89PNG")
