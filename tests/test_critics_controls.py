"""Controls for critics: good ones, and every kind of fault."""

import json
from importlib.resources import files

import pytest

from pipeline.critics.controls import REQUIRED, instruction_controls, pair_controls
from pipeline.good_pairs import good_pairs

PAIRS = {p.instruction: p.response for p in good_pairs()}


@pytest.mark.parametrize("most", [12, 60, 10_000])
def test_shuffled_pairs_never_keep_their_answer(most: int) -> None:
    found = pair_controls(most)
    shuffled = found.bad["shuffled"]
    assert len(found.good) == len(shuffled) == min(most, len(PAIRS))
    assert [i for i, _ in shuffled] == [i for i, _ in found.good]
    assert sorted(r for _, r in shuffled) == sorted(r for _, r in found.good)
    assert all(PAIRS[i] != r for i, r in shuffled)


def test_every_fault_has_controls_and_none_of_them_is_good() -> None:
    pairs, instructions = pair_controls(), instruction_controls()
    assert set(pairs.bad) == {"shuffled", "cut", "vague", "off_by_one_detail"}
    assert set(instructions.bad) == {"statement", "shuffled", "cut", "vague"}
    assert min(len(bad) for bad in (*pairs.bad.values(), *instructions.bad.values())) >= 30
    for bad in pairs.bad.values():
        assert all(PAIRS[i] != r for i, r in bad)
    for texts in instructions.bad.values():
        assert not set(texts) & set(PAIRS)
    assert REQUIRED["pair"] in pairs.bad and REQUIRED["instruction"] in instructions.bad


def test_items_stand_in_the_order_in_which_they_are_parted_again() -> None:
    found = instruction_controls(12)
    assert found.items[:12] == found.good
    assert found.items[12:] == tuple(text for bad in found.bad.values() for text in bad)


def test_every_wrong_detail_changes_a_good_answer() -> None:
    """A shipped answer that is edited must still hold the detail that is made wrong."""
    text = (files("prompts") / "controls" / "off_by_one.jsonl").read_text(encoding="utf-8")
    told = [json.loads(line) for line in text.splitlines()]
    by_id = {p.id: p for p in good_pairs()}
    assert len({t["id"] for t in told}) == len(told) >= 50
    for entry in told:
        assert entry["right"] in by_id[entry["id"]].response, entry["id"]
        assert entry["right"] != entry["wrong"]


def test_a_cut_answer_ends_before_its_end() -> None:
    for instruction, response in pair_controls().bad["cut"]:
        good = PAIRS[instruction]
        assert good.startswith(response) and len(response) < 0.8 * len(good)
