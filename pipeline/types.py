"""Values that cross borders between the rooms: requests, completions, samples, metrics.

Frozen dataclasses, small and typed; unmeasured is ``None``, never 0 and never NaN. What is read
from or written to disk goes through ``to_json`` / ``from_json`` and nothing else.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

FinishReason = Literal["eos", "stop", "length"]
Verdict = Literal["PASS", "FAIL", "INSUFFICIENT"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one row is drawn: repetition penalty, then temperature, top-k, top-p, min-p."""

    temperature: float
    """Softmax temperature; 0 is greedy."""
    max_new_tokens: int
    """Token cap, at least 1."""
    top_p: float = 1.0
    """Nucleus mass in (0, 1]."""
    top_k: int = 0
    """Keep only the k likeliest tokens; 0 keeps all."""
    min_p: float = 0.0
    """Drop tokens below this share of the likeliest one's probability."""
    repetition_penalty: float = 1.0
    """CTRL's penalty over prompt and generated tokens; 1 is off."""
    stop: tuple[str, ...] = ()
    """Stop strings, matched on decoded text across token borders, and trimmed."""


@dataclass(frozen=True, slots=True)
class GenRequest:
    """One text to continue."""

    prefix: str
    """What the rows of a batch share (few-shot examples); may be empty."""
    suffix: str
    """What is this row's own. The prompt is ``prefix + suffix``, tokenised as the engine states."""
    sampling: Sampling
    """How to draw it."""
    seed: int
    """The row's own seed; its draw does not depend on its neighbours."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What an engine returned for one :class:`GenRequest`."""

    text: str
    """Decoded text up to the stop string or the end token, neither included."""
    token_ids: tuple[int, ...]
    """Generated ids, up to the point of the stop."""
    finish_reason: FinishReason
    """Why it ended."""
    stop: str | None = None
    """Which stop string fired, when ``finish_reason`` is ``stop``."""
    trimmed: str = ""
    """What was cut off: the stop string and what followed it in its last token, or at the cap half
    a character."""
    token_ends: tuple[int, ...] | None = None
    """For each token, how much of ``text + trimmed`` is certain once it is drawn, in characters;
    None where the engine cannot tell."""


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Continuations whose log-probability after one prompt is wanted."""

    prefix: str
    """What the requests of a batch share."""
    suffix: str
    """What is this request's own."""
    continuations: tuple[str, ...]
    """Texts to score after ``prefix + suffix``, each on its own."""


