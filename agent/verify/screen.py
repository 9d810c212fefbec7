"""What ``verify`` prints: what differs in full and first, then every group in a line.

The one idea: a reader who sees one line sees the answer, and nobody has to scroll for what is
wrong.
"""

from agent.report.text import plural
from agent.screens import Screen, columns
from agent.verify.findings import GROUPS, Check, Verified
from prompts.render import plain

_MOST = 40
"""Differing files that are shown in full."""
_FEW = 3
"""Files that were left out for one reason and are named."""


def verdict(found: Verified) -> str:
    """The answer in a line."""
    every = len(found.differing) + len(found.verified)
    rest = f"; {len(found.left_out)} left out" if found.left_out else ""
    if found.differing:
        verb = "differs" if len(found.differing) == 1 else "differ"
        return f"{found.run_id}: {len(found.differing)} of {plural(every, 'check')} {verb}{rest}"
    return f"{found.run_id}: verified, {plural(every, 'check')}{rest}"


def screen(found: Verified) -> Screen:
    """All that was found, for people and for programs."""
    lines = [verdict(found), *_differing(found), "", *_groups(found)]
    for reason, checks in _reasons(found.left_out).items():
        more = f" and {len(checks) - _FEW} more" if len(checks) > _FEW else ""
        names = ", ".join(c.name for c in checks[:_FEW])
        lines.append(f"  left out: {names}{more}: {reason}")
    lines += [f"  seal: {found.seal}"] if found.seal else []
    lines += [f"  note: {note}" for note in found.notes]
    lines += [f"  not verifiable: {what}" for what in found.unverifiable]
    return Screen("\n".join(map(plain, lines)), found.to_json())


def _differing(found: Verified) -> list[str]:
    lines: list[str] = []
    for check in found.differing[:_MOST]:
        lines += ["", f"  {check.name} differs"]
        lines += [f"    {difference}" for difference in check.differences]
    more = len(found.differing) - _MOST
    return [*lines, "", f"  {more} more differ: see --json"] if more > 0 else lines


def _groups(found: Verified) -> list[str]:
    rows = []
    for group in GROUPS:
        mine = [c for c in found.checks if c.group == group]
        if mine:
            rows.append((group, _counts(mine)))
    return columns(rows) if rows else []


def _counts(checks: list[Check]) -> str:
    differing = sum(bool(c.differences) for c in checks)
    left = sum(bool(c.left_out) and not c.differences for c in checks)
    counts = {"ok": len(checks) - differing - left, "differ": differing, "left out": left}
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count)


def _reasons(checks: list[Check]) -> dict[str, list[Check]]:
    by_reason: dict[str, list[Check]] = {}
    for check in checks:
        by_reason.setdefault(check.left_out, []).append(check)
    return by_reason
