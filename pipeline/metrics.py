"""The metric table: numbers over samples, each with its interval, certificate and verdict.

One definition of each metric, used by pilots, shards and re-checks alike. How counts become
verdicts is ``verdict.py``; what is bad in one row is ``detectors.py``. The one idea: a number
passes only when it was measured, its detector or critic is certified, and its test says so.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Final

from pipeline.forecast import KeptForecast
from pipeline.near_duplicates import NearDuplicates
from pipeline.params import CriticParams
from pipeline.types import Certificate, Funnel, Metric, Sample, Verdict
from pipeline.verdict import RateVerdict, confidence_sequence, judge_rate, judge_rate_at_least

FLAGGED: Final = ("runaway", "repetition", "token_limit", "truncated", "delimiter_leak", "empty")
"""Metrics that count a detector's flags among answered rows, in the order of the table."""
GATES: Final = (*FLAGGED, "instruction_acceptance", "pair_acceptance", "yield")
"""Metrics that must pass."""
SHOWN: Final = ("raw_acceptance", "duplicates", "near_duplicates", "median_tokens")
"""Metrics that are only shown."""
METRICS: Final = (*GATES, *SHOWN)
"""Every metric, in the order of the table."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What a rate must satisfy: exactly one of the two."""

    max: float | None = None
    """It must be below this."""
    min: float | None = None
    """It must be at least this."""

    def __post_init__(self) -> None:
        assert (self.max is None) != (self.min is None), "a bound has exactly one side"

    def __str__(self) -> str:
        return f"< {self.max:g}" if self.max is not None else f">= {self.min:g}"

    def judge(self, count: int, n: int, alpha: float) -> RateVerdict:
        """The verdict on ``count`` of ``n`` rows."""
        if self.max is not None:
            return judge_rate(count, n, limit=self.max, alpha=alpha)
        assert self.min is not None
        return judge_rate_at_least(count, n, limit=self.min, alpha=alpha)


@dataclass(frozen=True, slots=True)
class Margins:
    """What critics' scores must exceed for a row to be accepted."""

    instruction: float | None
    """Margin of the instruction critic in nats; None leaves acceptance unmeasured."""
    pair: float | None
    """Margin of the pair critic in nats."""
    pair_critic: str
    """Name of the pair critic that decides: ``label``, ``lift`` or ``combined``."""
    instruction_critic: str | None = None
    """Name of the instruction critic that decides; None takes the score that decided before."""

    @classmethod
    def of(cls, critic: CriticParams) -> "Margins":
        """The critics and margins of a setting."""
        return cls(critic.instruction_margin, critic.pair_margin, critic.pair, critic.instruction)

    def instruction_score(self, sample: Sample) -> float | None:
        """The score that decides about an instruction; None where it was not judged."""
        if self.instruction_critic is None:
            return sample.instruction_score
        return sample.instruction_scores.get(self.instruction_critic)

    def accepts_instruction(self, sample: Sample) -> bool:
        """Whether the instruction critic accepts; an unjudged one is not accepted."""
        score = self.instruction_score(sample)
        return score is not None and self.instruction is not None and score > self.instruction

    def accepts_pair(self, sample: Sample) -> bool:
        """Whether the pair critic accepts, whatever detectors say."""
        score = sample.pair_scores.get(self.pair_critic)
        return score is not None and self.pair is not None and score > self.pair


@dataclass(frozen=True, slots=True)
class Rules:
    """How samples are judged; nothing that a review can change but the margins."""

    thresholds: Mapping[str, Bound]
    """Bound of each gate by metric name."""
    certificates: Mapping[str, Certificate]
    """By metric name; a gate without one is uncertified."""
    alpha: float
    """Probability of a false PASS in this round; see ``verdict.alpha_for_round``."""
    margins: Margins = field(default_factory=lambda: Margins(None, None, "lift"))
    """Critics' margins."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What samples showed."""

    metrics: tuple[Metric, ...]
    """Every metric of the table, in its order."""
    funnel: Funnel
    """Rows at every stage."""

    def __getitem__(self, name: str) -> Metric:
        """The metric called ``name``."""
        return next(m for m in self.metrics if m.name == name)

    def verdicts(self) -> dict[str, Verdict]:
        """Verdict of every gate by name."""
        return {m.name: m.verdict for m in self.metrics if m.verdict is not None}


