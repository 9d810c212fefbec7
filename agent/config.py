"""The typed tree of budget.yaml: every key that a person may write, its default and its bounds.

Everything is checked before a cent is spent; how a file is read and its errors are explained is
``agent/config_file.py``. Secrets are never here: only the names of the environment variables that
hold them.
"""

import hashlib
import json
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    model_validator,
)

from pipeline.params import GenParams

Rate = Annotated[float, Field(gt=0, lt=1)]


def _holds_no_key(url: str) -> str:
    """An address is stored with the run and shown, so it has no part that could be a secret."""
    if any(mark in url for mark in "@?#"):
        raise ValueError(
            "an address without name, password or query, since it is stored with the run; put the "
            "key into the environment variable that api_key_env names"
        )
    return url


Address = Annotated[str, AfterValidator(_holds_no_key)]
"""Scheme, host, port and path of a server."""
VariableName = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]
"""Name of an environment variable, which a key itself seldom looks like."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class BudgetSection(_Section):
    """What may be spent."""

    limit_usd: float = Field(300.0, gt=0, le=1_000_000)
    """The cap on everything: GPU seconds and reviewer tokens together."""
    pilot_usd: float | None = Field(None, gt=0, le=1_000_000)
    """The most that preflight, probes and pilots may use of it; None is all of it."""
    review_usd: float | None = Field(None, gt=0, le=1_000_000)
    """The most that reviews may use of it."""
    scale_usd: float | None = Field(None, gt=0, le=1_000_000)
    """The most that scale may use of it; no plan's maximum is above it."""

    @property
    def sub_caps(self) -> dict[str, float]:
        """Dollars by stage, for the stages that have a cap of their own."""
        own = {"pilot": self.pilot_usd, "review": self.review_usd, "scale": self.scale_usd}
        return {name: usd for name, usd in own.items() if usd is not None}

    @model_validator(mode="after")
    def _within_the_cap(self, info: ValidationInfo) -> "BudgetSection":
        cap = (info.context or {}).get("cap", "budget.limit_usd")
        for name, usd in self.sub_caps.items():
            if usd > self.limit_usd:
                raise ValueError(
                    f"{name}_usd is ${usd:,.15g}, more than the cap on everything, "
                    f"${self.limit_usd:,.15g} of {cap}: lower {name}_usd, leave it out, or raise "
                    "the cap"
                )
        return self


class ModelPrice(_Section):
    """What a reviewer model costs."""

    input_usd_per_million: float = Field(ge=0, le=10_000)
    """Dollars for a million prompt tokens."""
    output_usd_per_million: float = Field(ge=0, le=10_000)
    """Dollars for a million completion tokens."""


class PricesSection(_Section):
    """What things cost. An unknown price is a refusal."""

    device_usd_per_hour: dict[str, Annotated[float, Field(ge=0, le=10_000)]] = {
        "cuda": 3.00,
        "cpu": 0.05,
    }
    """Hourly rent by device type; ``server`` prices a remote engine."""
    reviewers: dict[str, ModelPrice] = {}
    """Token prices by reviewer model name."""


class EngineSection(_Section):
    """The base language model that writes the data."""

    kind: Literal["hf", "server", "scripted"] = "hf"
    """In process on transformers, an OpenAI-compatible completions server, or a script (tests)."""
    model: str = Field("embedded", min_length=1)
    """``embedded`` (of the ``demo`` extra), a folder, a .gguf file, or a name the server knows."""
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    """auto takes a GPU when there is one."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto is bfloat16 where the device computes in it, else float32."""
    quantization: Literal["none", "int8", "nf4"] = "none"
    """int8 and nf4 load through bitsandbytes (``pip install 'sft-assay[quantization]'``)."""
    device_map: str | None = None
    """transformers' device map, such as ``auto``, for a model larger than one device."""
    threads: int | None = Field(None, ge=1, le=1024)
    """CPU threads; None lets torch choose."""
    batch_size: int | None = Field(None, ge=1, le=4096)
    """Rows in one forward pass; None is what was measured to be good for the model and device."""
    base_url: Address | None = None
    """The completions server's address, such as http://127.0.0.1:8000/v1."""
    api_key_env: VariableName = "ENGINE_API_KEY"
    """Environment variable that holds the server's key, if it wants one."""
    lease_seconds: float = Field(900.0, ge=1, le=86_400)
    """Longest a micro-batch may take; its worst-case price is reserved."""
    concurrency: int = Field(32, ge=1, le=1024)
    """Requests that a server is sent side by side."""
    scorer: str | None = Field(None, min_length=1)
    """A local model that scores what a server wrote: ``embedded``, a folder or a .gguf file."""

    @model_validator(mode="after")
    def _scorer_of_a_server(self) -> "EngineSection":
        if self.scorer is not None and self.kind != "server":
            raise ValueError(f"scorer is for kind server; an engine of kind {self.kind} scores")
        return self


class Threshold(_Section):
    """A bound on a rate: exactly one of ``max`` (stay below) and ``min`` (reach)."""

    max: Rate | None = None
    """The rate must be below it."""
    min: Rate | None = None
    """The rate must be at least this."""

    @model_validator(mode="after")
    def _one_side(self) -> "Threshold":
        if (self.max is None) == (self.min is None):
            raise ValueError("a threshold has exactly one of max and min")
        return self


