"""The open probe: what is answered, how, and that it can be read back."""

import json

import pytest

from pipeline.engine.scripted import ScriptedEngine
from pipeline.params import GenParams
from pipeline.probe import HOT, HOT_ROWS, PROBE_ROWS, Probe, heated, opened, run_probe
from pipeline.types import Completion, GenRequest

PARAMS = GenParams().replace(
    {"response.stop": ["\nInstruction"], "instruction.temperature": 0.3, "oversample": 2.0}
)


class _Watched(ScriptedEngine):
    """The scripted engine, which keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[GenRequest]] = []

    def generate(self, requests: list[GenRequest]) -> list[Completion]:  # type: ignore[override]
        self.asked.append(list(requests))
        return super().generate(requests)


@pytest.fixture
def engine() -> _Watched:
    return _Watched()


def test_every_parsed_instruction_is_answered_and_repeated_ones_too(engine: _Watched) -> None:
    probe = run_probe(engine, PARAMS, seed=3)
    parsed = [s for s in probe.samples if s.parsed]
    assert [s.index for s in probe.samples] == list(range(PROBE_ROWS))
    assert any(s.dropped == "duplicate" for s in parsed), "the setting is one that repeats itself"
    assert all(s.answered and s.clean is not None for s in parsed)
    assert not any(s.answered for s in probe.samples if not s.parsed)
    assert [s.index for s in probe.hot] == [s.index for s in parsed][:HOT_ROWS]


def test_open_rows_have_no_stop_strings_and_twice_the_cap(engine: _Watched) -> None:
    run_probe(engine, PARAMS, seed=3)
    instructions, own, hot = engine.asked
    assert {r.sampling.temperature for r in instructions} == {0.3}
    assert {(r.sampling.stop, r.sampling.max_new_tokens) for r in own} == {((), 160)}
    assert {(r.sampling.temperature, r.sampling.max_new_tokens) for r in hot} == {(HOT, 40)}


def test_no_row_shares_a_seed_with_another_or_with_a_pilot(engine: _Watched) -> None:
    run_probe(engine, PARAMS, seed=3)
    seeds = [r.seed for batch in engine.asked for r in batch]
    assert len(set(seeds)) == len(seeds)


def test_the_cap_is_doubled_within_its_bounds_only() -> None:
    assert opened(GenParams().replace({"response.max_new_tokens": 800}).response) == (
        GenParams().replace({"response.max_new_tokens": 1024}).response
    )
    assert heated(PARAMS.response).stop == PARAMS.response.stop


def test_margins_need_not_be_known(engine: _Watched) -> None:
    assert PARAMS.critic.pair_margin is None
    assert run_probe(engine, PARAMS, seed=1, rows=4).tokens > 0


def test_it_can_be_written_and_read(engine: _Watched) -> None:
    probe = run_probe(engine, PARAMS, seed=3, rows=8)
    assert Probe.from_json(json.loads(json.dumps(probe.to_json()))) == probe
    assert run_probe(ScriptedEngine(), PARAMS, seed=3, rows=8) == probe
