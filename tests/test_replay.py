"""Replay: exact on rows that an engine draws again, refused by name where it cannot be."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.stages.stored import Source, ask
from pipeline.engine.ends import pieces, token_ends
from pipeline.engine.scripted import ScriptedEngine
from pipeline.engine.stops import settle
from pipeline.generate import MicroBatch, answer
from pipeline.metrics import Bound, Rules
from pipeline.params import GenParams
from pipeline.probe import probe_params, run_probe
from pipeline.prompting import choose_examples
from pipeline.replay import UNSCORED, Replayed, measure_replayed, replay
from pipeline.types import Certificate, Sample
from tests.test_engine_ends import PARTS
from tests.test_engine_stops import STOPS as BYTE_STOPS
from tests.test_engine_stops import TOKENIZER
from tests.test_engine_stops import ids as byte_ids

BASE = GenParams().replace(
    {
        "critic.instruction": "label", "critic.instruction_margin": 0.0,
        "critic.pair": "lift", "critic.pair_margin": 0.0,
    }
)  # fmt: skip
PROBE = run_probe(ScriptedEngine(), BASE, seed=5, rows=64)
MADE_WITH = probe_params(GenParams())
STOPS = (
    "\nInstruction", "\n\n", "\nQ:", "\n###", "\nUser:", ".", "\nInstruction:", "A ", " and",
    "every day and", "y", "Response", "\n\nInstruction: ", "no such text",
)  # fmt: skip


def setting(**changes: Any) -> GenParams:
    return BASE.replace({k.replace("__", "."): v for k, v in changes.items()})


def of_probe(wanted: GenParams) -> Replayed:
    return replay(PROBE.samples, made_with=MADE_WITH, wanted=wanted)


def drawn_again(samples: Sequence[Sample], wanted: GenParams) -> list[Sample]:
    """The same instructions, answered by the engine under ``wanted`` with the probe's seeds."""
    batch = MicroBatch("probe", 0, 0, 0, len(samples), 5)
    examples = choose_examples(wanted.fewshot, seed=5, place=batch.place)
    chosen = [s for s in samples if s.answered]
    return answer(ScriptedEngine(), batch, wanted.response, examples, chosen)[0]


def ending(sample: Sample) -> tuple[Any, ...]:
    """All that an engine and the cleaner say of a response."""
    return (
        sample.raw, sample.clean, sample.finish_reason, sample.stop, sample.token_ids,
        sample.trimmed, sample.token_ends, sample.flags,
    )  # fmt: skip


@given(st.lists(st.sampled_from(STOPS), max_size=8, unique=True), st.integers(8, 160))
@settings(max_examples=60, deadline=None)
def test_replay_of_stops_and_caps_is_what_the_engine_draws(stops: list[str], cap: int) -> None:
    wanted = setting(response__stop=stops, response__max_new_tokens=cap)
    again = {s.index: s for s in drawn_again(PROBE.samples, wanted)}
    replayed = of_probe(wanted)
    rows = [s for s in replayed.samples if s.answered]
    assert len(rows) > 40
    assert [ending(s) for s in rows] == [ending(again[s.index]) for s in rows]


@given(
    st.lists(st.sampled_from(STOPS), max_size=3, unique=True),
    st.lists(st.sampled_from(STOPS), max_size=3, unique=True),
    st.integers(20, 160),
    st.integers(8, 160),
)
@settings(max_examples=40, deadline=None)
def test_rows_that_were_cut_once_can_be_cut_again(
    stops: list[str], more: list[str], cap: int, lower: int
) -> None:
    """Also where an added stop string reaches into what an earlier one cut off."""
    first = setting(response__stop=stops, response__max_new_tokens=cap)
    both = [*stops, *(m for m in more if m not in stops)]
    then = setting(response__stop=both, response__max_new_tokens=min(cap, lower))
    stored = drawn_again(PROBE.samples, first)
    again = replay(stored, made_with=first, wanted=then)
    fresh = {s.index: s for s in drawn_again(PROBE.samples, then)}
    rows = [s for s in again.samples if s.answered]
    assert rows and [ending(s) for s in rows] == [ending(fresh[s.index]) for s in rows]


