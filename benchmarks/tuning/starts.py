"""Five bad settings to start from, and the configuration that every cell of the comparison shares.

Each start is one good setting with one thing spoilt: the shipped parameters with stop strings and
room for an answer. The one idea: gates, prices, limits and the largest step are the same for all
tuners, and they are the shipped ones.
"""

from collections.abc import Mapping
from typing import Any, Final

from agent.config import RunConfig
from agent.reviewers.markers import DEFAULT_STOPS
from pipeline.params import GenParams

LIMIT_ROWS: Final = 2000
"""Answered rows that a tuner may use."""
MOST_ROUNDS: Final = 50
"""Rounds that it may buy: as many as a configuration can allow."""
EXAMPLES: Final = 10
"""Rows that are wanted in the end,"""
ATTEMPTS_FACTOR: Final = 100.0
"""within so many attempts for each: so easy that the forecast's gate does not decide."""
GOOD: Final = GenParams().replace({"response.stop": DEFAULT_STOPS, "response.max_new_tokens": 100})
"""The setting that the starts spoil."""


STARTS: Final[Mapping[str, tuple[str, GenParams]]] = {
    "no-stops": ("no stop strings, cap 80", GenParams()),
    "low-cap": ("response cap 16", GOOD.replace({"response.max_new_tokens": 16})),
    "cold": (
        "responses at temperature 0.2, repetition penalty 1.3",
        GOOD.replace({"response.temperature": 0.2, "response.repetition_penalty": 1.3}),
    ),
    "hot": ("responses at temperature 1.6", GOOD.replace({"response.temperature": 1.6})),
    "margin": (
        "instruction margin 9 nats, which rejects everything",
        GOOD.replace({"critic.instruction_margin": 9.0}),
    ),
}
"""Each start in words, and as a setting."""


def config(start: str, *, seed: int, engine: str, reviewer: Mapping[str, Any]) -> RunConfig:
    """The configuration of one cell."""
    return RunConfig.model_validate(
        {
            "engine": {"kind": engine},
            "parameters": STARTS[start][1].model_dump(),
            "pilot": {"seed": seed, "max_rounds": MOST_ROUNDS},
            "scale": {"examples": EXAMPLES, "max_attempts_factor": ATTEMPTS_FACTOR},
            **reviewer,
        }
    )
