"""Why a bad row is bad, read off its raw text, stop reason and cleaned text.

A cause names what could treat the row, so that a review does not raise a token cap for what a
cleaner cut. What was done about it is not known here. The one idea: the same detector on raw and
on cleaned text tells whether the model or a later stage did it.
"""

from dataclasses import replace
from typing import Final, Literal

from pipeline.detection.detectors import DETECTORS
from pipeline.types import Sample

Cause = Literal[
    "sampling", "stop_rule", "token_cap", "cleaner", "parser", "critic", "detector_suspect"
]

TREATED_BY: Final[dict[Cause, tuple[str, ...]]] = {
    "sampling": (
        "response.temperature", "response.top_p", "response.repetition_penalty",
        "instruction.temperature", "instruction.top_p", "instruction.repetition_penalty",
        "fewshot.set", "fewshot.count", "fewshot.rotation", "topics",
    ),
    "stop_rule": ("response.stop",),
    "token_cap": ("response.max_new_tokens",),
    "critic": (
        "critic.instruction_margin", "critic.pair_margin", "instruction.temperature",
        "instruction.top_p", "instruction.repetition_penalty",
    ),
    "parser": (
        "instruction.temperature", "instruction.top_p", "instruction.repetition_penalty",
        "instruction.max_new_tokens",
    ),
    "cleaner": (),
    "detector_suspect": (),
}  # fmt: skip
"""Parameters that can treat a cause; none for what is wrong with the measurement itself."""


def treated_by(cause: str) -> str:
    """What can treat a cause, in a phrase."""
    names = next((names for name, names in TREATED_BY.items() if name == cause), ())
    if names:
        return f"can be treated by {', '.join(names)}"
    return "no parameter treats it: the cleaner or a detector is at fault, so a metric is wrong"


def cause(sample: Sample) -> Cause | None:
    """The cause of a bad row; None for a good one, and for one that waits for an answer.

    sampling: the draw itself (repetition, an end of its own mid-sentence, a repeated instruction).
    stop_rule: nothing ended the answer where it should, or a stop string ended it too early.
    token_cap: the cap ended it. cleaner: the raw text was good. parser: no instruction was found.
    critic: a critic turned it down. detector_suspect: a flag that its texts do not bear out.
    """
    match sample.dropped:
        case "parser":
            return "parser"
        case "duplicate":
            return "sampling"
        case "instruction_critic":
            return "critic"
    if sample.flags:
        return _flagged(sample)
    return "critic" if sample.dropped == "pair_critic" else None


def _flagged(sample: Sample) -> Cause:
    flags = set(sample.flags)
    if "repetition" in flags:
        return "sampling"
    if "runaway" in flags:
        return "stop_rule"
    if "token_limit" in flags:
        return "token_cap"
    return _by_ending(sample, flags)


def _by_ending(sample: Sample, flags: set[str]) -> Cause:
    """Truncated, empty and leaking rows: was the raw text already so?"""
    raw_only = replace(sample, clean=(sample.raw or "").strip())
    made_by_cleaner = [f for f in flags if f in DETECTORS and not DETECTORS[f](raw_only)]
    if made_by_cleaner and raw_only.clean != (sample.clean or ""):
        return "cleaner"
    if made_by_cleaner and flags.isdisjoint({"delimiter_leak"}):
        return "detector_suspect"
    if "delimiter_leak" in flags:
        return "stop_rule"
    return "stop_rule" if sample.finish_reason == "stop" else "sampling"
