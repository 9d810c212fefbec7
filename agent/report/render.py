"""Reports for people: one Markdown file a round, one for the run, and their pictures.

Pure functions of the records; writing the files is left to the caller, and what the reviewer reads
to ``learnings.py``. The one idea: every figure is a field of a record or a quotient of two, so the
same records always give the same bytes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from agent.records import RoundRecord, RunRecord
from agent.report import facts, steps, tables
from agent.report.candidates import candidate_table, stop_string_table
from agent.report.config import config_block
from agent.report.critics import critic_words, fault_table
from agent.report.findings import applied_to, learnings
from agent.report.insights import insights, normalised
from agent.report.money import cost_table, totals
from agent.report.replays import (
    replay_table,
    replay_words,
    replayed_summary,
    round_title,
    rounds_in_words,
)
from agent.report.reviews import advice_words, review_table, review_view
from agent.report.samples import sample_view
from agent.report.text import dollars, escape, minutes, number, plural, sentence, share, table
from pipeline.engine.base import Replan
from pipeline.params import GenParams
from prompts.render import render

QUESTIONS: Final = {
    "answers": "Are there enough answers to look at?",
    "stop_strings": "Are the stop strings firing?",
    "cleaner": "Does the cleaner leave good text alone?",
    "flagged": "Is the flagged share within reach of the thresholds?",
}
"""What each check of the smoke test asks."""


def round_report(rounds: Sequence[RoundRecord], run: RunRecord) -> str:
    """The report of the last of ``rounds``, which begin with round 1, in Markdown."""
    record, before = rounds[-1], rounds[-2] if len(rounds) > 1 else None
    return render(
        "round.md.j2",
        **_over_rounds(rounds, run),
        record=record,
        summary=_round_summary(record, run),
        metrics=tables.metric_table(record),
        causes=tables.cause_table(record, before),
        stops=tables.stop_table(record),
        certificates=tables.certificate_table(record),
        critics=critic_words(record),
        faults=fault_table(record),
        candidates=candidate_table(record),
        stop_candidates=stop_string_table(record),
        review=review_view(rounds),
        replay=replay_words(record.review.replay) if record.review else "",
        replay_table=replay_table(record.review.replay) if record.review else "",
        phase=steps.phase(record),
        if_it_passes=steps.if_it_passes(rounds, run),
        if_it_fails=steps.if_it_fails(rounds, run),
        after_stop=steps.after_stop(record),
        audit=_audit_table(record, before),
        flagged=[sample_view(s) for s in record.flagged_samples],
        random=[sample_view(s) for s in record.random_samples],
        funnel=tables.funnel_table(record.funnel),
    )


def run_report(rounds: Sequence[RoundRecord], run: RunRecord) -> str:
    """The report of the whole run, in Markdown."""
    shared = _over_rounds(rounds, run) if rounds else {"run": run, "totals": totals(run)}
    return render(
        "run.md.j2",
        **shared,
        rounds=rounds,
        summary=_run_summary(rounds, run),
        trajectory=[_trajectory(r) for r in rounds],
        commands=steps.commands(run),
        plan=facts.plan_table(run.plan),
        dataset=facts.dataset_tables(run.dataset),
        provenance=facts.provenance(run),
    )


def render_all(run: RunRecord, rounds: Sequence[RoundRecord]) -> dict[str, str | bytes]:
    """Every report file of a run by its name relative to the run's folder, pictures included."""
    from agent.report.plots import metrics_over_rounds, spend, token_lengths

    files: dict[str, str | bytes] = {"report.md": run_report(rounds, run)}
    for count, record in enumerate(rounds, start=1):
        files[round_name(record.round)] = round_report(rounds[:count], run)
        files[tokens_name(record.round)] = token_lengths(record)
    if rounds:
        files["plots/metrics.png"] = metrics_over_rounds(rounds)
        files["plots/spend.png"] = spend(rounds, run)
    return files


def round_name(number: int) -> str:
    """File name of a round's report."""
    return f"round-{number:02d}.md"


def tokens_name(number: int) -> str:
    """File name of a round's picture of response lengths."""
    return f"plots/tokens-{number:02d}.png"


def next_params(rounds: Sequence[RoundRecord]) -> GenParams:
    """The setting that follows the last of ``rounds``, with the applied changes.

    It is the round's own one, or that of the round which its review went back to.
    """
    record = rounds[-1]
    applied = record.review.applied if record.review else ()
    return applied_to(rounds, record).params.replace({c.parameter: c.after for c in applied})