@given(
    st.lists(PARTS, min_size=1, max_size=14),
    st.lists(st.sampled_from([s for s in BYTE_STOPS if "\ufffd" not in s]), max_size=3),
    st.integers(8, 20),
)
@example(parts=[b"\n", b"\xe2"], stops=["\n"], cap=8)  # a line break that the next byte breaks
@settings(max_examples=200, deadline=None)
def test_characters_of_several_tokens_are_cut_as_an_engine_cuts_them(
    parts: list[str | bytes], stops: list[str], cap: int
) -> None:
    """The rule on a tokenizer whose tokens are bytes, down to half a character at the cap."""
    tokens = byte_ids(*parts)

    def text_of(k: int) -> str:
        text: str = TOKENIZER.decode(tokens[:k], skip_special_tokens=False)
        return text

    spell = partial(TOKENIZER.decode, skip_special_tokens=False)
    ends = token_ends(spell, pieces(spell, tokens[0]), tokens, text_of(len(tokens)))
    sample = Sample(
        0, "", "What?", raw=text_of(len(tokens)), finish_reason="eos",
        token_ids=tuple(tokens), token_ends=ends,
    )  # fmt: skip
    wanted = setting(response__stop=stops, response__max_new_tokens=cap)
    found = replay([sample], made_with=MADE_WITH, wanted=wanted)
    due = settle(text_of, len(tokens), stops=stops, cap=cap, eos=True)
    if found.refused:
        assert ends is None
        return
    (row,) = found.samples
    told = (row.raw, len(row.token_ids), row.finish_reason, row.stop)
    assert told == (due.text, due.tokens, due.finish_reason, due.stop)
    if due.finish_reason == "stop":
        assert row.trimmed == due.trimmed