def measure(
    samples: Sequence[Sample], rules: Rules, *, wanted: int, forecast: KeptForecast | None = None
) -> Measurement:
    """Measure every metric of the table.

    Args:
        samples: Every instruction drawn, dropped ones too.
        rules: Thresholds, certificates, alpha and margins.
        wanted: Rows that were wanted.
        forecast: Forecast of kept rows; without it yield is unmeasured.
    """
    answered = [s for s in samples if s.answered]
    metrics = [_flag_metric(name, answered, rules) for name in FLAGGED]
    metrics += [
        _instruction_acceptance(samples, rules),
        _pair_acceptance(answered, rules),
        yield_metric(forecast),
        *_shown(samples, rules),
    ]
    return Measurement(tuple(metrics), funnel(samples, rules.margins, wanted=wanted))


def funnel(samples: Iterable[Sample], margins: Margins, *, wanted: int) -> Funnel:
    """Count the rows that survive each stage."""
    every = list(samples)
    parsed = [s for s in every if s.parsed]
    distinct = [s for s in parsed if s.dropped != "duplicate"]
    answered = [s for s in distinct if s.answered]
    return Funnel(
        generated=len(every),
        parsed=len(parsed),
        distinct=len(distinct),
        accepted=sum(s.answered or margins.accepts_instruction(s) for s in distinct),
        answered=len(answered),
        unflagged=sum(not s.flags for s in answered),
        kept=sum(s.kept for s in answered),
        wanted=wanted,
    )


def rate_metric(name: str, count: int | None, n: int, rules: Rules) -> Metric:
    """A gate from its count; None where it could not be measured."""
    bound, certificate = rules.thresholds.get(name), rules.certificates.get(name)
    threshold = None if bound is None else str(bound)
    if count is None or n == 0:
        reason = "not measured: no rows" if count is not None else "not measured"
        return unmeasured(name, reason, threshold=threshold)
    low, high = confidence_sequence(count, n, rules.alpha)
    verdict: Verdict | None = None
    reason, needed = "shown only", None
    if bound is not None and (certificate is None or not certificate.certified):
        why = "no certificate" if certificate is None else certificate.reason
        verdict, reason = "INSUFFICIENT", f"uncertified: {why}"
    elif bound is not None:
        result = bound.judge(count, n, rules.alpha)
        verdict, needed = result.verdict, result.rows_needed
        reason = _reason(result, count, n)
    return Metric(name, count / n, count, n, low, high, threshold, verdict, reason, needed)


def unmeasured(name: str, reason: str, *, threshold: str | None) -> Metric:
    """A metric without a value: INSUFFICIENT if it is a gate."""
    verdict: Verdict | None = "INSUFFICIENT" if name in GATES else None
    return Metric(name, None, None, 0, None, None, threshold, verdict, reason)


def yield_metric(forecast: KeptForecast | None) -> Metric:
    """The yield gate, from a forecast.

    PASS when its median reaches the target, FAIL when even its upper end does not.
    """
    if forecast is None:
        return unmeasured("yield", "not measured: no forecast", threshold=None)
    verdict: Verdict = "INSUFFICIENT"
    if forecast.expected >= forecast.target:
        verdict = "PASS"
    elif forecast.high < forecast.target:
        verdict = "FAIL"
    where = "" if forecast.within_validated_range else "; outside the validated range"
    reason = f"forecast for {forecast.attempts} attempts{where}"
    return Metric(
        "yield", forecast.expected, None, forecast.draws, forecast.low, forecast.high,
        f">= {forecast.target}", verdict, reason,
    )  # fmt: skip


def _flag_metric(name: str, answered: Sequence[Sample], rules: Rules) -> Metric:
    bad = sum(name in s.flags for s in answered)
    metric = rate_metric(name, bad, len(answered), rules)
    kept = sum(s.kept and name in s.flags for s in answered)
    return forbid_kept(metric, kept) if name == "delimiter_leak" else metric


