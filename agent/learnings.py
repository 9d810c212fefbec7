"""The learnings report: everything a reviewer is told, as one text made from records.

A pure function of the round records: figures with their counts and intervals, what was changed and
what became of it, what stored rows know, samples as they are. Words are ``agent/told.py``'s, layout
is ``prompts/templates/learnings.md.j2``'s. The one idea: what the model or an earlier reviewer
wrote is data, between marks that no such text can hold, since they are made from all of it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from agent.best import base as base_of
from agent.best import compared
from agent.errors import ReviewerError
from agent.records import RoundRecord
from agent.report.critics import critic_words, fault_table
from agent.review_records import Track
from agent.reviewers.tariff import count_tokens
from agent.told import (
    candidate_rows,
    candidate_stops,
    distrusted,
    dollars,
    effects,
    figure,
    limits_text,
    metric_rows,
    parameter_rows,
    refused_text,
    replay_text,
    spend_facts,
    stop_rows,
    track_text,
    value_text,
)
from pipeline.causes import treated_by
from pipeline.metrics import METRICS
from pipeline.params import GenParams
from pipeline.types import Funnel
from prompts.render import fence, render_blocks

TEMPLATE: Final = "learnings.md.j2"
"""The report's template; its digest belongs into the record of a review."""
LADDER: Final = (
    "the kinds of fault that critics see",
    "random samples after the fifth",
    "flagged samples after the fifth",
    "certificates",
    "the smoke-test audit",
    "reviewers in other runs",
    "what ended the responses",
    "samples after the second of each kind",
    "earlier reviews",
    "effects of earlier changes",
    "all samples",
    "strings to stop at",
    "settings that stored rows answer for",
    "values of earlier rounds",
)
"""What is left out for room, the least informative part first."""
_BLOCKS: Final = {
    "critics": LADDER[0], "certificates": LADDER[3], "audit": LADDER[4], "tracks": LADDER[5],
    "ends": LADDER[6], "history": LADDER[8], "effects": LADDER[9], "samples": LADDER[10],
    "stops": LADDER[11], "candidates": LADDER[12],
}  # fmt: skip
"""Blocks of the template by what leaves them out; the others are the core."""
_SLACK: Final = 100
"""Tokens kept free, so that a digit more of dollars spent decides nothing."""
_TAG: Final = 16
_SAMPLE_CHARS: Final = 600
_INSTRUCTION_CHARS: Final = 300
_DIAGNOSIS_CHARS: Final = 1200
_REFUSED_CHARS: Final = 3200


@dataclass(frozen=True, slots=True)
class Terms:
    """What a report says beside the rounds."""

    limit_usd: float
    """The cap on everything."""
    confirmed_usd: float
    """What is posted so far."""
    max_changes: int
    """Changes that the guard applies at most."""
    rounds_left: int | None = None
    """Rounds that may still follow; None leaves it out."""
    run_id: str = ""
    """The run's name, which the marks around data are made from."""
    tracks: tuple[Track, ...] = ()
    """How reviewers did in other runs."""
    max_tokens: int | None = None
    """Tokens that the report may have; None sets no limit."""
    encoding: str | None = None
    """tiktoken's encoding that counts them; None counts UTF-8 bytes, which bound them."""


@dataclass(frozen=True, slots=True)
class Told:
    """A learnings report as it is sent."""

    text: str
    """All of it."""
    left_out: tuple[str, ...] = ()
    """What its token limit left no room for."""


def learnings(
    rounds: Sequence[RoundRecord], terms: Terms, *, left_out: tuple[str, ...] | None = None
) -> Told:
    """The report on the last of ``rounds``, with the earlier ones as its history.

    Args:
        rounds: Every round of the run so far, oldest first; at least one.
        terms: Money, limits, and who the report is for.
        left_out: What was left out when it was sent; None decides it now.

    Raises:
        ReviewerError: if not even its core fits.
    """
    assert rounds, "a learnings report needs a measured round"
    if left_out is None:
        left_out = _no_room(rounds, terms)
    return Told(_text(rounds, terms, left_out), left_out)


def _no_room(rounds: Sequence[RoundRecord], terms: Terms) -> tuple[str, ...]:
    """What must be left out, whatever the books say when it is sent."""
    if terms.max_tokens is None:
        return ()
    at_any_time = replace(terms, confirmed_usd=0.0)
    gone: tuple[str, ...] = ()
    least = _tokens(rounds, at_any_time, gone)
    for part in LADDER:
        if least > terms.max_tokens and _holds(rounds, at_any_time, gone, part):
            gone = (*gone, part)
            least = _tokens(rounds, at_any_time, gone)
    if least <= terms.max_tokens:
        return gone
    raise ReviewerError(
        f"the learnings report of round {rounds[-1].round} needs {least:,} tokens with all left "
        f"out that can be, and reviewer.max_report_tokens is {terms.max_tokens:,}: start a run "
        "with a higher one"
    )


