"""What to do next: the exact commands, and what follows if the next round passes or fails.

The policy decides; here its decision, the rounds and the money left become a list for a person.
"""

from collections.abc import Sequence
from statistics import mean
from typing import Final, Literal

from agent.policy import Step
from agent.records import RoundRecord, RunRecord, pilots
from agent.report.text import dollars, plural, share

Phase = Literal["passed", "stopped", "open"]
RESTART: Final = "Copy the configuration above into budget.yaml"
STOPPED: Final[dict[Step, str]] = {
    Step.STOP_BUDGET: f"{RESTART}, raise `budget.limit_usd`, and start a run.",
    Step.STOP_ROUNDS: f"{RESTART}, raise `pilot.max_rounds`, and start a run.",
    Step.STOP_REVIEWER: "Read the diagnosis and the flagged rows: the reviewer expects no setting "
    "within bounds to pass. Another model, or other thresholds, are a person's decision.",
    Step.STOP_NO_CHANGE: "Read the refused changes, what stored rows said of the others, and the "
    "metrics that are not measured or not certified: no parameter that may be tuned was left to "
    "change with a prospect of passing.",
}
"""What a person can do after each planned ending of the search."""


def phase(record: RoundRecord) -> Phase:
    """Whether a round passed, ended the run, or is followed by another one."""
    if record.step == Step.APPROVE:
        return "passed"
    return "stopped" if _stop(record) else "open"


def _stop(record: RoundRecord) -> Step | None:
    if record.step in STOPPED:
        return Step(record.step)
    if record.review is None:
        return None
    if record.review.review.stop:
        return Step.STOP_REVIEWER
    return None if record.review.applied else Step.STOP_NO_CHANGE


def commands(run: RunRecord) -> list[str]:
    """The commands that carry the run on from its status, most likely first."""
    base = "python -m agent"
    if run.status == "waiting":
        return [
            f"{base} approve {run.run_id} {_which(run)}",
            f"{base} plan {run.run_id} --examples {_examples(run)}",
            f"{base} reject {run.run_id} --reason '...'",
        ]
    if run.status in {"running", "held"}:
        return [f"{base} resume {run.run_id}", f"{base} status {run.run_id}"]
    return [f"{base} report {run.run_id}", f"{base} ledger {run.run_id}"]


def after_stop(record: RoundRecord) -> list[str]:
    """What a person can do after a round that ended the run."""
    stop = _stop(record)
    return [STOPPED[stop]] if stop else []


def if_it_passes(rounds: Sequence[RoundRecord], run: RunRecord) -> list[str]:
    """What follows if the next round passes, or what approval starts if this one did."""
    plan = f"`python -m agent plan {run.run_id} --examples {_examples(run)}`"
    approve = f"`python -m agent approve {run.run_id} {_which(run)}`"
    pause = "The run pauses: nothing more is bought before a person approves a plan."
    if rounds[-1].step == Step.APPROVE:
        return [
            pause,
            f"{approve} starts exactly that plan.",
            f"{plan} offers one of another size.",
        ]
    return [pause, f"{plan} prints a plan, its highest cost and its hash.", f"{approve} starts it."]


def if_it_fails(rounds: Sequence[RoundRecord], run: RunRecord) -> list[str]:
    """What follows if the next round fails: rounds and money left, and what to look at."""
    left = _rounds_left(rounds, run)
    lines = [_means(rounds, run, left)]
    if left:
        lines.append("The reviewer is sent what became of its predictions, and is asked again.")
    else:
        lines.append(STOPPED[Step.STOP_ROUNDS])
    untreated = {"cleaner", "detector_suspect"} & {c for c, n in rounds[-1].causes.items() if n}
    if untreated:
        lines.append(
            f"Read the flagged rows: no parameter treats the causes {', '.join(sorted(untreated))}."
        )
    return lines


def _means(rounds: Sequence[RoundRecord], run: RunRecord, left: int) -> str:
    money = max(0.0, run.limit_usd - run.possible_usd)
    typical = mean(r.spend.total_usd for r in rounds if not r.replayed)
    cost = f"; a round has cost {dollars(typical)} on average" if typical else ""
    return (
        f"{plural(left, 'round')} would be left after it, of the "
        f"{dollars(money)} ({share(money, run.limit_usd)}) that remain now{cost}."
    )


def _rounds_left(rounds: Sequence[RoundRecord], run: RunRecord) -> int:
    most = run.config.get("pilot", {}).get("max_rounds", 0)
    return max(0, int(most) - pilots(rounds) - 1)


def _which(run: RunRecord) -> str:
    """The options that name the plan, and what a yes to it must acknowledge.

    A plan that is not made yet is acknowledged when it is read.
    """
    plan = run.plan or {}
    return " ".join(("--plan", plan.get("hash", "HASH"), *plan.get("accept", ())))


def _examples(run: RunRecord) -> int:
    planned = (run.plan or {}).get("examples")
    return int(planned or run.config.get("scale", {}).get("examples", 15_000))
