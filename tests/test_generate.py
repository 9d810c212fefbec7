"""One micro-batch: order of the stages, seeds, parsing, and what each stage drops."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from pipeline.critics.calibrate import calibrate
from pipeline.engine.scripted import ScriptedEngine
from pipeline.generate import MicroBatch, drawn, parse_instruction, run_micro_batch
from pipeline.novelty import NoveltyIndex
from pipeline.params import GenParams
from pipeline.types import Completion, GenRequest
from prompts.library import fewshot_set

BATCH = MicroBatch("pilot", round=1, number=0, first_index=0, rows=24, seed=7)
PARAMS = GenParams().replace(
    {
        "critic.instruction": "label",
        "critic.pair": "lift",
        "critic.instruction_margin": -1.0,
        "critic.pair_margin": -1.0,
        "response.stop": ("\nInstruction", "\nResponse"),
        "response.max_new_tokens": 120,
    }
)


class Recorder(ScriptedEngine):
    """Keeps what it was asked to generate, and can answer with fixed instructions."""

    def __init__(self, instructions: Sequence[str] = ()) -> None:
        super().__init__()
        self.asked: list[GenRequest] = []
        self._instructions = list(instructions)

    def generate(self, requests: Sequence[GenRequest]) -> list[Completion]:
        self.asked.extend(requests)
        if self._instructions and requests[0].suffix.endswith("Instruction:"):
            texts = (self._instructions * len(requests))[: len(requests)]
            return [Completion(f" {text}", (1, 2, 3), "stop", "\n") for text in texts]
        return super().generate(requests)


def test_the_same_batch_gives_the_same_samples() -> None:
    first = run_micro_batch(ScriptedEngine(), BATCH, PARAMS, seen=NoveltyIndex())
    again = run_micro_batch(ScriptedEngine(), BATCH, PARAMS, seen=NoveltyIndex())
    assert first == again


def test_every_instruction_comes_back_in_draw_order() -> None:
    batch = replace(BATCH, first_index=100)
    params = PARAMS.replace({"oversample": 1.5})
    result = run_micro_batch(ScriptedEngine(), batch, params, seen=NoveltyIndex())
    assert [s.index for s in result.samples] == list(range(100, 136))
    assert sum(s.answered for s in result.samples) <= 24
    assert all(s.kept or s.dropped or not s.answered for s in result.samples)


def test_pilot_and_scale_never_share_a_seed() -> None:
    other = replace(BATCH, stage="scale")
    assert BATCH.row_seed(3, "instruction") != other.row_seed(3, "instruction")
    assert BATCH.row_seed(3, "instruction") != BATCH.row_seed(3, "response")
    assert BATCH.row_seed(3, "response") != replace(BATCH, round=2).row_seed(3, "response")


def test_an_instruction_seen_before_is_not_answered() -> None:
    engine = Recorder(["Name a large city in Japan.", "Name a  LARGE city in Japan. "])
    seen = NoveltyIndex(["What is the opposite of hot?"])
    result = run_micro_batch(engine, BATCH, PARAMS, seen=seen)
    answers = [r for r in engine.asked if r.suffix.endswith("Response:")]
    assert len(answers) == 1
    assert [s.dropped for s in result.samples[1:]] == ["duplicate"] * 23
    assert "name a large city in japan." in seen


def test_a_copy_of_a_shown_example_is_no_novelty() -> None:
    shown = fewshot_set("core")[0].instruction
    result = run_micro_batch(Recorder([shown]), BATCH, PARAMS, seen=NoveltyIndex())
    assert {s.dropped for s in result.samples} == {"duplicate"}
    assert {s.cause for s in result.samples} != {None}


def test_a_flagged_row_is_scored_but_never_kept() -> None:
    params = PARAMS.replace({"response.stop": (), "response.max_new_tokens": 200})
    result = run_micro_batch(ScriptedEngine(), BATCH, params, seen=NoveltyIndex())
    flagged = [s for s in result.samples if s.flags]
    assert flagged and not any(s.kept for s in flagged)
    assert {s.dropped for s in flagged} == {"detector"}
    assert all("lift" in s.pair_scores for s in flagged if s.clean)
    assert all(s.cause for s in flagged)


def test_margins_decide_who_is_answered_and_kept() -> None:
    strict = PARAMS.replace({"critic.instruction_margin": 19.0})
    none = run_micro_batch(ScriptedEngine(), BATCH, strict, seen=NoveltyIndex())
    assert not any(s.answered for s in none.samples)
    picky = PARAMS.replace({"critic.pair_margin": 19.0})
    some = run_micro_batch(ScriptedEngine(), BATCH, picky, seen=NoveltyIndex())
    assert any(s.answered for s in some.samples) and not any(s.kept for s in some.samples)


def test_every_critic_of_the_panel_scores_and_the_named_ones_decide() -> None:
    engine = ScriptedEngine()
    critics = calibrate(engine, max_false_accept=0.2).panel()
    result = run_micro_batch(engine, BATCH, PARAMS, seen=NoveltyIndex(), critics=critics)
    every = {"label", "lift", "combined"}
    scored = [s for s in result.samples if s.clean]
    assert scored and all(set(s.pair_scores) == every for s in scored)
    judged = [s for s in result.samples if s.instruction_scores]
    assert judged and all(set(s.instruction_scores) == every for s in judged)
    assert all(s.instruction_score == s.instruction_scores["label"] for s in judged)
    alone = run_micro_batch(engine, BATCH, PARAMS, seen=NoveltyIndex())
    assert [s.dropped for s in alone.samples] == [s.dropped for s in result.samples]
    assert all(set(s.pair_scores) == {"lift"} for s in alone.samples if s.clean)


def test_critics_are_named_before_the_first_row() -> None:
    unnamed = PARAMS.replace({"critic.pair": "auto"})
    with pytest.raises(AssertionError, match="named before the first row"):
        run_micro_batch(ScriptedEngine(), BATCH, unnamed, seen=NoveltyIndex())


PARSED = {
    " What is the opposite of hot?": "What is the opposite of hot?",
    "  Two   spaces\tand a tab ": "Two spaces and a tab",
    " Why?": None,
    "": None,
    " Response: it is a city": None,
    " Instruction: Name a city.": None,
}


@pytest.mark.parametrize(("text", "instruction"), PARSED.items())
def test_parse_instruction(text: str, instruction: str | None) -> None:
    assert parse_instruction(text) == instruction


def test_an_instruction_cut_by_its_cap_is_lost_to_the_parser() -> None:
    params = PARAMS.replace({"instruction.max_new_tokens": 8, "instruction.temperature": 1.0})
    result = run_micro_batch(ScriptedEngine(), BATCH, params, seen=NoveltyIndex())
    cut = [s for s in result.samples if s.dropped == "parser"]
    assert cut and all(s.cause == "parser" for s in cut)


@pytest.mark.parametrize(("oversample", "count"), [(1.0, 24), (1.1, 27), (5.0, 120)])
def test_drawn(oversample: float, count: int) -> None:
    assert drawn(24, PARAMS.replace({"oversample": oversample})) == count
