"""What scale would do, exactly: the text that a person approves, and its hash.

How it is offered and approved is ``approval.py``'s. The one idea: everything that the result
or its price depends on is a field, so that two plans with one hash are one plan.
"""

import hashlib

from pydantic import BaseModel, ConfigDict, Field

from agent.store import canonical_json
from pipeline.params import GenParams


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Interval(_Frozen):
    """A forecast figure."""

    expected: float
    """The middle."""
    low: float
    """Lower end of the 90 % interval."""
    high: float
    """Upper end."""


class Plan(_Frozen):
    """Exactly what scale would do, and what it may cost at most."""

    run_id: str
    """The run that would do it."""
    version: str
    """Version of this program."""
    params: GenParams
    """The certified setting, margins filled in."""
    model: str
    """The model's name."""
    model_digest: str
    """SHA-256 of its weights."""
    prompts_digest: str
    """SHA-256 of every prompt that it is given."""
    config_digest: str
    """SHA-256 of the effective configuration."""
    device: str
    """What it would run on."""
    dtype: str
    """What it would compute in."""
    threads: int | None
    """CPU threads; None lets torch choose."""
    seed: int
    """What every row's seed derives from."""
    examples: int = Field(ge=1)
    """Rows wanted."""
    attempts: int = Field(ge=1)
    """Fewest instructions whose median forecast reaches ``examples``; ``max_attempts`` if none."""
    max_attempts: int = Field(ge=1)
    """Instructions drawn at most."""
    micro_batch: int = Field(ge=1)
    """Instructions in a micro-batch."""
    batch_size: int | None = None
    """Rows in one forward pass, which can change a row's last digits; None where it is not ours."""
    wave: int = Field(ge=1)
    """Micro-batches in a wave."""
    shard_rows: int = Field(ge=1)
    """Rows in one output file."""
    usd_per_hour: float = Field(ge=0)
    """Price of the device."""
    max_cost_usd: float = Field(ge=0)
    """What it costs at most: this is set aside."""
    cost_usd: Interval
    """Forecast cost."""
    seconds: Interval
    """Forecast wall seconds."""
    rows: Interval
    """Forecast of distinct kept rows within ``max_attempts``."""
    usd_per_row: Interval
    """Forecast cost of a row of the data set."""
    validated: bool
    """Whether forecasts so far beyond the pilot's draws have been checked against the truth."""
    need: str = ""
    """What the check of the need warns of; a warning must be acknowledged."""

    @property
    def short(self) -> bool:
        """Whether the forecast promises fewer rows than are wanted."""
        return self.rows.expected < self.examples

    @property
    def accept(self) -> tuple[str, ...]:
        """What a yes must name beside the hash, as options of ``approve``."""
        asked = {"--accept-shortfall": self.short, "--accept-need": bool(self.need)}
        return tuple(option for option, due in asked.items() if due)

    @property
    def canonical(self) -> str:
        """The text that the hash is of."""
        return canonical_json(self.model_dump(mode="json"))

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON."""
        return hashlib.sha256(self.canonical.encode("ascii")).hexdigest()
