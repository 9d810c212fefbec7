"""pipeline/engine/local/sampling.py: the distribution is transformers' own, the draw follows it."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine.local.sampling import Sampler, uniform
from pipeline.engine.local.shortlist import Penalty, from_few_blocks, from_scores
from pipeline.errors import EngineError
from pipeline.types import Sampling

WIDE = 128 * 1100
"""A vocabulary wide enough for the short list by blocks."""


def sampler(sampling: Sampling, rows: int, *, prompts: list[list[int]] | None = None) -> Sampler:
    return Sampler(
        [sampling] * rows,
        seeds=list(range(rows)),
        prompts=prompts or [[1, 2, 3]] * rows,
        device="cpu",
    )


def logits(rows: int, width: int, *, spread: float, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, width, generator=generator) * spread


def by_transformers(values: torch.Tensor, s: Sampling, prompts: list[list[int]]) -> torch.Tensor:
    """Probabilities by transformers' processors, chained in its own order."""
    from transformers.generation import logits_process as lp

    chain = lp.LogitsProcessorList()
    if s.repetition_penalty != 1:
        chain.append(lp.RepetitionPenaltyLogitsProcessor(s.repetition_penalty))
    chain.append(lp.TemperatureLogitsWarper(s.temperature))
    if s.top_k:
        chain.append(lp.TopKLogitsWarper(s.top_k))
    if s.top_p < 1:
        chain.append(lp.TopPLogitsWarper(s.top_p))
    if s.min_p:
        chain.append(lp.MinPLogitsWarper(s.min_p))
    scores: torch.Tensor = chain(torch.tensor(prompts), values.clone())
    return scores.double().softmax(-1)