def forbid_kept(metric: Metric, kept: int) -> Metric:
    """A metric that also fails when a bad row is among the kept ones."""
    if not kept or metric.reason.startswith("uncertified"):
        return metric
    return replace(metric, verdict="FAIL", reason=f"{kept} of the kept rows", rows_needed=None)


def _instruction_acceptance(samples: Sequence[Sample], rules: Rules) -> Metric:
    """Accepted of judged: a duplicate is dropped before the critic, so it is not counted."""
    judged = [s for s in samples if rules.margins.instruction_score(s) is not None]
    known = rules.margins.instruction is not None
    count = sum(map(rules.margins.accepts_instruction, judged)) if known else None
    return _acceptance("instruction_acceptance", count, len(judged), rules)


def _pair_acceptance(answered: Sequence[Sample], rules: Rules) -> Metric:
    """Accepted of answered, by the critic alone; an empty response has nothing to accept."""
    scored = any(rules.margins.pair_critic in s.pair_scores for s in answered)
    known = rules.margins.pair is not None and (scored or not answered)
    count = sum(map(rules.margins.accepts_pair, answered)) if known else None
    return _acceptance("pair_acceptance", count, len(answered), rules)


def _acceptance(name: str, count: int | None, n: int, rules: Rules) -> Metric:
    """Unmeasured by a critic that is not certified: its opinion is no rate of anything."""
    certificate, bound = rules.certificates.get(name), rules.thresholds.get(name)
    if certificate is None or certificate.certified:
        return rate_metric(name, count, n, rules)
    threshold = None if bound is None else str(bound)
    return unmeasured(name, f"uncertified: {certificate.reason}", threshold=threshold)


def _raw_acceptance(samples: Sequence[Sample], kept: int, rules: Rules) -> Metric:
    """Kept of drawn, where both critics that decide what is kept may be believed."""
    for name in ("instruction_acceptance", "pair_acceptance"):
        certificate = rules.certificates.get(name)
        if certificate is not None and not certificate.certified:
            why = f"uncertified: {certificate.reason}"
            return unmeasured("raw_acceptance", why, threshold=None)
    return rate_metric("raw_acceptance", kept, len(samples), Rules({}, {}, rules.alpha))


def _shown(samples: Sequence[Sample], rules: Rules) -> list[Metric]:
    free = Rules({}, {}, rules.alpha)
    parsed = [s for s in samples if s.parsed]
    kept = [s for s in samples if s.kept]
    repeats = sum(s.dropped == "duplicate" for s in parsed)
    return [
        _raw_acceptance(samples, len(kept), rules),
        rate_metric("duplicates", repeats, len(parsed), free),
        rate_metric("near_duplicates", _near(parsed), len(parsed), free),
        _median_tokens(kept),
    ]


def _near(parsed: Sequence[Sample]) -> int:
    """Instructions much like an earlier one; exact repeats are counted apart."""
    index = NearDuplicates()
    return sum(index.add(s.instruction) for s in parsed if s.dropped != "duplicate")


def _median_tokens(kept: Sequence[Sample]) -> Metric:
    counts = [s.clean_tokens for s in kept if s.clean_tokens is not None]
    if not counts or len(counts) < len(kept):
        return unmeasured("median_tokens", "not measured", threshold=None)
    value = float(median(counts))
    return Metric("median_tokens", value, None, len(counts), None, None, None, None, "shown only")


def _reason(result: RateVerdict, count: int, n: int) -> str:
    seen = f"{count} of {n}"
    match result.verdict:
        case "PASS":
            return f"{seen}: evidence {result.e_pass:.3g} to 1 for it"
        case "FAIL":
            return f"{seen}: evidence {result.e_fail:.3g} to 1 against it"
        case "INSUFFICIENT" if result.rows_needed is None:
            return f"{seen}: too close to the limit to tell"
    return f"{seen}: about {result.rows_needed} more rows at this rate would tell"
