"""What stored rows said of proposed settings, before a pilot was bought for them, in words.

How they are asked is ``agent/stages/replaying.py``'s work. The one idea: a replayed round is named
as one wherever rounds stand side by side, since it cost nothing and measured less.
"""

from collections.abc import Sequence

from agent.records import RoundRecord
from agent.report.text import code, escape, plural, sentence, table, threshold_of, value_of
from agent.review_records import Replay
from pipeline.types import Metric


def round_title(record: RoundRecord) -> str:
    """``Round 3``, or ``Round 3 (replayed)``."""
    return f"Round {record.round}" + (" (replayed)" if record.replayed else "")


def replay_words(replay: Replay | None) -> str:
    """What a replay said, and what came of it; empty where none was made."""
    if replay is None:
        return ""
    refused = "; ".join(
        f"{escape(name)}: {', '.join(code(r.partition(':')[0]) for r in reasons)}"
        for name, reasons in replay.refused.items()
    )
    if not replay.sources:
        return (
            f"No stored rows could answer for this setting, so a pilot was bought. It needs "
            f"generation by {refused}."
        )
    decided = "no pilot was bought" if not replay.bought else "a pilot was bought"
    why = f"fails: {', '.join(replay.failed)}" if replay.failed else "no gate fails on them"
    words = (
        f"On {plural(replay.rows, 'stored response')} ({escape(', '.join(replay.sources))}), of "
        f"which {replay.changed} would have ended elsewhere, {why}; **{decided}**."
    )
    if replay.unscored:
        words += f" {plural(replay.unscored, 'changed text')} had no critic's score any more."
    return words + (f" Other rows could not answer: {refused}." if refused else "")


def replay_table(replay: Replay | None) -> str:
    """The gates as replay measured them; empty where none was made."""
    gates = [m for m in map(Metric.from_json, replay.metrics if replay else ()) if m.verdict]
    rows = [
        [escape(m.name), value_of(m), threshold_of(m), str(m.verdict), sentence(m.reason)]
        for m in gates
    ]
    return table(["Gate", "Replayed", "Target", "Verdict", "Why"], rows, "lrr") if rows else ""


def replayed_summary(record: RoundRecord) -> str:
    """The summary of a replayed round's size: nothing was bought."""
    return (
        f"Replayed: {plural(record.funnel['answered'], 'stored response')} cut and judged as this "
        "setting would have had them. Nothing was generated for it; only its review cost anything."
    )


def rounds_in_words(rounds: Sequence[RoundRecord]) -> str:
    """How many rounds there were, and how many of them were replayed."""
    replayed = sum(r.replayed for r in rounds)
    return plural(len(rounds), "round") + (f" ({replayed} replayed)" if replayed else "")