@dataclass(frozen=True, slots=True)
class Score:
    """Log-probability of one continuation."""

    logprob: float
    """Sum over its tokens, in nats."""
    tokens: int
    """How many tokens it has, at least 1."""

    @property
    def mean(self) -> float:
        """Nats per token."""
        return self.logprob / self.tokens


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine is; part of every record, so that a result names what made it."""

    kind: str
    """hf, server or scripted."""
    model: str
    """Name or path of the model."""
    digest: str
    """SHA-256 of its weights, or of whatever identifies them."""
    device: str
    """cpu, cuda:0, or the server's address."""
    dtype: str
    """float32, bfloat16, int8, nf4, or as the server says."""
    tokenizer: str
    """Name of the tokenizer that token counts are in."""
    context: int
    """Longest prompt plus completion, in tokens."""
    special_tokens: tuple[str, ...] = ()
    """Every special token of the tokenizer, BOS included."""
    bos: str | None = None
    """The model's own begin-of-sequence token."""
    batch_size: int | None = None
    """Rows in one forward pass; None where that is not ours to choose."""
    scores: Literal["any", "labels"] = "any"
    """What it can score: any continuation, or only labels that are a likely next token."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One instruction on its way to a row of the data set, with all that happened to it.

    Stages fill it from top to bottom; what a stage has not reached is ``None``.
    """

    index: int
    """Place in draw order within its round or data set; with the run id it makes the seeds."""
    instruction_raw: str
    """The instruction completion as the engine returned it."""
    instruction: str = ""
    """Parsed and cleaned; empty when ``dropped`` says parser."""
    instruction_score: float | None = None
    """Score of the instruction critic that decided, in nats."""
    instruction_scores: Mapping[str, float] = field(default_factory=dict)
    """Scores of the instruction by critic name (``label``, ``lift``, ``combined``), in nats."""
    raw: str | None = None
    """The response as the engine returned it after its stop rule."""
    clean: str | None = None
    """The response after the cleaner."""
    finish_reason: FinishReason | None = None
    """Why the response ended."""
    stop: str | None = None
    """Which stop string ended it."""
    token_ids: tuple[int, ...] = ()
    """Generated ids of the response."""
    trimmed: str = ""
    """What the stop rule cut off from ``raw``; see :class:`Completion`."""
    token_ends: tuple[int, ...] | None = None
    """Where in ``raw + trimmed`` each token ends, for replay; None where that is not known."""
    clean_tokens: int | None = None
    """Tokens of ``clean`` by the model's own tokenizer."""
    pair_scores: Mapping[str, float] = field(default_factory=dict)
    """Scores of the pair by critic name (``label``, ``lift``, ``combined``), in nats."""
    flags: tuple[str, ...] = ()
    """Names of the detectors that fired on the response, sorted."""
    cause: str | None = None
    """Why a bad row is bad; see ``pipeline/causes.py``."""
    dropped: str | None = None
    """The first stage that dropped it: parser, duplicate, instruction_critic, detector,
    pair_critic, or None for a row that is kept; ``unscored`` where replay changed its text and no
    critic has seen it."""

    @property
    def parsed(self) -> bool:
        """The parser found an instruction."""
        return self.dropped != "parser"

    @property
    def answered(self) -> bool:
        """A response was generated."""
        return self.raw is not None

    @property
    def kept(self) -> bool:
        """The row would enter the data set."""
        return self.answered and self.dropped is None

    def to_json(self) -> dict[str, Any]:
        """A JSON object with every field."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Sample":
        """The sample that :meth:`to_json` wrote."""
        known = {f.name for f in fields(cls)}
        data: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in value.items() if k in known
        }
        return cls(**data)


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a detector or critic showed on planted controls."""

    name: str
    """The detector's or critic's name."""
    sensitivity: float | None
    """Share of positives that it caught; None when it was shown none."""
    specificity: float | None
    """Share of negatives that it left alone."""
    positives: int
    """Planted positives shown."""
    negatives: int
    """Planted negatives shown."""
    certified: bool
    """Whether its metric may pass, fail or steer."""
    reason: str
    """Why, in one phrase."""
    sensitivity_low: float | None = None
    """One-sided lower 95 % limit of the sensitivity (Clopper-Pearson); None without positives."""
    sensitivity_high: float | None = None
    """One-sided upper 95 % limit of it."""
    specificity_low: float | None = None
    """One-sided lower 95 % limit of the specificity; None without negatives."""
    specificity_high: float | None = None
    """One-sided upper 95 % limit of it."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A number over samples, with everything needed to judge it."""

    name: str
    """Its name in the metric table."""
    value: float | None
    """The rate or number; None when unmeasured."""
    count: int | None
    """Bad (or good) rows, for a rate."""
    n: int
    """Rows it is a rate of."""
    low: float | None
    """Lower end of its interval, valid while the sample grows."""
    high: float | None
    """Upper end."""
    threshold: str | None
    """What it must satisfy, such as ``< 0.05``; None for one that is only shown."""
    verdict: Verdict | None
    """None for a metric that is only shown."""
    reason: str
    """Why the verdict is what it is, in one phrase."""
    rows_needed: int | None = None
    """Further rows that would decide an INSUFFICIENT at the rate seen so far."""

    def to_json(self) -> dict[str, Any]:
        """A JSON object with every field."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Metric":
        """The metric that :meth:`to_json` wrote."""
        return cls(**value)


@dataclass(frozen=True, slots=True)
class Funnel:
    """How many rows each stage was given and passed on; every count is of rows that survive it."""

    generated: int
    """Instruction completions drawn."""
    parsed: int
    """With an instruction in them."""
    distinct: int
    """Not seen before in this round or data set."""
    accepted: int
    """Accepted by the instruction critic (all with a response follow from these)."""
    answered: int
    """With a response."""
    unflagged: int
    """With no detector's flag."""
    kept: int
    """Accepted by the pair critic too: rows of the data set."""
    wanted: int
    """Rows that were wanted."""

    def to_json(self) -> dict[str, int]:
        """A JSON object with every count."""
        return asdict(self)
