"""What stored rows know of a remedy before it is proposed: it costs nothing to look.

A record holds what they say of the obvious next settings and of strings to stop at. Choosing among
remedies is left to ``remedies.py``. The one idea: what already fails on stored rows is not
proposed, and what nothing is known of is no worse for that.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from agent.review_records import Candidate
from agent.reviewers.evidence import Evidence
from agent.reviewers.markers import Row, proposed_stops, share_ended

_CAP = "response.max_new_tokens"


def stops_to_add(e: Evidence, rows: Sequence[Row]) -> dict[str, Any]:
    """The stop strings with those that ``rows`` or all stored rows ask for; empty if none is."""
    now = e.params.response.stop
    stops = proposed_stops(now, rows, e.good, runs=e.dry_runs)
    return {} if set(stops) == set(now) else {"response.stop": list(stops)}


def refuted(e: Evidence, changes: Mapping[str, Any], gate: str | None = None) -> bool:
    """Whether on stored rows the changes fail ``gate``, or another one that passes now."""
    known = _known(e, changes)
    failed = {name for name, said in known.verdicts.items() if said == "FAIL"} if known else set()
    return gate in failed or any(e.passes(name) for name in failed)


def left_running(e: Evidence, rows: Sequence[Row], stops: Mapping[str, Any]) -> tuple[float, str]:
    """The share of responses that still run on with ``stops``, and in words why they are added."""
    known = _known(e, stops)
    value = None if known is None else known.values["runaway"]
    if known is not None and value is not None:
        return value, f"on {known.rows} stored rows {value:.1%} still run on with these"
    ended = share_ended(rows, stops["response.stop"])
    # One unexplained row in ten is a lower share than it looks when only ten were shown.
    rest = e.rate("runaway") * (1 - ended if ended is not None else 0.05)
    seen = f"{ended:.0%} of {len(rows)} shown run-ons" if ended is not None else "run-ons"
    return rest, f"{seen} would have ended at one of these"


def best_cap(e: Evidence, stops: Mapping[str, Any]) -> Candidate | None:
    """The lowest cap that stored rows hit half as often as is allowed, else the one hit least.

    With the stop strings in ``stops``. None where nothing is known, or nothing known is better.
    """
    limit, now = e.limit("token_limit"), e.params.response.max_new_tokens
    found = []
    for known in e.record.candidates:
        cap, value = known.changes.get(_CAP, now), known.values["token_limit"]
        rest = {name: to for name, to in known.changes.items() if name != _CAP}
        if rest == stops and cap >= now and value is not None and value < e.rate("token_limit"):
            found.append((value if value > limit / 2 else 0.0, cap, known))
    better = [entry for entry in found if not refuted(e, entry[2].changes)]
    return min(better, key=lambda entry: entry[:2])[2] if better else None


def _known(e: Evidence, changes: Mapping[str, Any]) -> Candidate | None:
    return next((c for c in e.record.candidates if c.changes == changes), None)