@pytest.mark.parametrize(
    ("changes", "name", "says"),
    [
        ({"response.temperature": 0.5}, "response.temperature", "draws other tokens"),
        ({"response.top_p": 0.8}, "response.top_p", "draws other tokens"),
        ({"response.repetition_penalty": 1.2}, "response.repetition_penalty", "other tokens"),
        ({"instruction.temperature": 0.5}, "instruction.temperature", "draws other tokens"),
        ({"instruction.max_new_tokens": 40}, "instruction.max_new_tokens", "other tokens"),
        ({"fewshot.set": "wide"}, "fewshot.set", "changes the prompts"),
        ({"fewshot.count": 4}, "fewshot.count", "changes the prompts"),
        ({"fewshot.rotation": "pool"}, "fewshot.rotation", "changes the prompts"),
        ({"topics": "hints"}, "topics", "changes the prompts"),
        ({"oversample": 2.0}, "oversample", "another number of instructions"),
        ({"response.max_new_tokens": 161}, "response.max_new_tokens", "up to 160 tokens"),
        ({"response.stop": ["\ufffd"]}, "response.stop", "broken characters"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_needs_generation_is_refused_by_name(
    changes: dict[str, Any], name: str, says: str
) -> None:
    found = of_probe(BASE.replace(changes | {"critic.pair_margin": 0.5}))
    assert found.samples == ()
    assert [r.parameter for r in found.refused] == [name]
    assert says in found.refused[0].reason


@pytest.mark.parametrize(
    ("made", "wanted", "name"),
    [
        ({"response.stop": ["\nQ:", "END"]}, {"response.stop": ["\nQ:"]}, "response.stop"),
        ({}, {"response.max_new_tokens": 81}, "response.max_new_tokens"),
        ({}, {"critic.instruction_margin": -0.1}, "critic.instruction_margin"),
    ],
    ids=["fewer stop strings", "a higher cap", "a looser instruction margin"],
)
def test_a_rounds_rows_can_only_be_cut_further(
    made: dict[str, Any], wanted: dict[str, Any], name: str
) -> None:
    found = replay(PROBE.samples, made_with=BASE.replace(made), wanted=BASE.replace(wanted))
    assert [r.parameter for r in found.refused] == [name]


def scored(samples: Sequence[Sample]) -> list[Sample]:
    """Scores that differ from row to row, as if critics had given them."""
    return [
        replace(
            s,
            instruction_scores={"label": s.index % 7 - 3.0} if s.parsed else {},
            pair_scores={"lift": s.index % 5 - 2.0, "label": 2.0 - s.index % 5} if s.clean else {},
        )
        for s in samples
    ]


def test_a_margin_can_be_loosened_on_the_probe() -> None:
    samples = scored(PROBE.samples)
    strict = replay(samples, made_with=MADE_WITH, wanted=setting(critic__instruction_margin=1.5))
    loose = replay(samples, made_with=MADE_WITH, wanted=setting(critic__instruction_margin=-3.5))
    answered = [sum(s.answered for s in found.samples) for found in (strict, loose)]
    assert 0 < answered[0] < answered[1]
    assert {s.dropped for s in strict.samples if s.parsed and not s.answered} >= {
        "instruction_critic"
    }


def test_a_repeated_instruction_counts_for_nothing() -> None:
    """A pilot would not have answered it, whatever the probe did."""
    repeated = replace(scored(PROBE.samples)[0], dropped="duplicate")
    (found,) = replay([repeated], made_with=MADE_WITH, wanted=BASE).samples
    assert repeated.answered and not found.answered and found.instruction_score is None


def test_the_critic_and_its_margin_are_applied_to_stored_scores() -> None:
    samples = [s for s in scored(PROBE.samples) if s.parsed]
    ends = ["\nInstruction", "\nQ:", "\n###", "\nUser:"]
    uncut = setting(response__stop=ends, critic__instruction_margin=-20.0)
    kept = {}
    for critic in ("lift", "label"):
        wanted = uncut.replace({"critic.pair": critic, "critic.pair_margin": 0.5})
        found = replay(samples, made_with=MADE_WITH, wanted=wanted)
        unflagged = [s for s in found.samples if s.pair_scores and not s.flags]
        kept[critic] = {s.index for s in unflagged if s.kept}
        assert kept[critic] == {s.index for s in unflagged if s.pair_scores[critic] > 0.5}
    assert kept["lift"] and kept["label"] and not kept["lift"] & kept["label"]


def test_a_changed_text_loses_its_score_and_an_unchanged_one_keeps_it() -> None:
    samples = scored(PROBE.samples)
    wanted = setting(response__max_new_tokens=12, critic__instruction_margin=-20.0)
    found = replay(samples, made_with=MADE_WITH, wanted=wanted)
    before = {s.index: s for s in samples}
    answered = [s for s in found.samples if s.answered]
    same = [s for s in answered if s.clean == before[s.index].clean]
    other = [s for s in answered if s.clean != before[s.index].clean]
    assert same and other
    assert all(s.pair_scores == before[s.index].pair_scores for s in same)
    assert all(s.pair_scores == {} and s.clean_tokens is None for s in other)
    assert found.unscored == sum(bool(s.clean) for s in other)
    assert {s.dropped for s in other} <= {UNSCORED, "detector"}


def rules(**limits: Bound) -> Rules:
    certificates = {name: Certificate(name, 1.0, 1.0, 9, 9, True, "") for name in limits}
    return Rules(limits, certificates, 0.05)


def test_what_rests_on_a_lost_score_is_unmeasured() -> None:
    samples = scored(PROBE.samples)
    limits = rules(pair_acceptance=Bound(min=0.5), runaway=Bound(max=0.05))
    wanted = setting(critic__instruction_margin=-20.0, response__max_new_tokens=12)
    found = measure_replayed(
        replay(samples, made_with=MADE_WITH, wanted=wanted),
        replace(limits, margins=replace(limits.margins, instruction=-20.0, pair=0.0)),
        wanted=64,
    )
    for name in ("pair_acceptance", "raw_acceptance", "median_tokens", "yield"):
        assert found[name].value is None, name
    assert found["pair_acceptance"].verdict == "INSUFFICIENT"
    assert found["runaway"].value is not None


def test_rows_whose_tokens_are_not_told_are_not_guessed() -> None:
    """A server tells no ends of tokens: nothing is cut there, margins still are judged."""
    served = [replace(s, token_ends=None, trimmed="") for s in scored(PROBE.samples)]
    refused = replay(served, made_with=MADE_WITH, wanted=setting(response__stop=["\nInstruction"]))
    assert refused.samples == ()
    assert refused.refused[0].parameter == "response.max_new_tokens"
    assert "not told" in refused.refused[0].reason
    judged = replay(served, made_with=MADE_WITH, wanted=setting(response__max_new_tokens=160))
    assert not judged.refused and judged.changed == 0


def test_what_decides_later_examples_is_refused_where_prompts_show_kept_rows() -> None:
    """A pool of the rows kept before: another margin, cap or stop string makes other prompts."""
    made = setting(fewshot__rotation="pool")
    for name, value in (
        ("critic.pair_margin", 0.5), ("critic.instruction_margin", 0.5),
        ("response.max_new_tokens", 20), ("response.stop", [*made.response.stop, "."]),
    ):  # fmt: skip
        found = replay(PROBE.samples, made_with=made, wanted=made.replace({name: value}))
        assert [r.parameter for r in found.refused] == [name]
        assert "examples of later prompts" in found.refused[0].reason
    assert not replay(PROBE.samples, made_with=made, wanted=made).refused
    opened = probe_params(GenParams().replace({"fewshot.rotation": "pool"}))
    cut = made.replace({"response.max_new_tokens": 20})
    assert not replay(PROBE.samples, made_with=opened, wanted=cut).refused, "its prompts show none"


def test_a_stricter_margin_is_refused_where_accepted_instructions_were_left_over() -> None:
    """With more instructions drawn than wanted, those would have moved up to be answered."""
    made = setting(oversample=2.0, critic__instruction_margin=-1.5)
    samples = [s for s in scored(PROBE.samples) if s.parsed and s.instruction_scores["label"] > -1]
    left = replace(
        samples[0], dropped=None, raw=None, clean=None, token_ids=(), token_ends=None
    )  # fmt: skip
    assert not left.answered
    stricter = made.replace({"critic.instruction_margin": 0.5})
    refused = replay([*samples, left], made_with=made, wanted=stricter).refused
    assert [r.parameter for r in refused] == ["critic.instruction_margin"]
    assert "1 accepted instructions were not answered" in refused[0].reason
    assert not replay(samples, made_with=made, wanted=stricter).refused
    cut = made.replace({"response.max_new_tokens": 20})
    assert not replay([*samples, left], made_with=made, wanted=cut).refused


def test_an_instruction_counts_once_over_all_stored_rows() -> None:
    """Stored rows of two rounds: what the earlier one asked is no new trial in the later one."""
    other = replace(PROBE.samples[0], instruction="Quite another one.", index=1)
    first = Source("open probe", PROBE.samples, MADE_WITH)
    found = ask([first, Source("round 1", (*PROBE.samples, other), MADE_WITH)], setting())
    parsed = [s.instruction for s in PROBE.samples if s.parsed]
    asked = [s.instruction for s in found.rows.samples if s.parsed]
    assert asked == [*parsed, "Quite another one."]
    refused = Source("open probe", PROBE.samples, setting(topics="hints"))
    alone = ask([refused, Source("round 1", PROBE.samples, MADE_WITH)], setting())
    assert [s.instruction for s in alone.rows.samples if s.parsed] == parsed