SETTINGS = [
    Sampling(1.0, 1),
    Sampling(0.4, 1, top_p=0.9, repetition_penalty=1.1),
    Sampling(0.7, 1, top_p=0.9, repetition_penalty=1.1),
    Sampling(2.0, 1, top_p=0.99, repetition_penalty=0.8),
    Sampling(0.1, 1, top_p=0.5),
    Sampling(1.0, 1, top_k=50),
    Sampling(1.0, 1, top_k=300, top_p=0.8),
    Sampling(1.3, 1, min_p=0.02),
    Sampling(0.8, 1, top_p=0.95, top_k=40, min_p=0.05, repetition_penalty=1.3),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("spread", [0.5, 3.0, 12.0], ids=["flat", "usual", "peaked"])
def test_distribution_is_that_of_transformers(setting: Sampling, spread: float) -> None:
    rows, width = 24, 4096
    values = logits(rows, width, spread=spread)
    prompts = [[i, 2 * i + 1, 7, 7] for i in range(rows)]
    ours = sampler(setting, rows, prompts=prompts).distribution(values)
    theirs = by_transformers(values, setting, prompts)
    assert (ours - theirs).abs().max() <= 1e-6


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("spread", [0.3, 2.0, 6.0], ids=["flat", "usual", "peaked"])
def test_a_draw_is_the_inverse_of_the_distribution(setting: Sampling, spread: float) -> None:
    """Also where the short list does not hold the nucleus, and where bounds replace the total."""
    rows = 8
    values = logits(rows, WIDE, spread=spread).bfloat16()
    one = sampler(setting, rows)
    dense = one.distribution(values)
    drawn = one.draw(values, 3)
    chance = uniform(np.arange(rows, dtype=np.uint64), 3)
    penalised = values.float()
    if setting.repetition_penalty != 1:
        seen = penalised[:, [1, 2, 3]]
        p = setting.repetition_penalty
        penalised[:, [1, 2, 3]] = torch.where(seen > 0, seen / p, seen * p)
    for row in range(rows):
        score, token = penalised[row], int(drawn[row])
        above = dense[row][score > score[token]].sum()
        upto = dense[row][score >= score[token]].sum()
        assert above - 1e-6 <= chance[row] <= upto + 1e-6, "ties may stand in either order"
        assert dense[row, token] > 0


@pytest.mark.parametrize("width", [WIDE, WIDE + 77], ids=["blocks", "blocks and a rest"])
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("spread", [0.1, 2.0, 6.0], ids=["flat", "usual", "peaked"])
def test_looking_into_few_blocks_first_never_changes_a_draw(
    monkeypatch: pytest.MonkeyPatch, setting: Sampling, spread: float, width: int
) -> None:
    """The likeliest tokens have been seen, so that much of what blocks promise is penalised."""
    values = logits(24, width, spread=spread)
    prompts = values.topk(60).indices.tolist()
    first = sampler(setting, 24, prompts=prompts).draw(values, 1)
    monkeypatch.setattr("pipeline.engine.local.sampling.from_few_blocks", lambda *_: None)
    assert torch.equal(sampler(setting, 24, prompts=prompts).draw(values, 1), first)


def test_bounds_of_the_total_never_change_a_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Much of the weight lies outside the blocks that are looked into, so the bounds are wide."""
    values = torch.full((64, WIDE), -60.0)
    values[:, : 255 * 128 : 128] = logits(64, 255, spread=0.1)
    values[:, 255 * 128 :] = -8.0
    drawn = sampler(Sampling(1.0, 1, top_p=0.5), 64).draw(values, 1)
    monkeypatch.setattr("pipeline.engine.local.sampling.from_few_blocks", lambda *_: None)
    assert torch.equal(sampler(Sampling(1.0, 1, top_p=0.5), 64).draw(values, 1), drawn)


def test_greedy_takes_the_likeliest_after_the_penalty() -> None:
    values = torch.zeros(1, 1000)
    values[0, 5], values[0, 9] = 4.0, 3.9
    plain = Sampler([Sampling(0, 1)], seeds=[0], prompts=[[5]], device="cpu")
    assert plain.draw(values, 0).tolist() == [5]
    penalty = Sampling(0, 1, repetition_penalty=1.2)
    punished = Sampler([penalty], seeds=[0], prompts=[[5]], device="cpu")
    assert punished.draw(values, 0).tolist() == [9]
    assert punished.draw(values, 1).tolist() == [5], "the drawn token is seen too"


def test_a_row_draws_the_same_beside_other_rows() -> None:
    values = logits(6, 3000, spread=2.0)
    settings_ = [SETTINGS[i] for i in (0, 1, 3, 5, 7, 8)]
    prompts = [[i, 40 + i] for i in range(6)]
    many = Sampler(settings_, seeds=range(6), prompts=prompts, device="cpu")
    many.keep([5, 2, 3])
    together = many.draw(values[[5, 2, 3]], 4).tolist()
    alone = [
        Sampler([settings_[i]], seeds=[i], prompts=[prompts[i]], device="cpu")
        .draw(values[[i]], 4)
        .item()
        for i in (5, 2, 3)
    ]
    assert together == alone


@given(st.integers(1, 300), st.floats(0.05, 3.0), st.integers(0, 2**16))
@settings(max_examples=20, deadline=None)
def test_a_short_list_is_the_beginning_of_the_sorted_row(
    length: int, temperature: float, seed: int
) -> None:
    values = logits(3, WIDE, spread=3.0, seed=seed)
    heat = torch.full((3, 1), temperature)
    short = from_scores(values.clone(), heat, length)
    ranked = values.sort(dim=1, descending=True).values
    assert torch.equal(short.values, ranked[:, :length])
    assert torch.equal(values.gather(1, short.ids), short.values)
    weights = ((values - ranked[:, :1]).double() / temperature).exp().sum(1)
    assert torch.allclose(short.low, weights, rtol=1e-5) and short.low is short.high


@given(
    st.sampled_from([WIDE, WIDE + 1, WIDE + 127, 128 * 256]),
    st.floats(0.05, 3.0),
    st.floats(0.1, 8.0),
    st.integers(0, 2**16),
)
@settings(max_examples=30, deadline=None)
def test_what_few_blocks_say_is_true_of_the_whole_row(
    width: int, temperature: float, spread: float, seed: int
) -> None:
    values = logits(3, width, spread=spread, seed=seed).bfloat16()
    seen = torch.cat([values.topk(40).indices, torch.full((3, 2), width - 1)], 1)
    penalty = Penalty(seen, torch.tensor([[1.0], [1.1], [1.5]]))
    short = from_few_blocks(values, torch.full((3, 1), temperature), penalty)
    assert short is not None
    whole = values.float().scatter(1, seen, penalty.of(values.float().gather(1, seen)))
    ranked = whole.sort(dim=1, descending=True).values
    for row, certain in enumerate(short.certain.tolist()):
        assert torch.equal(short.values[row, :certain], ranked[row, :certain])
    assert torch.equal(whole.gather(1, short.ids), short.values)
    weights = ((whole - short.values[:, :1]).double() / temperature).exp().sum(1)
    assert bool((short.low <= weights * (1 + 1e-5)).all())
    assert bool((short.high >= weights * (1 - 1e-5)).all())
    assert short.certain[0] == 64, "without a penalty every block has a token of the list"


def test_a_vocabulary_of_few_blocks_is_looked_at_whole() -> None:
    assert from_few_blocks(logits(1, 128 * 255, spread=1.0), torch.ones(1, 1), None) is None


def test_logits_that_are_not_numbers_are_refused_by_row() -> None:
    values = logits(3, 500, spread=1.0)
    values[1, 77] = float("nan")
    with pytest.raises(EngineError, match=r"rows \[1\]"):
        sampler(Sampling(1.0, 1), 3).draw(values, 0)


def test_random_numbers_are_a_fixed_function_of_seed_and_step() -> None:
    """Changing them would change every row of every run that is generated again."""
    seeds = np.arange(1000, dtype=np.uint64) * np.uint64(2**33 + 7)
    block = np.stack([uniform(seeds, step) for step in range(50)])
    assert 0 <= block.min() and block.max() < 1
    assert abs(block.mean() - 0.5) < 0.005
    assert len(np.unique(block)) == block.size
    assert abs(np.corrcoef(block[:-1].ravel(), block[1:].ravel())[0, 1]) < 0.01
    digest = hashlib.sha256(block.astype("<f8").tobytes()).hexdigest()
    assert digest.startswith("9445d0514bc65514")
