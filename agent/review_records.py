"""What a run remembers of its reviews: proposed, refused, applied, foretold, and what came of it.

The one idea: whatever a reviewer said or caused is kept beside what the program made of it, so that
reviewers can be held to account by anybody, in this run and over runs.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.params import GenParams


class Record(BaseModel):
    """Checked when it is read back: a damaged record is an error, not a wrong figure."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Prediction(Record):
    """What a change is expected to do, registered before its trial."""

    metric: str
    """Name of the metric in the metric table."""
    low: float
    """The metric's value next round is expected to be at least this,"""
    high: float
    """and at most this."""
    probability: float = Field(ge=0, le=1)
    """How likely the reviewer holds that to be, 0 to 1."""


class Change(Record):
    """One parameter set to one value."""

    parameter: str
    """Dotted name from the closed list."""
    value: Any
    """The value it is to take."""
    reason: str
    """Why, in a sentence."""


class Review(Record):
    """A reviewer's typed answer to one learnings report."""

    diagnosis: str
    """What is wrong, and what causes it."""
    changes: tuple[Change, ...]
    """What to change; empty means change nothing."""
    predictions: tuple[Prediction, ...]
    """What the changes are expected to do."""
    distrusted_metrics: tuple[str, ...] = ()
    """Metrics that the reviewer holds to be measured wrongly."""
    confidence: float
    """0 to 1."""
    stop: bool = False
    """Ends the run: no setting within bounds is expected to pass."""


class Applied(Record):
    """A change as it was applied."""

    parameter: str
    """Dotted name."""
    before: Any
    """Value before."""
    after: Any
    """Value after."""
    reason: str
    """The reviewer's reason."""


class Refused(Record):
    """A change that the guard did not apply."""

    parameter: str
    """What the reviewer called it, cut to 64 characters."""
    value: str
    """``repr`` of the value asked for, cut to 64 characters."""
    why: str
    """Why it was refused."""


class Outcome(Record):
    """A prediction, after its trial."""

    prediction: Prediction
    """What was expected."""
    actual: float | None
    """The metric in the next round; None if it was not measured."""
    hit: bool | None
    """Whether it fell within the interval; None if it was not scored."""
    score: float | None = None
    """Brier score, (probability - hit)^2: 0 is best, 0.25 says nothing, 1 is worst; None if it was
    not measured, could not fail, or was foretold twice."""


class Replay(Record):
    """What stored rows say of a setting before a pilot is bought for it, at no cost."""

    params: GenParams
    """The setting."""
    sources: tuple[str, ...]
    """Which stored rows were used; empty where none could be."""
    refused: dict[str, tuple[str, ...]]
    """By the others: each parameter that needs generation, and why."""
    rows: int
    """Answered rows as they would have been,"""
    changed: int
    """of which so many end elsewhere than they did,"""
    unscored: int
    """and so many have a text that no critic has seen."""
    metrics: tuple[dict[str, Any], ...]
    """``pipeline.types.Metric`` as JSON, measured on them; empty without rows."""
    bought: bool
    """Whether a pilot was bought for the setting."""

    @property
    def failed(self) -> tuple[str, ...]:
        """Gates that fail."""
        return tuple(m["name"] for m in self.metrics if m["verdict"] == "FAIL")


class Candidate(Record):
    """An obvious setting near a round's own, as stored rows answer for it at no cost."""

    changes: dict[str, Any]
    """What it has otherwise than the round: dotted names with their values."""
    rows: int
    """Answered rows as they would have been,"""
    changed: int
    """of which so many end elsewhere than they did,"""
    unscored: int
    """and so many have a text that no critic has seen."""
    values: dict[str, float | None]
    """Each gate's value, and that of ``raw_acceptance``; None where it is not measured."""
    verdicts: dict[str, str]
    """Each gate's verdict."""


class StopDryRun(Record):
    """What one string would do to stored raw rows as a stop string."""

    stop: str
    """The string."""
    ended: int
    """Flagged rows that it would have ended,"""
    flagged: int
    """of so many."""
    cut: int
    """Good rows that it would have cut,"""
    good: int
    """of so many."""


class Baseline(Record):
    """What the built-in rules would have done in a reviewer's place."""

    review: Review
    """Their answer."""
    applied: tuple[Applied, ...]
    """What the guard would have let through."""
    refused: tuple[Refused, ...] = ()
    """What it would not."""


class MetricAudit(Record):
    """What became of a reviewer's distrust of one metric."""

    metric: str
    """Its name."""
    outcome: Literal["stands", "withdrawn", "not audited"]
    """stands: controls do not refute it, on this run's own rows; withdrawn: they do, so it decides
    nothing from now on; not audited: there is nothing to audit, or to audit with."""
    found: str
    """With which figures, or why not."""


class Track(Record):
    """How one reviewer's predictions came out, in one run or over several."""

    reviewer: str
    """``rules``, ``bayes`` or ``llm:<model>``."""
    runs: int
    """Runs that it reviewed."""
    reviews: int
    """Reviews in them."""
    predictions: int
    """Predictions that were measured,"""
    hits: int
    """and those that held."""
    claimed: float | None
    """Mean probability that it gave them; None if none was measured."""
    brier: float | None
    """Mean Brier score; None if none was measured."""
    reverted: int
    """Reviews whose outcome was significantly worse, and was undone."""
    cost_usd: float
    """Dollars for its reviews."""


class ReviewRecord(Record):
    """One review, from what was sent to what it did."""

    reviewer: str
    """``rules``, or ``llm:<model>``."""
    review: Review
    """The validated answer."""
    applied: tuple[Applied, ...]
    """What the guard let through."""
    refused: tuple[Refused, ...]
    """What it did not."""
    cost_usd: float
    """Dollars posted for its requests, those of failed tries included."""
    requests: int
    """Requests of it in the ledger, refused and failed ones included."""
    learnings_path: str
    """What it was sent, byte for byte, relative to the run directory."""
    outcomes: tuple[Outcome, ...] = ()
    """Filled when the next round has been measured."""
    replay: Replay | None = None
    """What stored rows said of the setting that it led to; None before they were asked."""
    base: int | None = None
    """The earlier round whose setting its changes apply to, since the reviewed one was
    significantly worse and is undone; None if they apply to the reviewed one."""
    baseline: Baseline | None = None
    """What the rules would have done; None if they were the reviewer."""
    audits: tuple[MetricAudit, ...] = ()
    """One for each metric that the reviewer distrusts."""
    at_most_usd: float | None = None
    """The most that its first request could cost, shown before it was sent; None if free."""
    left_out: tuple[str, ...] = ()
    """Parts of the learnings report that its token limit left no room for."""
