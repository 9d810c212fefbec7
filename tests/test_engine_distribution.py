"""local/sampling.py: a thousand random rows by transformers' rules, and what is drawn."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special, stats

from pipeline.engine.local.sampling import Sampler
from pipeline.types import Sampling

GEMMA = 262_144
"""Entries of the embedded model's vocabulary."""
SHORT = 1024
DRAWS = 100_000


@dataclass(frozen=True)
class Block:
    """Rows of one vocabulary, each with its own setting."""

    logits: torch.Tensor
    settings: list[Sampling]
    prompts: list[list[int]]

    def sampler(self) -> Sampler:
        rows = len(self.settings)
        return Sampler(self.settings, seeds=range(rows), prompts=self.prompts, device="cpu")


def setting(chance: np.random.Generator) -> Sampling:
    """Any of the knobs may be off."""

    def maybe(value: float, off: float) -> float:
        return float(value if chance.random() < 0.6 else off)

    return Sampling(
        maybe(chance.uniform(0.1, 2.0), 1.0),
        1,
        top_p=maybe(1 - chance.uniform(0, 1) ** 2, 1.0) or 1.0,
        top_k=int(maybe(chance.integers(1, 3000), 0)) if chance.random() < 0.5 else 0,
        min_p=maybe(chance.uniform(0, 0.3), 0.0) if chance.random() < 0.4 else 0.0,
        repetition_penalty=maybe(chance.uniform(0.8, 1.5), 1.0),
    )


def row(chance: np.random.Generator, width: int) -> np.ndarray[Any, Any]:
    """Logits in random order, flat or peaked; no two are equal, for ties may fall either way."""
    ranks = (chance.permutation(width) + 0.5) / width
    shape = (special.ndtri, special.logit, lambda q: q * 4, lambda q: -np.log(1 - q))
    values = shape[chance.integers(4)](ranks) * 10 ** chance.uniform(-1.0, 1.0)
    for token in chance.integers(0, width, chance.integers(0, 4)):
        values[token] += chance.uniform(5, 25)
    return values + chance.uniform(-10, 10)


def blocks(chance: np.random.Generator) -> Iterator[Block]:
    """A thousand rows, those of Gemma's vocabulary a few at a time."""
    for width, rows in (
        [(GEMMA, 4)] * 10 + [(32_000, 20)] * 3 + [(4096, 100)] * 4 + [(300, 100)] * 5
    ):
        logits = torch.from_numpy(np.stack([row(chance, width) for _ in range(rows)])).float()
        prompts = chance.integers(0, width, (rows, 50))
        prompts[:, 0] = logits.argmax(1).numpy()  # what is likely has often been said before
        yield Block(logits, [setting(chance) for _ in range(rows)], prompts.tolist())


def by_transformers(logits: torch.Tensor, s: Sampling, prompt: list[int]) -> torch.Tensor:
    """One row's probabilities by transformers' processors, chained in its own order.

    All but the penalty run in float64, so that what is compared is not their own rounding.
    """
    from transformers.generation import logits_process as lp

    ids = torch.tensor([prompt])
    penalty = lp.RepetitionPenaltyLogitsProcessor(s.repetition_penalty)
    scores = penalty(ids, logits[None].clone()).double()
    chain = lp.LogitsProcessorList([lp.TemperatureLogitsWarper(s.temperature)])
    if s.top_k:
        chain.append(lp.TopKLogitsWarper(s.top_k))
    if s.top_p < 1:
        chain.append(lp.TopPLogitsWarper(s.top_p))
    if s.min_p:
        chain.append(lp.MinPLogitsWarper(s.min_p))
    found: torch.Tensor = chain(ids, scores)[0].softmax(-1)
    return found


def test_a_thousand_rows_have_the_distribution_of_transformers() -> None:
    rows = wide = beyond = peaked = 0
    for block in blocks(np.random.default_rng(12)):
        ours = block.sampler().distribution(block.logits)
        for i, chosen in enumerate(block.settings):
            theirs = by_transformers(block.logits[i], chosen, block.prompts[i])
            difference = float((ours[i] - theirs).abs().max())
            assert difference <= 1e-6, f"{chosen}, {len(theirs)} tokens: {difference}"
            rows += 1
            wide += len(theirs) == GEMMA
            beyond += chosen.top_p < 1 and int((theirs > 0).sum()) > SHORT
            peaked += float(theirs.max()) > 0.9
    assert rows == 1000 and wide == 40
    assert beyond >= 30, "rows whose nucleus is longer than the short list"
    assert peaked >= 50


FREQUENT = [
    Sampling(1.0, 1),
    Sampling(0.7, 1, top_p=0.9, repetition_penalty=1.1),
    Sampling(1.3, 1, top_k=40, min_p=0.02),
]


def p_value(drawn: Sampling, claimed: Sampling, *, width: int) -> float:
    """Chi-square of 100,000 draws by one setting against the distribution of another.

    Tokens that are expected less than ten times are counted together.
    """
    rows = 5000
    prompts = [[1, 2, 3]] * rows
    ranks = (np.random.default_rng(width).permutation(width) + 0.5) / width
    logits = torch.from_numpy(special.ndtri(ranks) * 1.5).float()
    values = logits.expand(rows, -1)
    told = Sampler([claimed], seeds=[0], prompts=prompts[:1], device="cpu")
    expected = told.distribution(logits[None])[0].numpy() * DRAWS
    counts = np.zeros(width)
    for step in range(DRAWS // rows):
        # What was drawn counts as seen: each step has a sampler of its own.
        fresh = Sampler([drawn] * rows, seeds=range(rows), prompts=prompts, device="cpu")
        counts += np.bincount(fresh.draw(values, step).numpy(), minlength=width)
    assert counts.sum() == DRAWS
    if counts[expected == 0].any():
        return 0.0
    often = expected >= 10
    seen = np.append(counts[often], counts[~often].sum())
    due = np.append(expected[often], expected[~often].sum())
    kept = due > 0
    return float(stats.chisquare(seen[kept], due[kept], sum_check=False).pvalue)


@pytest.mark.parametrize("width", [64, 300])
@pytest.mark.parametrize("chosen", FREQUENT, ids=str)
def test_100_000_draws_follow_the_distribution(chosen: Sampling, width: int) -> None:
    assert p_value(chosen, chosen, width=width) > 1e-4


@pytest.mark.parametrize("width", [64, 300])
def test_a_temperature_of_nine_tenths_is_told_from_one(width: int) -> None:
    """So the test above can fail."""
    assert p_value(Sampling(0.9, 1), Sampling(1.0, 1), width=width) < 1e-4


def test_a_nucleus_of_99_in_100_is_told_from_all() -> None:
    assert p_value(Sampling(1.0, 1, top_p=0.99), Sampling(1.0, 1), width=64) < 1e-4
