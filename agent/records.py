"""What a run remembers: typed records, and the folder that holds them.

Reports, learnings and the command line are functions of these records and of nothing else. The
models check what is read back from disk, so a damaged record is an error, not a wrong figure.
"""

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import model_validator

from agent.review_records import Candidate, Record, ReviewRecord, StopDryRun, Track
from pipeline.engine.base import Replan
from pipeline.params import GenParams
from pipeline.types import Certificate, Funnel, Metric, Sample


class AuditCheck(Record):
    """One question of the smoke-test audit."""

    name: Literal["answers", "stop_strings", "cleaner", "flagged"]
    """answers: are there enough to look at; stop_strings: do they fire; cleaner: does it cut good
    text; flagged: is the flagged share within reach of the thresholds."""
    passed: bool
    """Whether a second micro-batch may be bought."""
    found: str
    """What was seen, with counts."""


class SmokeAudit(Record):
    """The audit of a round's first micro-batch."""

    rows: int
    """Answered rows looked at."""
    passed: bool
    """All checks passed."""
    checks: tuple[AuditCheck, ...]
    """Each question and its answer."""
    flagged_ids: tuple[int, ...]
    """Indices of up to ten flagged rows, shown in the report."""


class Spend(Record):
    """What a stage or round cost."""

    engine_seconds: float = 0.0
    """Wall seconds of the engine."""
    engine_usd: float = 0.0
    """Dollars for them."""
    review_usd: float = 0.0
    """Dollars for reviews."""

    @property
    def total_usd(self) -> float:
        """Engine and reviews together."""
        return self.engine_usd + self.review_usd


class RoundRecord(Record):
    """One round: its parameters, what was measured, and what was decided."""

    round: int
    """1 for the unmodified baseline."""
    params: GenParams
    """The setting that was judged."""
    micro_batches: int
    """How many were bought."""
    tokens: int
    """Tokens generated, instructions and responses."""
    replans: tuple[dict[str, Any], ...] = ()
    """``pipeline.engine.base.Replan`` as JSON: batches made smaller when memory ran out."""
    metrics: tuple[dict[str, Any], ...]
    """``pipeline.types.Metric`` as JSON, in the order of the metric table."""
    funnel: dict[str, int]
    """``pipeline.types.Funnel`` as JSON."""
    certificates: tuple[dict[str, Any], ...]
    """``pipeline.types.Certificate`` as JSON."""
    critics: dict[str, Any] | None = None
    """``pipeline.critics.calibrate.Calibration.report``: which faults critics see, and which
    critics judge, at which margins; None if that was not recorded."""
    causes: dict[str, int]
    """Bad rows by cause."""
    stops: dict[str, int]
    """Responses by what ended them: each stop string, ``eos`` and ``length``."""
    response_tokens: tuple[int, ...]
    """Length in tokens of every response, as generated."""
    audit: SmokeAudit
    """The smoke test."""
    random_samples: tuple[dict[str, Any], ...]
    """Up to ten ``pipeline.types.Sample`` as JSON, drawn at random from the answered ones."""
    flagged_samples: tuple[dict[str, Any], ...]
    """Up to ten flagged ones, every flag represented while there is room."""
    forecast: dict[str, Any] | None
    """``pipeline.forecast.KeptForecast`` as JSON; None if unmeasured."""
    step: str
    """What the policy decided: REVIEW, APPROVE or a STOP_*."""
    reason: str
    """Why, in a sentence."""
    spend: Spend
    """What the round cost, its review included."""
    review: ReviewRecord | None = None
    """The review that followed, if one did."""
    candidates: tuple[Candidate, ...] = ()
    """What stored rows say of the obvious next settings; empty if the round is not reviewed."""
    stop_candidates: tuple[StopDryRun, ...] = ()
    """What stored rows say of each string that could end them."""
    replayed: bool = False
    """Whether it was measured on stored rows: it then bought nothing, and cost what its review
    did. Its rows are numbered anew."""

    @model_validator(mode="after")
    def _well_formed(self) -> "RoundRecord":
        """What stands here as plain JSON must be what the pipeline wrote."""
        try:
            for metric in self.metrics:
                Metric.from_json(metric)
            for certificate in self.certificates:
                Certificate(**certificate)
            for sample in (*self.random_samples, *self.flagged_samples):
                Sample.from_json(sample)
            for replan in self.replans:
                Replan(**replan)
            Funnel(**self.funnel)
        except TypeError as error:
            raise ValueError(f"not what was measured: {error}") from error
        return self

    def metric(self, name: str) -> dict[str, Any] | None:
        """The metric called ``name``, or None."""
        return next((m for m in self.metrics if m["name"] == name), None)


def pilots(rounds: Iterable[RoundRecord]) -> int:
    """How many of ``rounds`` were bought: limits and error rates are spent on these alone."""
    return sum(not record.replayed for record in rounds)


class RunRecord(Record):
    """What is known of a run as a whole."""

    run_id: str
    """Its name, and that of its folder."""
    created: str
    """ISO 8601, UTC."""
    version: str
    """Version of this program."""
    config: dict[str, Any]
    """The effective configuration as JSON."""
    config_digest: str
    """Its SHA-256."""
    engine: dict[str, Any] | None
    """``pipeline.types.EngineInfo`` as JSON; None before the model was loaded."""
    device_price_usd_per_hour: float | None
    """What an hour of the engine's device costs."""
    reviewer: str
    """``rules`` or ``llm:<model>``, and why it was chosen."""
    limit_usd: float
    """The cap."""
    confirmed_usd: float
    """Posted."""
    possible_usd: float
    """Posted and pending."""
    status: str
    """running, waiting, held, or how it ended."""
    reason: str
    """Why, in a sentence."""
    replans: tuple[dict[str, Any], ...] = ()
    """``pipeline.engine.base.Replan`` as JSON: batches made smaller when memory ran out before the
    first round; a round's stand in its own record."""
    need: dict[str, Any] | None = None
    """``pipeline.need.Need`` as JSON and the ``warning`` to acknowledge; None before the check."""
    tracks: tuple[Track, ...] = ()
    """How reviewers did in all other runs, as they stood when this one was begun."""
    plan: dict[str, Any] | None = None
    """The plan that waits for, or was given, approval, with its ``hash``, and under ``accept`` the
    options that a yes to it must carry."""
    dataset: dict[str, Any] | None = None
    """Counts, QC metrics and files of the published data set."""
