"""What ``reviewers`` prints: a line for each reviewer, and which runs do not count.

Counting is ``agent/tracks.py``'s, judging ``agent/report/calibration.py``'s.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from agent.index import NAME
from agent.paths import check_reports
from agent.report.calibration import judgement, score
from agent.report.text import dollars, percent, plural, share
from agent.review_records import Track
from agent.screens import Screen, columns
from agent.tracks import Tracks, tracks
from prompts.render import plain

_HEADER: Final = (
    "reviewer", "runs", "reviews", "measured", "held", "claimed", "Brier", "undone", "cost",
    "judgement",
)  # fmt: skip
_FEW: Final = 10
"""Skipped runs that are named."""


def reviewers(root: Path, *, rebuild: bool = False) -> Screen:
    """Every reviewer's record over the runs of a reports folder.

    Raises:
        RunError: if ``root`` cannot be a folder.
    """
    found = tracks(check_reports(root), rebuild=rebuild)
    data = {
        "reports": str(root),
        "runs": found.runs,
        "skipped": found.skipped,
        "note": found.note,
        "reviewers": [
            track.model_dump(mode="json") | {"judgement": judgement(track)}
            for track in found.by_reviewer
        ],
    }
    return Screen("\n".join(map(plain, _lines(str(root), found))), data)


def _lines(root: str, found: Tracks) -> list[str]:
    lines = [_summary(root, found)]
    if found.by_reviewer:
        lines += ["", *columns([_HEADER, *map(_row, found.by_reviewer)])]
    if found.skipped:
        lines += ["", *_skipped(found.skipped)]
    return [*lines, *([f"note: {NAME}: {found.note}"] if found.note else [])]


def _summary(root: str, found: Tracks) -> str:
    if not found.runs:
        return f"there is no run in {root!r} yet; start one with: run --budget USD"
    if not found.by_reviewer:
        return f"{plural(found.runs, 'run')} in {root!r}: none was reviewed"
    return f"{plural(found.runs, 'run')} in {root!r}"


def _row(track: Track) -> tuple[str, ...]:
    return (
        " ".join(track.reviewer[:60].split()),
        f"{track.runs:,}",
        f"{track.reviews:,}",
        f"{track.predictions:,}",
        share(track.hits, track.predictions),
        percent(track.claimed),
        score(track.brier),
        f"{track.reverted:,}",
        dollars(track.cost_usd),
        judgement(track),
    )


def _skipped(skipped: Mapping[str, str]) -> list[str]:
    named = [f"  {run_id}: {why}" for run_id, why in list(skipped.items())[:_FEW]]
    more = [f"  and {len(skipped) - _FEW} more: see --json"] if len(skipped) > _FEW else []
    return [f"{plural(len(skipped), 'run')} not counted:", *named, *more]
