"""One micro-batch, from prompts to judged samples.

Instructions are written, parsed, compared with all that were seen and judged; only what is left
is answered and paid for; answers are cleaned, checked by detectors and judged. Every sample comes
back, also the dropped ones, with the first stage that dropped it. This file knows the order of
the stages and nothing of how each decides.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pipeline.causes import cause
from pipeline.critics.panel import Panel
from pipeline.detection.clean import clean
from pipeline.detection.detectors import detect
from pipeline.engine.base import Engine
from pipeline.metrics import Margins
from pipeline.novelty import NoveltyIndex
from pipeline.params import GenParams, ResponseParams
from pipeline.prompting import (
    INSTRUCTION_STOP,
    Prompt,
    choose_examples,
    instruction_prompts,
    response_prompts,
    topic_hints,
)
from pipeline.seeds import derive
from pipeline.types import Completion, GenRequest, Sample, Sampling
from prompts.library import Example

SHORTEST_INSTRUCTION = 8
"""Characters; the shortest English question worth a row, "Who am I?", has nine."""


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """A fixed list of examples with fixed seeds: the unit of generation and payment."""

    stage: Literal["probe", "need", "pilot", "scale"]
    """Which part of the run it belongs to; no two of them share a seed."""
    round: int
    """The round whose parameters it uses."""
    number: int
    """Place among the micro-batches of its round or of scale, from 0."""
    first_index: int
    """Draw-order index of its first instruction."""
    rows: int
    """Responses wanted; ``ceil(rows * oversample)`` instructions are drawn for them."""
    seed: int
    """The run's seed."""

    @property
    def place(self) -> tuple[str | int, ...]:
        """Where its random choices are made."""
        return (self.stage, self.round, self.number)

    def row_seed(self, index: int, verb: str) -> int:
        """Seed of one row's draw."""
        return derive(self.seed, self.stage, self.round, index, verb)


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What one micro-batch made."""

    samples: tuple[Sample, ...]
    """Every instruction drawn, in draw order."""
    tokens: int
    """Tokens generated, instructions and responses."""


def drawn(rows: int, params: GenParams) -> int:
    """Instructions drawn for ``rows`` responses."""
    return math.ceil(rows * params.oversample)


def run_micro_batch(
    engine: Engine,
    batch: MicroBatch,
    params: GenParams,
    *,
    seen: NoveltyIndex,
    pool: Sequence[Example] = (),
    critics: Panel | None = None,
) -> BatchResult:
    """Write, answer and judge one micro-batch.

    Args:
        engine: The base model.
        batch: Which examples, with which seeds.
        params: The setting; both critics are named and both margins are numbers by now.
        seen: Instructions seen before; those of this batch are added.
        pool: Accepted rows that prompts may show as examples.
        critics: Critics to score with, the two that ``params`` names among them; None is
            those two alone, neither of them combined.

    Raises:
        EngineError: if the engine cannot do what was asked.
    """
    examples = choose_examples(params.fewshot, seed=batch.seed, place=batch.place, pool=pool)
    written, tokens = write(engine, batch, params, examples)
    parsed = [parse(sample, seen, examples) for sample in written]
    if critics is None:
        critics = Panel.naming(instruction=params.critic.instruction, pair=params.critic.pair)
    judged = _judge_instructions(engine, parsed, params, critics)
    chosen = [s for s in judged if s.dropped is None][: batch.rows]
    answered, more = answer(engine, batch, params.response, examples, chosen)
    final = {s.index: s for s in _judge_pairs(engine, answered, params, critics)}
    samples = (final.get(s.index, s) for s in judged)
    return BatchResult(tuple(replace(s, cause=cause(s)) for s in samples), tokens + more)


def write(
    engine: Engine, batch: MicroBatch, params: GenParams, examples: Sequence[Example]
) -> tuple[list[Sample], int]:
    """Draw the instructions of a micro-batch; the samples, and the tokens generated."""
    p, count = params.instruction, drawn(batch.rows, params)
    sampling = Sampling(
        p.temperature, p.max_new_tokens, p.top_p,
        repetition_penalty=p.repetition_penalty, stop=INSTRUCTION_STOP,
    )  # fmt: skip
    hinted = params.topics == "hints"
    hints = topic_hints(count, seed=batch.seed, place=batch.place) if hinted else [None] * count
    prompts = instruction_prompts(examples, hints=hints)
    indices = range(batch.first_index, batch.first_index + count)
    done = _complete(engine, batch, prompts, sampling, indices=indices, verb="instruction")
    samples = [
        Sample(i, c.text, dropped="parser" if c.finish_reason == "length" else None)
        for i, c in zip(indices, done, strict=True)
    ]
    return samples, sum(len(c.token_ids) for c in done)


def _complete(
    engine: Engine, batch: MicroBatch, prompts: Sequence[Prompt], sampling: Sampling,
    *, indices: Sequence[int], verb: str,
) -> list[Completion]:  # fmt: skip
    return engine.generate(
        [
            GenRequest(p.prefix, p.suffix, sampling, batch.row_seed(i, verb))
            for p, i in zip(prompts, indices, strict=True)
        ]
    )


def parse_instruction(completion: str) -> str | None:
    """The instruction in a completion, or None where there is none worth a row."""
    text = " ".join(completion.split())
    starts_scaffold = text.lower().startswith(("instruction:", "response:", "topic:"))
    if len(text) < SHORTEST_INSTRUCTION or starts_scaffold:
        return None
    return text


def parse(sample: Sample, seen: NoveltyIndex, examples: Sequence[Example]) -> Sample:
    """Find the instruction and compare it with all that were seen.

    An instruction cut by the token cap is lost; one that copies an example is no novelty.
    """
    if sample.dropped:
        return sample
    text = parse_instruction(sample.instruction_raw)
    if text is None:
        return replace(sample, dropped="parser")
    shown = NoveltyIndex(e.instruction for e in examples)
    novel = shown.add(text) and seen.add(text)
    return replace(sample, instruction=text, dropped=None if novel else "duplicate")


def _judge_instructions(
    engine: Engine, samples: Sequence[Sample], params: GenParams, critics: Panel
) -> list[Sample]:
    judged = [s for s in samples if s.dropped is None]
    scores = critics.score_instructions(engine, [s.instruction for s in judged])
    by_index = {s.index: found for s, found in zip(judged, scores, strict=True)}
    return [_with_scores(s, by_index.get(s.index), params) for s in samples]


def _with_scores(sample: Sample, scores: dict[str, float] | None, params: GenParams) -> Sample:
    critic = params.critic
    assert critic.instruction_margin is not None, "margins are set before the first row"
    if scores is None:
        return sample
    score = scores[critic.instruction]
    judged = replace(sample, instruction_score=score, instruction_scores=scores)
    accepted = Margins.of(critic).accepts_instruction(judged)
    return judged if accepted else replace(judged, dropped="instruction_critic")


def answer(
    engine: Engine, batch: MicroBatch, p: ResponseParams,
    examples: Sequence[Example], samples: Sequence[Sample],
) -> tuple[list[Sample], int]:  # fmt: skip
    """Answer, clean and flag; the samples, and the tokens generated."""
    if not samples:
        return [], 0
    sampling = Sampling(
        p.temperature, p.max_new_tokens, p.top_p,
        repetition_penalty=p.repetition_penalty, stop=p.stop,
    )  # fmt: skip
    prompts = response_prompts(examples, [s.instruction for s in samples])
    indices = [s.index for s in samples]
    done = _complete(engine, batch, prompts, sampling, indices=indices, verb="response")
    texts = [
        clean(c.text, stop=p.stop, instruction=s.instruction)
        for c, s in zip(done, samples, strict=True)
    ]
    counts = engine.count_tokens(texts)
    answered = [
        replace(
            s, raw=c.text, clean=text, clean_tokens=n,
            finish_reason=c.finish_reason, stop=c.stop, token_ids=c.token_ids,
            trimmed=c.trimmed, token_ends=None if batch.stage == "scale" else c.token_ends,
        )
        for s, c, text, n in zip(samples, done, texts, counts, strict=True)
    ]  # fmt: skip
    flagged = [replace(s, flags=detect(s, stop=p.stop)) for s in answered]
    return flagged, sum(len(c.token_ids) for c in done)


def _judge_pairs(
    engine: Engine, samples: Sequence[Sample], params: GenParams, critics: Panel
) -> list[Sample]:
    """Every response with text is scored, flagged ones too: acceptance is the critic's alone."""
    assert params.critic.pair_margin is not None, "margins are set before the first row"
    judged = [s for s in samples if s.clean]
    scores = critics.score_pairs(engine, [(s.instruction, s.clean or "") for s in judged])
    by_index = {s.index: found for s, found in zip(judged, scores, strict=True)}
    scored = [replace(s, pair_scores=by_index.get(s.index, {})) for s in samples]
    margins = Margins.of(params.critic)
    return [replace(s, dropped=_dropped(s, margins)) for s in scored]


def _dropped(sample: Sample, margins: Margins) -> str | None:
    if sample.flags:
        return "detector"
    return None if margins.accepts_pair(sample) else "pair_critic"
