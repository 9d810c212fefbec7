"""Merge: from the samples of scale to a data set that says what it is worth.

QC over the union is computed again, by the pilot's own code, over everything that was attempted.
A union that fails is written too, under a name that says so.
"""

from dataclasses import dataclass, replace
from typing import Any

from agent.money.amounts import micro_to_usd
from agent.money.approval import Plan
from agent.policy import Decision, Step
from agent.report.text import dollars, interval_of, value_of
from agent.session import Session, program_version
from agent.stages.measuring import rules
from pipeline.dataset import Cut, write_dataset, write_manifest
from pipeline.metrics import Measurement, measure
from pipeline.novelty import NoveltyIndex
from pipeline.types import Metric, Sample


def publish(session: Session, approval: str, reason: str) -> Decision:
    """Merge, check the union, and publish; asked again after a crash, it does the same again.

    Raises:
        StorageError: if the disk refuses; nothing half-written is published.
    """
    session.meter.release()
    plan = session.approvals.approved_plan(approval)
    every = deduplicated(session.read_committed(plan).samples)
    union = measure(every, rules(session, plan.params, round_=1), wanted=plan.examples)
    rows = min(union.funnel.kept, plan.examples)
    verdict = _verdict(union)
    name = "dataset" if verdict.published else "dataset-unverified"
    facts = _facts(session, plan, approval, union) | {
        "rows": rows,
        "qc": verdict.words,
        "stopped": reason,
    }
    _write(session, name, every, facts, published=verdict.published)
    session.note("running", "the data set is written", dataset=facts | {"folder": name})
    session.close_envelope(approval)
    where = f"{rows} rows in {name}/"
    if not verdict.published:
        return Decision(Step.DONE_UNVERIFIED, f"{where}; QC over the union {verdict.words}")
    if rows < plan.examples:
        return Decision(Step.DONE_SHORT, f"{where}, {plan.examples} were wanted: {reason}")
    return Decision(Step.DONE, f"{where}; {reason}; QC over the union {verdict.words}")


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What QC over the union came to."""

    published: bool
    """No gate failed."""
    words: str
    """The same for people, with the gates that failed or are undecided."""


def _verdict(union: Measurement) -> _Verdict:
    """What QC over the union says; gates of a forecast have no place in it."""
    gates = [m for m in union.metrics if m.verdict is not None and m.name != "yield"]
    failed = [f"{m.name} {m.value:.1%}" for m in gates if m.verdict == "FAIL"]
    if failed:
        return _Verdict(False, f"failed: {', '.join(failed)}")
    undecided = [m.name for m in gates if m.verdict != "PASS"]
    if not undecided:
        return _Verdict(True, f"passed: all {len(gates)} gates")
    passed = f"{len(gates) - len(undecided)} of {len(gates)} gates passed"
    few = f"{union.funnel.answered} rows are too few for {', '.join(undecided)}"
    return _Verdict(True, f"did not fail; {passed}, {few}")


def deduplicated(samples: list[Sample]) -> list[Sample]:
    """The samples, with every kept row whose instruction stands earlier marked a duplicate.

    Instructions are compared before they are answered, so this finds something only if that
    failed; a data set never rests on one check.
    """
    seen = NoveltyIndex()
    return [
        replace(s, dropped="duplicate") if s.kept and not seen.add(s.instruction) else s
        for s in samples
    ]


def _write(
    session: Session, name: str, every: list[Sample], facts: dict[str, Any], *, published: bool
) -> None:
    """Write into a folder beside, then give it its name in one step."""
    cut = Cut(rows=session.config.scale.shard_rows, target=facts["wanted"])
    with session.store.replacing_folder(name) as folder:
        files = write_dataset(
            folder, every, cut=cut, card=_card(session, facts) | {"published": published}
        )
        write_manifest(folder, files, facts)


def _facts(session: Session, plan: Plan, approval: str, union: Measurement) -> dict[str, Any]:
    funnel = union.funnel
    return {
        "run_id": session.run_id,
        "version": program_version(),
        "plan": plan.hash,
        "approval": approval,
        "wanted": plan.examples,
        "attempts": funnel.generated,
        "funnel": funnel.to_json(),
        "metrics": [m.to_json() for m in union.metrics],
        "params": plan.params.model_dump(mode="json"),
        "model": plan.model,
        "model_digest": plan.model_digest,
        "prompts_digest": plan.prompts_digest,
        "forecast": plan.rows.model_dump(mode="json"),
    }


def _card(session: Session, facts: dict[str, Any]) -> dict[str, Any]:
    import yaml

    rows = int(facts["rows"])
    totals = session.ledger.totals()
    spent = sum(s.confirmed for s in session.ledger.by_stage() if s.stage == "scale")
    return {
        "run_id": facts["run_id"],
        "version": facts["version"],
        "plan_hash": facts["plan"],
        "rows": rows,
        "attempts": facts["attempts"],
        "funnel": facts["funnel"],
        "metrics": [_shown(Metric.from_json(m)) for m in facts["metrics"] if m["n"]],
        "params": facts["params"],
        "params_yaml": yaml.safe_dump(facts["params"], sort_keys=False, allow_unicode=True),
        "engine": session.store.load_run().engine or {},
        "qc": facts["qc"],
        "stopped": facts["stopped"],
        "cost": dollars(micro_to_usd(spent)),
        "run_cost": dollars(totals.confirmed_usd),
        "size_category": size_category(rows),
    }


def _shown(metric: Metric) -> dict[str, Any]:
    counts = "" if metric.count is None else f"{metric.count}/{metric.n}"
    return metric.to_json() | {
        "shown": value_of(metric), "interval": interval_of(metric), "counts": counts,
    }  # fmt: skip


def size_category(rows: int) -> str:
    """The dataset hub's name for a number of rows."""
    steps = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"))
    return next((name for limit, name in steps if rows < limit), "100K<n<1M")
