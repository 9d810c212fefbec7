"""The need: whether the base model already answers instructions without any examples.

If it does, data that it writes from examples has little to teach it. People's instructions are
answered twice with one setting, after the few-shot examples and after none, and the pair critic
judges both. Whether that critic may be believed is the caller's to know. The one idea: the two
rates are of the same instructions under the same seeds, so their gap is what the examples do.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from pipeline.critics.panel import Panel
from pipeline.engine.base import Engine
from pipeline.generate import MicroBatch, answer
from pipeline.good_pairs import good_pairs
from pipeline.novelty import normalise
from pipeline.params import GenParams
from pipeline.prompting import choose_examples
from pipeline.seeds import rng
from pipeline.types import Sample
from pipeline.verdict import clopper_pearson, wilson
from prompts.library import Example, fewshot_set

ASKED: Final = 60
"""Instructions that are answered in both ways."""
NEXT_TASK: Final = ("\nInstruction:",)
"""Ends answers where the setting has no stop strings: the cleaner would cut there too, and what
follows would be paid for."""
_FEW: Final = 0.5
"""Acceptance with examples that must be possible for a gap to mean anything."""
_MISS: Final = 0.1
"""Chance that an interval misses: 90 % intervals."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What was accepted of one way to answer."""

    count: int
    """Accepted responses."""
    of: int
    """Instructions asked."""
    low: float
    """Lower end of the share's 90 % interval (Clopper-Pearson)."""
    high: float
    """Upper end."""

    @property
    def rate(self) -> float:
        """The share."""
        return self.count / self.of


@dataclass(frozen=True, slots=True)
class Need:
    """Acceptance with and without examples."""

    without: Accepted | None
    """Without examples; None where no critic may be believed."""
    examples: Accepted | None
    """With the few-shot examples."""
    gap: float | None
    """How much more is accepted with examples."""
    gap_low: float | None
    """Lower end of the gap's 90 % interval (Newcombe 1998, method 10)."""
    gap_high: float | None
    """Upper end."""
    critic: str
    """The pair critic that judged."""
    reason: str
    """Why it is unmeasured; empty if it is not."""

    def warning(self, min_gap: float) -> str:
        """What a person must acknowledge before scale.

        Empty where the gap's interval lies at or above ``min_gap``: the data is shown to be needed.
        """
        if self.gap is None or self.gap_low is None or self.examples is None:
            return self.describe()
        if self.examples.high < _FEW:
            return (
                f"{self.describe()}; the {self.critic} critic accepts few answers either way, "
                "which says nothing of whether the data is needed"
            )
        if self.gap_low >= min_gap:
            return ""
        short = "is wanted" if self.gap < min_gap else "is wanted, and its interval reaches below"
        return f"{self.describe()}; at least {min_gap:.0%} {short}, for the data to be needed"

    def describe(self) -> str:
        """In a sentence."""
        if self.without is None or self.examples is None or self.gap is None:
            return f"the need was not measured: {self.reason}"
        return (
            f"without examples {_share(self.without)} of the answers are accepted, with examples "
            f"{_share(self.examples)}: a gap of {self.gap:.1%} "
            f"(90 %: {self.gap_low:.1%} to {self.gap_high:.1%})"
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON object with every field."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Need":
        """The need that :meth:`to_json` wrote."""
        ways = {w: Accepted(**value[w]) if value[w] else None for w in ("without", "examples")}
        return cls(**{**value, **ways})


def unmeasured_need(critic: str, reason: str) -> Need:
    """The need where no critic may be believed."""
    return Need(None, None, None, None, None, critic, reason)


def measure_need(
    engine: Engine, params: GenParams, critics: Panel, *, seed: int, asked: int = ASKED
) -> Need:
    """Answer a fixed sample of people's instructions in both ways, and judge the answers.

    Args:
        engine: The base model.
        params: The baseline with its margins.
        critics: They score pairs with the critic that ``params`` name.
        seed: What the rows' seeds derive from.
        asked: Instructions asked.
    """
    instructions = sample_instructions(asked)
    shown = choose_examples(params.fewshot, seed=seed, place=("need",))
    without, examples = (
        _accepted(_answers(engine, params, ways, instructions, seed), params, engine, critics)
        for ways in ((), shown)
    )
    low, high = gap_interval(examples, without, alpha=_MISS)
    gap = examples.rate - without.rate
    return Need(without, examples, gap, low, high, params.critic.pair, "")


def sample_instructions(asked: int) -> list[str]:
    """Instructions of good pairs that stand in no few-shot set, the same in every run."""
    shown = {normalise(e.instruction) for name in ("core", "wide") for e in fewshot_set(name)}
    free = [p.instruction for p in good_pairs() if normalise(p.instruction) not in shown]
    return rng(0, "need").sample(free, min(asked, len(free)))


def gap_interval(more: Accepted, less: Accepted, *, alpha: float) -> tuple[float, float]:
    """The interval of a difference of two shares, by Newcombe's hybrid score.

    It takes the shares as independent; answers to the same instructions go together, which makes
    it rather too wide than too narrow.
    """
    low_more, high_more = wilson(more.count, more.of, alpha)
    low_less, high_less = wilson(less.count, less.of, alpha)
    gap = more.rate - less.rate
    low = gap - math.hypot(more.rate - low_more, high_less - less.rate)
    return low, gap + math.hypot(high_more - more.rate, less.rate - low_less)


def _answers(
    engine: Engine,
    params: GenParams,
    examples: Sequence[Example],
    instructions: Sequence[str],
    seed: int,
) -> list[Sample]:
    batch = MicroBatch("need", 0, 0, 0, len(instructions), seed)
    asked = [Sample(i, text, text) for i, text in enumerate(instructions)]
    stop = params.response.stop or NEXT_TASK
    response = params.response.model_copy(update={"stop": stop})
    answered, _ = answer(engine, batch, response, examples, asked)
    return answered


def _accepted(
    samples: Sequence[Sample], params: GenParams, engine: Engine, critics: Panel
) -> Accepted:
    """Of all that were asked: an empty response is one that is not accepted."""
    margin = params.critic.pair_margin
    assert margin is not None, "margins are set before the need is measured"
    judged = [(s.instruction, s.clean) for s in samples if s.clean]
    scores = critics.score_pairs(engine, judged)
    count = sum(found[params.critic.pair] > margin for found in scores)
    return Accepted(count, len(samples), *clopper_pearson(count, len(samples), _MISS))


def _share(accepted: Accepted) -> str:
    return f"{accepted.count} of {accepted.of} ({accepted.low:.0%} to {accepted.high:.0%})"
