"""The index of instructions seen."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.novelty import NoveltyIndex, normalise


def test_case_width_and_white_space_make_no_novelty() -> None:
    index = NoveltyIndex(["What is\tthe Capital  of France? "])
    assert not index.add("what is the capital of france?")
    assert not index.add("ｗhat is the capital of france?")
    assert index.add("What is the capital of Spain?")
    assert len(index) == 2


def test_an_index_beside_leaves_the_other_alone() -> None:
    committed = NoveltyIndex(["one"])
    batch = NoveltyIndex(beside=committed)
    assert not batch.add("ONE") and batch.add("two") and not batch.add("two")
    assert committed.add("two")


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise(text)
    assert NoveltyIndex([text]).add(text) is False
    assert once == once.strip()
