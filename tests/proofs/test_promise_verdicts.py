"""P16: pass or fail is code's alone: the reviewer's words move no verdict.

One exception, towards caution: a metric that is named as distrusted is audited, and if its controls
refute it, it is withdrawn and passes nothing any more (``tests/test_metric_audit.py``).
"""

from collections import Counter
from typing import Any

from forked import forks
from hostile_runs import STOPS

CHANGES: list[list[dict[str, Any]]] = [
    [{"response.stop": STOPS}, {"response.max_new_tokens": 100, "topics": "hints"}],
    [{"response.temperature": 0.2}, {"response.stop": STOPS, "fewshot.rotation": "rotate"}],
    [{"response.stop": STOPS, "response.max_new_tokens": 40}, {"response.max_new_tokens": 80}],
    [{"instruction.temperature": 1.0, "response.stop": STOPS[:1]}, {"response.stop": STOPS}],
]
"""What reviewers propose, whatever they say of it."""


def test_a_judgement_does_not_read_reviews(effort: Any, figure: Any) -> None:
    """Rounds are judged again, and settings replayed again, under other words of their reviews."""
    pairs, share = effort(sample=6, proof=1_000, soak=10_000), 50
    asked = [{"first": n, "pairs": min(share, pairs - n)} for n in range(0, pairs, share)]
    found = forks().call("judged_again:judge", asked)
    judged = [pair for answer in found for pair in answer]
    differ = [pair for pair in judged if pair["differ"]]
    assert len(judged) == pairs and differ == []
    steps = Counter(pair["step"] for pair in judged)
    assert len(steps) > 1, "verdicts that are all the same could not differ"
    verdicts = sum(pair["verdicts"] for pair in judged)
    figure(
        "P16",
        f"{pairs:,} judgements of stored rounds with the words of every earlier review swapped: "
        f"{len(differ)} of {verdicts:,} verdicts and {len(differ)} decisions differ ("
        + ", ".join(f"{count:,} {step}" for step, count in sorted(steps.items()))
        + ")",
    )


def test_whole_runs_end_the_same_whatever_the_reviewer_says(effort: Any, figure: Any) -> None:
    pairs = effort(sample=1, proof=20, soak=200)
    quiet = [{"changes": changes, "words": None} for changes in CHANGES[:pairs]]
    loud = [{"changes": CHANGES[n % len(CHANGES)], "words": n} for n in range(pairs)]
    found = forks().call("hostile_runs:run", [*quiet, *loud])
    before, after = found[: len(quiet)], found[len(quiet) :]
    differ, verdicts, words = [], 0, set()
    for number, run in enumerate(after):
        same = before[number % len(CHANGES)]
        if judged(run) != judged(same) or run["status"] != same["status"]:
            differ.append((number, judged(same), judged(run)))
        verdicts += sum(m["verdict"] is not None for r in run["rounds"] for m in r["metrics"])
        words |= {r["review"]["review"]["diagnosis"] for r in run["rounds"] if r["review"]}
    assert differ == []
    assert len(words) > pairs // 4 and all(len(run["rounds"]) > 1 for run in found)
    figure(
        "P16",
        f"{pairs} whole runs beside the same changes in other words: {len(differ)} of "
        f"{verdicts:,} verdicts differ, every round ended with the same decision",
    )


def judged(run: dict[str, Any]) -> list[Any]:
    """What code decided, round by round; a review is compared by what it changed only."""
    kept = ("params", "metrics", "certificates", "causes", "funnel", "forecast", "step", "replayed")
    return [[record[name] for name in kept] for record in run["rounds"]]
