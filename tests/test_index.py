"""agent/index.py: a file that is whole or not used."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from agent import index
from agent.index import Index, Told
from agent.review import scored
from agent.review_records import Prediction


def told(round_: int = 1, *, reverted: bool = False, actual: float | None = 0.01) -> Told:
    guess = Prediction(metric="runaway", low=0.0, high=0.05, probability=0.8)
    return Told(round_, "rules", 0.25, reverted, scored([(guess, actual)]))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An index of two runs, one of which does not count."""
    with closing(Index()) as kept:
        kept.enter("a", "1 2 3", [told(), told(2, reverted=True, actual=0.3)])
        kept.enter("b", "4 5 6", [], problem="it is damaged")
        index.save(kept, tmp_path / index.NAME)
    return tmp_path / index.NAME


def test_what_is_kept_is_read_back(path: Path) -> None:
    found, wrong = index.load(path)
    with closing(found):
        assert wrong == ""
        assert found.stamps() == {"a": "1 2 3", "b": "4 5 6"}
        assert found.problems() == {"b": "it is damaged"}
        (track,) = found.tracks()
    assert (track.runs, track.reviews, track.predictions, track.hits) == (1, 2, 2, 1)
    assert (track.reverted, track.cost_usd, track.claimed) == (1, 0.5, 0.8)
    assert track.brier == pytest.approx((0.04 + 0.64) / 2)


def test_other_programs_read_it_as_a_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        rows = other.execute(
            "SELECT metric, low, high, probability, actual, hit, score FROM predictions"
        ).fetchall()
        assert rows[0] == ("runaway", 0.0, 0.05, 0.8, 0.01, 1, pytest.approx(0.04))
        assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_run_that_is_entered_again_replaces_itself(path: Path) -> None:
    found, _ = index.load(path)
    with closing(found):
        found.enter("a", "new", [told()])
        assert found.stamps()["a"] == "new"
        assert found.tracks()[0].reviews == 1
        found.forget(["a"])
        assert found.tracks() == () and set(found.stamps()) == {"b"}


def test_what_was_not_measured_is_nobodys_prediction() -> None:
    with closing(Index()) as kept:
        kept.enter("a", "", [told(actual=None)])
        (track,) = kept.tracks()
    assert (track.reviews, track.predictions, track.claimed, track.brier) == (1, 0, None, None)


def test_every_changed_byte_is_seen(path: Path) -> None:
    content = path.read_bytes()
    for place in range(0, len(content), 97):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        found, wrong = index.load(path)
        found.close()
        assert wrong == "it is damaged", place


@pytest.mark.parametrize("left", [0, 1, 99, 100, 4096, -1])
def test_a_file_that_is_cut_short_is_not_used(path: Path, left: int) -> None:
    path.write_bytes(path.read_bytes()[:left])
    found, wrong = index.load(path)
    with closing(found):
        assert wrong == "it is damaged" and found.stamps() == {}


def test_a_file_of_another_version_is_not_used(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "VERSION", 3)
    found, wrong = index.load(path)
    with closing(found):
        assert wrong == "it is of version 2, this program writes 3" and found.stamps() == {}


def test_a_database_that_somebody_wrote_to_is_not_used(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("UPDATE predictions SET score = 0")
        other.commit()
    found, wrong = index.load(path)
    found.close()
    assert wrong == "it is damaged"


def test_no_file_is_nothing_wrong(tmp_path: Path) -> None:
    found, wrong = index.load(tmp_path / index.NAME)
    with closing(found):
        assert (wrong, found.tracks()) == ("", ())