class ThresholdsSection(_Section):
    """Gates: every one must pass. Out of every reviewer's reach."""

    runaway: Threshold = Threshold(max=0.05)
    repetition: Threshold = Threshold(max=0.05)
    token_limit: Threshold = Threshold(max=0.10)
    truncated: Threshold = Threshold(max=0.02)
    delimiter_leak: Threshold = Threshold(max=0.02)
    empty: Threshold = Threshold(max=0.05)
    instruction_acceptance: Threshold = Threshold(min=0.50)
    pair_acceptance: Threshold = Threshold(min=0.50)
    alpha: Rate = 0.05
    """Probability of a false pass, over all rounds of a run."""

    @model_validator(mode="after")
    def _right_side(self) -> "ThresholdsSection":
        for name in type(self).model_fields:
            side = "min" if name.endswith("_acceptance") else "max"
            if name != "alpha" and getattr(getattr(self, name), side) is None:
                raise ValueError(f"{name} takes {side}, the other side would turn the gate around")
        return self


class CertificatesSection(_Section):
    """What detectors must show on planted controls before their metrics count."""

    minimum: Rate = 0.95
    """What the lower 95 % limits of sensitivity and specificity must reach."""


class NeedSection(_Section):
    """Whether data from the base model is needed at all."""

    min_gap: float = Field(0.10, ge=0, lt=1)
    """How much more must be accepted with few-shot examples than without; less is a warning that
    has to be acknowledged before scale."""


class CriticSection(_Section):
    """How critics' margins are set."""

    max_false_accept: Rate = 0.20
    """Share of bad controls, of kinds that the critic sees, that a margin lets through at most."""


class PilotSection(_Section):
    """How a round's samples are bought."""

    smoke_rows: int = Field(32, ge=24, le=32)
    """Rows of a round's first micro-batch, whose audit must pass before a second is bought."""
    micro_batch: int = Field(96, ge=1, le=4096)
    """Rows of every later micro-batch."""
    max_rows: int = Field(1024, ge=48, le=100_000)
    """Answered rows at which a round ends without a verdict."""
    fail_rows: int = Field(48, ge=24, le=10_000)
    """Rows before a FAIL ends a round early."""
    max_rounds: int = Field(6, ge=1, le=50)
    """Rounds after which the run ends."""
    seed: int = Field(1, ge=0, le=2**31)
    """Seeds of every row derive from it, the round and the row's index."""


class ReviewerSection(_Section):
    """Who reads the learnings report."""

    kind: Literal["auto", "llm", "rules", "bayes"] = "auto"
    """auto takes llm when a key is set, else rules; bayes is a search (the ``bayes`` extra)."""
    model: str = Field("gpt-5-mini", min_length=1)
    """Model name for llm; it must have a price."""
    base_url: Address | None = None
    """Any OpenAI-compatible chat endpoint; None is OpenAI's own."""
    api_key_env: VariableName = "OPENAI_API_KEY"
    """Environment variable that holds the key."""
    max_output_tokens: int = Field(4096, ge=64, le=100_000)
    """Token cap of an answer; its price is reserved."""
    timeout_seconds: float = Field(120.0, ge=1, le=180)
    """Total deadline of one review, retries included; promise P14 allows no longer one."""
    max_changes: int = Field(4, ge=1, le=16)
    """Changes applied in one round at most."""
    max_report_tokens: int = Field(32_000, ge=16_000, le=1_000_000)
    """Length of the learnings report at most; the least informative parts are left out for room.
    Bytes where the model's tokenizer is not at hand; its core, which is always sent, fits in the
    smallest value."""


class ScaleSection(_Section):
    """The full run, after approval."""

    examples: int = Field(15_000, ge=1, le=10_000_000)
    """Rows wanted."""
    max_attempts_factor: float = Field(5.0, ge=1, le=100)
    """Instructions drawn at most, as a multiple of the rows wanted."""
    micro_batch: Annotated[int, Field(ge=1, le=4096)] | Literal["auto"] = "auto"
    """Rows of a micro-batch; auto is what was measured to be good for the engine's device."""
    wave: int = Field(1, ge=1, le=64)
    """Micro-batches in a wave, the unit of resumption."""
    shard_rows: int = Field(1500, ge=1, le=1_000_000)
    """Rows in one output shard."""
    executor: Literal["local"] = "local"
    """Where micro-batches run."""


class RunConfig(_Section):
    """The whole of budget.yaml."""

    budget: BudgetSection = BudgetSection()
    prices: PricesSection = PricesSection()
    engine: EngineSection = EngineSection()
    parameters: GenParams = GenParams()
    thresholds: ThresholdsSection = ThresholdsSection()
    certificates: CertificatesSection = CertificatesSection()
    critic: CriticSection = CriticSection()
    need: NeedSection = NeedSection()
    pilot: PilotSection = PilotSection()
    reviewer: ReviewerSection = ReviewerSection()
    scale: ScaleSection = ScaleSection()

    def digest(self) -> str:
        """SHA-256 of the canonical JSON of the configuration."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()
