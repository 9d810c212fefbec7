"""Audits of the metrics that a reviewer holds to be measured wrongly: on stored rows, for $0.

What a control audit is belongs to the pipeline (``own_plants.py``, ``halves.py``); what follows
from one is ``certificates`` in ``preflight.py``, a withdrawn metric is uncertified from then on,
and ``agent/policy.py``, whose run ends, since no round can pass without it.
The one idea: distrust can only take a certificate away, so that nobody passes a gate by it; and it
takes it away only where controls say so.
"""

from collections.abc import Sequence
from typing import Final

from agent.archive import Bought
from agent.records import RoundRecord
from agent.review_records import MetricAudit
from agent.stages.judges import calibration
from agent.stages.stored import ask, sources
from pipeline.critics.halves import judge_by_halves
from pipeline.critics.scores import SUBJECTS
from pipeline.detection.own_plants import FEWEST, certify_again, is_refuted, own_pairs
from pipeline.metrics import METRICS
from pipeline.seeds import derive

_DETECTED: Final = frozenset({"runaway", "repetition", "truncated", "delimiter_leak", "empty"})
"""Metrics whose faults can be planted; the others are counted."""
_LONGEST: Final = 64


def audit_metrics(
    bought: Bought, record: RoundRecord, distrusted: Sequence[str]
) -> tuple[MetricAudit, ...]:
    """What becomes of each metric in ``distrusted``, once each, after the round of ``record``."""
    return tuple(_audit(bought, record, n) for n in dict.fromkeys(n[:_LONGEST] for n in distrusted))


def _audit(bought: Bought, record: RoundRecord, name: str) -> MetricAudit:
    if name not in METRICS:
        return _unaudited(name, "there is no metric of this name")
    metric = record.metric(name)
    if metric is not None and str(metric["reason"]).startswith("uncertified"):
        return _unaudited(name, "it is uncertified already, and decides nothing")
    if name in _DETECTED:
        return _detector(bought, record, name)
    for subject in SUBJECTS:
        if name == f"{subject}_acceptance":
            good, bad, source = calibration(bought).judged_by(
                subject, getattr(record.params.critic, subject)
            )
            return _critic(name, good, bad, source, bought.config.critic.max_false_accept)
    return _unaudited(name, "it is counted, and there is no fault to plant")


def _detector(bought: Bought, record: RoundRecord, name: str) -> MetricAudit:
    """Its certificate again, from faults planted in this run's own answers at this setting."""
    found = ask(sources(bought, before=record.round + 1), record.params)
    seed = derive(bought.config.pilot.seed, "audit", record.round, name)
    pairs = own_pairs(found.rows.samples, seed=seed)
    minimum = bought.config.certificates.minimum
    again = certify_again(name, pairs, record.params.response.stop, minimum=minimum)
    if not pairs or again.positives < FEWEST:
        return _unaudited(
            name, f"{again.positives} faults could be planted in {len(pairs)} answers without a "
            f"flag; {FEWEST} are needed",
        )  # fmt: skip
    caught = round((again.sensitivity or 0.0) * again.positives)
    spared = round((again.specificity or 0.0) * again.negatives)
    told = (
        f"caught {caught} of {again.positives} faults planted in {len(pairs)} answers of this run "
        f"(sensitivity {again.sensitivity:.2f}, at most {again.sensitivity_high:.3f}), spared "
        f"{spared} of {again.negatives} good answers; {minimum:g} needed"
    )
    refuted = is_refuted(again, minimum=minimum)
    return MetricAudit(metric=name, outcome="withdrawn" if refuted else "stands", found=told)


def _critic(
    name: str, good: Sequence[float], bad: Sequence[float], source: str, most: float
) -> MetricAudit:
    """Whether margins from its controls hold on controls that they were not set on."""
    halves = judge_by_halves(good, bad, max_false_accept=most)
    if halves is None:
        return _unaudited(name, f"half of its {len(bad)} bad controls is too few for a margin")
    told = (
        f"margins from one half of its controls ({source}) accept {halves.bad_accepted} of "
        f"{halves.bad} bad and {halves.good_accepted} of {halves.good} good ones of the other; "
        f"{most:.0%} of bad ones allowed"
    )
    outcome = "withdrawn" if halves.refutes(most) else "stands"
    return MetricAudit(metric=name, outcome=outcome, found=told)


def _unaudited(name: str, why: str) -> MetricAudit:
    return MetricAudit(metric=name, outcome="not audited", found=why)