def _over_rounds(rounds: Sequence[RoundRecord], run: RunRecord) -> dict[str, Any]:
    """What round report and run report share."""
    record = rounds[-1]
    following = next_params(rounds)
    return {
        "run": run,
        "iterations": tables.iteration_table(rounds),
        "left_out": max(0, len(rounds) - tables.WIDEST),
        "parameters": tables.parameter_table(rounds, following, title=_title(record)),
        "constant": tables.constant_parameters(rounds, following),
        "learnings": learnings(rounds),
        "reviews": review_table(rounds),
        "config": config_block(following, record.params),
        "config_intro": _config_intro(record, following),
        "costs": cost_table(rounds, run),
        "totals": totals(run),
        "need": facts.need_words(run.need),
        "forecast": facts.forecast_words(record.forecast),
        "insights": insights(rounds, run),
        "tokens_picture": tokens_name(record.round),
    }


def _round_summary(record: RoundRecord, run: RunRecord) -> str:
    kept, wanted, spent = record.funnel["kept"], record.funnel["wanted"], record.spend
    decided = f"**{escape(record.step)}**: {sentence(record.reason)}\n\n"
    if record.replayed:
        return decided + replayed_summary(record)
    return (
        f"{decided}{number(kept)} of {number(wanted)} wanted rows kept, from "
        f"{plural(record.micro_batches, 'micro-batch')} in "
        f"{minutes(spent.engine_seconds)}, for {dollars(spent.total_usd)} "
        f"({share(spent.total_usd, run.limit_usd)} of the cap).{_replans(record.replans)}"
    )


def _replans(replans: Sequence[Mapping[str, Any]], when: str = "") -> str:
    found = [Replan(**replan) for replan in replans]
    if not found:
        return ""
    sizes = ", then ".join(f"{number(r.before)} to {number(r.after)} rows" for r in found)
    return (
        f"\n\nMemory ran out{when}, and the engine's batch went from {sizes}: "
        f"{sentence(found[-1].cause)}"
    )


def _run_summary(rounds: Sequence[RoundRecord], run: RunRecord) -> str:
    bought = [r for r in rounds if not r.replayed]
    answered = sum(r.funnel["answered"] for r in bought)
    kept = sum(r.funnel["kept"] for r in bought)
    return (
        f"**{escape(run.status)}**: {sentence(run.reason)}\n\n"
        f"{rounds_in_words(rounds)}, {plural(answered, 'answered row')}, "
        f"{number(kept)} kept. {totals(run)}\n\n"
        f"Reviewer: {sentence(run.reviewer)}{_replans(run.replans, ' before the first round')}"
    )


def _trajectory(record: RoundRecord) -> str:
    failed = [m.name for m in tables.metrics_of(record) if m.verdict == "FAIL"]
    words = f"failed {', '.join(failed)}" if failed else "no gate failed"
    changes = advice_words(record.review) if record.review else ""
    then = f"; then {changes}" if changes else ""
    link = f"[{round_title(record)}]({round_name(record.round)})"
    return f"{link}, **{escape(record.step)}**: {words}{then}."


def _base(record: RoundRecord) -> int | None:
    return record.review.base if record.review else None


def _title(record: RoundRecord) -> str:
    """What the column of the following setting is called."""
    if steps.phase(record) == "open":
        return f"Round {record.round + 1} (next)"
    return "Not tried" if _base(record) is None else f"Back to round {_base(record)}"


def _config_intro(record: RoundRecord, following: GenParams) -> str:
    phase = steps.phase(record)
    if phase == "passed":
        return "The setting that passed, unchanged; copy it into budget.yaml to start from it."
    if following == record.params:
        return "Nothing is changed: this is the setting of this round."
    if phase == "open":
        return f"For round {record.round + 1}; copy it into budget.yaml to start a run from there."
    if _base(record) is not None and not (record.review and record.review.applied):
        return (
            f"Nothing follows. This is the setting of round {_base(record)}, which did "
            "significantly better than the last one."
        )
    return "The run ended before these changes were tried."


def _audit_table(record: RoundRecord, before: RoundRecord | None) -> str:
    rows = [
        [QUESTIONS[c.name], "✅ passed" if c.passed else "❌ failed", escape(c.found)]
        for c in record.audit.checks
    ]
    rows.append(["Did failing metrics normalise?", "", normalised(record, before)])
    return table(["Question", "Check", "Found"], rows)
