"""One row of a report: what the engine returned, and what the cleaner made of it.

The texts stay raw here; the template fences them. The one idea: a reader sees at once what the
cleaner removed and why the response ended, so a wrong flag or an over-trimming shows.
"""

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.report.text import number
from pipeline.types import Sample


@dataclass(frozen=True, slots=True)
class SampleView:
    """A sample, ready for the template."""

    title: str
    """Index, fate, flags, cause and what ended it, safe in HTML."""
    instruction: str
    """The instruction, to be fenced."""
    raw: str
    """The raw response, to be fenced."""
    cleaned: str
    """What the cleaner did, in words."""
    clean: str
    """The cleaned response where it differs from the raw one, to be fenced; else empty."""


def sample_view(record: Mapping[str, Any]) -> SampleView:
    """The view of a stored sample."""
    sample = Sample.from_json(record)
    raw, clean = sample.raw or "", sample.clean or ""
    return SampleView(
        title=_title(sample),
        instruction=sample.instruction or sample.instruction_raw,
        raw=raw,
        cleaned=_cleaned(raw, clean),
        clean="" if clean == raw else clean,
    )


def _title(sample: Sample) -> str:
    fate = "kept" if sample.kept else f"dropped by the {(sample.dropped or 'pilot')}"
    flags = ", ".join(sample.flags) or "no flag"
    cause = f" · cause {sample.cause}" if sample.cause else ""
    parts = [f"Row {sample.index}", fate.replace("_", " "), flags + cause, _ending(sample)]
    scores = [f"{name} {score:.2f}" for name, score in sorted(sample.pair_scores.items())]
    return html.escape(" · ".join([*parts, *scores]))


def _ending(sample: Sample) -> str:
    count = f"after {number(len(sample.token_ids))} tokens"
    words = {"eos": "end token", "stop": "stop string", "length": "token cap"}
    reason = words.get(sample.finish_reason or "", "unknown end")
    return f"ended by {reason} {count}"


def _cleaned(raw: str, clean: str) -> str:
    if clean == raw:
        return "Cleaned: unchanged."
    if not clean:
        return f"Cleaned: nothing is left of {len(raw):,} characters."
    return f"Cleaned, {len(clean):,} of {len(raw):,} characters left:"