def _tokens(rounds: Sequence[RoundRecord], terms: Terms, left_out: Sequence[str]) -> int:
    """Those that a report takes, with some kept free."""
    return count_tokens(_text(rounds, terms, left_out), terms.encoding) + _SLACK


def _holds(rounds: Sequence[RoundRecord], terms: Terms, left_out: Sequence[str], part: str) -> bool:
    """Whether a report that has ``left_out`` some still has this part, and it is not empty."""
    one, other = (_parts(rounds, terms, gone) for gone in (left_out, (*left_out, part)))
    return any(one[name] != other.get(name, "") for name in one if name != "head")


def _text(rounds: Sequence[RoundRecord], terms: Terms, left_out: Sequence[str]) -> str:
    return "".join(_parts(rounds, terms, left_out).values())


def _parts(rounds: Sequence[RoundRecord], terms: Terms, left_out: Sequence[str]) -> dict[str, str]:
    parts = render_blocks(TEMPLATE, **_values(rounds, terms, left_out))
    return {name: text for name, text in parts.items() if _BLOCKS.get(name) not in left_out}


def _values(rounds: Sequence[RoundRecord], terms: Terms, left_out: Sequence[str]) -> dict[str, Any]:
    now, base, tag = rounds[-1], base_of(rounds), _tag(rounds, terms.run_id)
    return {
        "now": now,
        "base": base,
        "worse": compared(now, base) if base.round != now.round else "",
        **distrusted(rounds),
        "metrics": metric_rows(rounds),
        "parameters": parameter_rows(rounds, base),
        "earlier": len(rounds) > 1 and LADDER[13] not in left_out,
        "effects": effects(rounds),
        "candidates": candidate_rows(now.candidates),
        "candidate_stops": candidate_stops(now.candidates),
        "stop_rows": stop_rows(now),
        "stages": [(field.name, now.funnel[field.name]) for field in fields(Funnel)],
        "fixed": _fixed(now.params),
        "faults": fault_table(now),
        "critics": critic_words(now),
        "samples": _samples(now, left_out),
        "reviews": [r for r in rounds if r.review is not None],
        "tracks": [track_text(track) for track in terms.tracks],
        "spend": spend_facts(rounds, limit_usd=terms.limit_usd, confirmed_usd=terms.confirmed_usd),
        "max_changes": terms.max_changes,
        "rounds_left": terms.rounds_left,
        "left_out": left_out,
        "tag": tag,
        "texts": lambda row: _data(_texts(row), tag),
        "diagnosis": lambda text: _data([fence(text, _DIAGNOSIS_CHARS)], tag),
        "refusals": lambda found: _data([fence(refused_text(found), _REFUSED_CHARS)], tag),
        "known": METRICS,
        "figure": figure,
        "dollars": dollars,
        "value": value_text,
        "limits": limits_text,
        "treated_by": treated_by,
        "replayed": replay_text,
    }


def _tag(rounds: Sequence[RoundRecord], run_id: str) -> str:
    """A mark that no text of a model or of a reviewer in the report holds."""
    now = rounds[-1]
    rows = (*now.random_samples, *now.flagged_samples)
    texts = [str(row[name]) for row in rows for name in ("instruction", "raw", "clean")]
    texts += [r.review.model_dump_json() for r in rounds if r.review is not None]
    everything = "\0".join((run_id, *texts))
    tag = hashlib.sha256(everything.encode("utf-8", "surrogatepass")).hexdigest()[:_TAG]
    while tag in everything:
        tag = hashlib.sha256(f"{tag}\0".encode()).hexdigest()[:_TAG]
    return tag


def _data(blocks: Sequence[str], tag: str) -> str:
    """Fenced texts between marks that none of them can hold."""
    return "\n".join((f"BEGIN DATA {tag}", *blocks, f"END DATA {tag}"))


def _texts(row: Mapping[str, Any]) -> list[str]:
    """A row's instruction and response; the cleaned one where it is another."""
    raw, clean = row["raw"] or "", row["clean"] or ""
    texts = [fence(row["instruction"], _INSTRUCTION_CHARS, "instruction")]
    texts.append(fence(raw, _SAMPLE_CHARS, "raw"))
    return texts if clean == raw else [*texts, fence(clean, _SAMPLE_CHARS, "cleaned")]


def _fixed(params: GenParams) -> dict[str, str]:
    """What no review can change, by dotted name."""
    return {"critic.instruction": params.critic.instruction, "critic.pair": params.critic.pair}


def _samples(
    record: RoundRecord, left_out: Sequence[str]
) -> list[tuple[str, tuple[dict[str, Any], ...]]]:
    """Rows by kind, as many as there is room for; a flagged one is shown once."""
    few = LADDER[7] in left_out
    random = record.random_samples[: 2 if few else 5 if LADDER[1] in left_out else None]
    shown = {row["index"] for row in random}
    flagged = tuple(row for row in record.flagged_samples if row["index"] not in shown)
    return [
        ("Answered rows, drawn at random", random),
        ("Flagged rows", flagged[: 2 if few else 5 if LADDER[2] in left_out else None]),
    ]
