"""The open probe: a few responses with nothing to cut them, so that replay has something to cut.

Every parsed instruction is answered, repeated and poor ones too, without stop strings and under
twice the token cap; some are answered once more, far too hot, as bad rows that
critics must see. Judging them is left to others. The one idea: bought once, a row serves every
setting that only cuts or judges.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from pipeline.engine.base import Engine
from pipeline.generate import MicroBatch, answer, parse, write
from pipeline.novelty import NoveltyIndex
from pipeline.params import GenParams, ResponseParams
from pipeline.prompting import choose_examples
from pipeline.types import Sample

PROBE_ROWS: Final = 48
"""Instructions drawn for a probe."""
HOT: Final = 1.6
"""The temperature at which a small and a large base model alike lose the thread."""
HOT_ROWS: Final = 24
"""Responses drawn so hot, under half the cap: drawing one from so wide a nucleus costs three
times as much as another, and bad ones are told from good ones by their first words."""
_FEWEST_TOKENS, _MOST_TOKENS = 8, 1024
_OWN, _HEATED = 0, 1


@dataclass(frozen=True, slots=True)
class Probe:
    """What the open probe of a run made."""

    samples: tuple[Sample, ...]
    """Every instruction drawn, in draw order; every parsed one is answered."""
    hot: tuple[Sample, ...]
    """The first parsed ones with answers drawn at :data:`HOT`."""
    tokens: int
    """Tokens generated in all."""

    def to_json(self) -> dict[str, Any]:
        """A JSON object with every field."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Probe":
        """The probe that :meth:`to_json` wrote."""
        return cls(
            samples=tuple(map(Sample.from_json, value["samples"])),
            hot=tuple(map(Sample.from_json, value["hot"])),
            tokens=value["tokens"],
        )


def opened(response: ResponseParams) -> ResponseParams:
    """How the probe's responses are drawn: without stop strings, under twice the cap."""
    cap = min(_MOST_TOKENS, 2 * response.max_new_tokens)
    return response.model_copy(update={"stop": (), "max_new_tokens": cap})


def probe_params(params: GenParams) -> GenParams:
    """The setting that a probe of the baseline ``params`` was made with, for replay.

    It has no margins: nothing was left unanswered.
    """
    critic = params.critic.model_copy(update={"instruction_margin": None, "pair_margin": None})
    return params.model_copy(update={"response": opened(params.response), "critic": critic})


def heated(response: ResponseParams) -> ResponseParams:
    """How its hot responses are drawn."""
    cap = max(_FEWEST_TOKENS, response.max_new_tokens // 2)
    return response.model_copy(update={"temperature": HOT, "max_new_tokens": cap})


def run_probe(engine: Engine, params: GenParams, *, seed: int, rows: int = PROBE_ROWS) -> Probe:
    """Draw ``rows`` instructions, answer every parsed one openly, and the first ones hot too.

    Responses are cleaned and flagged; no critic has judged them. ``params`` are the baseline's,
    whose margins need not be known yet.

    Raises:
        EngineError: if the engine cannot do what was asked.
    """
    once = params.model_copy(update={"oversample": 1.0})
    batch = _batch(seed, rows, _OWN)
    examples = choose_examples(params.fewshot, seed=seed, place=batch.place)
    written, tokens = write(engine, batch, once, examples)
    seen = NoveltyIndex()
    samples = [parse(s, seen, examples) for s in written]
    parsed = [s for s in samples if s.parsed]
    own, more = answer(engine, batch, opened(params.response), examples, parsed)
    hot_batch, hot_params = _batch(seed, rows, _HEATED), heated(params.response)
    hot, most = answer(engine, hot_batch, hot_params, examples, parsed[:HOT_ROWS])
    by_index = {s.index: s for s in own}
    return Probe(
        samples=tuple(by_index.get(s.index, s) for s in samples),
        hot=tuple(hot),
        tokens=tokens + more + most,
    )


def _batch(seed: int, rows: int, number: int) -> MicroBatch:
    """Own seeds for both: as rounds 0 and 1 of a stage that is no other's."""
    return MicroBatch(
        stage="probe", round=number, number=number, first_index=0, rows=rows, seed=seed
    )
