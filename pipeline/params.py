"""The parameters that a run tunes, with the bounds that make up its search space.

A :class:`GenParams` is one complete setting. :data:`TUNABLE` is the closed list of what a reviewer
may change: dotted name, range and largest step a round. Nothing outside that list can be reached
by a review: not the model, the prompts' text, a threshold, a price or the cap.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

StopString = Annotated[str, StringConstraints(min_length=1, max_length=32)]
ParamValue = float | int | str | tuple[str, ...]
"""What one tunable parameter can hold; its kind is given by :class:`Tunable`."""


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class InstructionParams(_Frozen):
    """How instructions are drawn. One completion is one line, so the stop string is fixed."""

    temperature: float = Field(0.7, ge=0.1, le=2.0)
    """Softmax temperature."""
    top_p: float = Field(0.9, ge=0.5, le=1.0)
    """Nucleus mass (Holtzman et al. 2020)."""
    repetition_penalty: float = Field(1.1, ge=1.0, le=1.5)
    """CTRL's penalty (Keskar et al. 2019) over prompt and generated tokens."""
    max_new_tokens: int = Field(48, ge=8, le=1024)
    """Token cap."""


class ResponseParams(_Frozen):
    """How responses are drawn."""

    temperature: float = Field(0.4, ge=0.1, le=2.0)
    """Softmax temperature."""
    top_p: float = Field(0.9, ge=0.5, le=1.0)
    """Nucleus mass."""
    repetition_penalty: float = Field(1.1, ge=1.0, le=1.5)
    """CTRL's penalty over prompt and generated tokens."""
    max_new_tokens: int = Field(80, ge=8, le=1024)
    """Token cap."""
    stop: Annotated[tuple[StopString, ...], Field(strict=False, max_length=8)] = ()
    """Stop strings, matched on decoded text and trimmed."""


class CriticParams(_Frozen):
    """Which critics judge, and the margins that their scores must exceed."""

    instruction: Literal["auto", "label", "lift", "combined"] = "auto"
    """The instruction critic: A/B label, likelihood lift, both combined; auto: the best certified
    one, which is named before the first row."""
    pair: Literal["auto", "label", "lift", "combined"] = "auto"
    """The pair critic."""
    instruction_margin: float | None = Field(None, ge=-20.0, le=20.0)
    """The instruction critic's score must exceed it, in nats; None: set from controls before the
    first row."""
    pair_margin: float | None = Field(None, ge=-20.0, le=20.0)
    """The pair critic's score must exceed it, in nats; None: set from controls."""


class FewshotParams(_Frozen):
    """Which examples stand in the prompts."""

    set: str = Field("core", pattern=r"^[a-z0-9_]{1,32}$")
    """Name of a shipped set of examples (``prompts/fewshot/<set>.jsonl``)."""
    count: int = Field(6, ge=3, le=12)
    """Examples in one prompt."""
    rotation: Literal["fixed", "rotate", "pool"] = "fixed"
    """fixed: always the same; rotate: other ones each micro-batch; pool: with accepted rows too."""


class GenParams(_Frozen):
    """One complete setting of everything that a reviewer may change."""

    instruction: InstructionParams = InstructionParams()
    response: ResponseParams = ResponseParams()
    critic: CriticParams = CriticParams()
    fewshot: FewshotParams = FewshotParams()
    topics: Literal["off", "hints"] = "off"
    """hints: each instruction prompt names a topic to write about."""
    oversample: float = Field(1.0, ge=1.0, le=5.0)
    """Instructions drawn for each row wanted, since some are dropped before their response."""

    def get(self, name: str) -> ParamValue | None:
        """Value of the parameter with a dotted ``name`` such as ``response.temperature``."""
        node: Any = self
        for part in name.split("."):
            node = getattr(node, part)
        return node  # type: ignore[no-any-return]

    def replace(self, changes: dict[str, Any]) -> "GenParams":
        """A validated copy with dotted names set to new values.

        Raises:
            pydantic.ValidationError: if a value is out of its range or of the wrong type.
        """
        tree = self.model_dump()
        for name, value in changes.items():
            *path, leaf = name.split(".")
            node = tree
            for part in path:
                node = node[part]
            node[leaf] = value
        return GenParams.model_validate(tree)


@dataclass(frozen=True, slots=True)
class Tunable:
    """One parameter that a reviewer may change."""

    name: str
    """Dotted name within :class:`GenParams`."""
    kind: Literal["float", "int", "strings", "choice"]
    """What its value is."""
    low: float | None = None
    """Smallest value, for numbers."""
    high: float | None = None
    """Largest value, for numbers."""
    step: float | None = None
    """Largest difference from one round to the next, in the parameter's own unit."""
    factor: float | None = None
    """Largest ratio from one round to the next (either way)."""
    choices: tuple[str, ...] = ()
    """The values, for a choice."""

    def describe(self) -> str:
        """Range and step in words, for a reviewer and for people."""
        if self.kind == "strings":
            return "up to 8 strings of 1 to 32 printable characters"
        if self.kind == "choice":
            return "one of " + ", ".join(self.choices)
        limit = f"at most {self.step:g} a round" if self.step else f"a factor of {self.factor:g}"
        return f"{self.low:g} to {self.high:g}; {limit}"


def _number(name: str, low: float, high: float, *, step: float) -> Tunable:
    return Tunable(name, "float", low, high, step=step)


TUNABLE: Final[dict[str, Tunable]] = {
    t.name: t
    for t in (
        _number("instruction.temperature", 0.1, 2.0, step=0.3),
        _number("instruction.top_p", 0.5, 1.0, step=0.1),
        _number("instruction.repetition_penalty", 1.0, 1.5, step=0.1),
        Tunable("instruction.max_new_tokens", "int", 8, 1024, factor=2),
        _number("response.temperature", 0.1, 2.0, step=0.3),
        _number("response.top_p", 0.5, 1.0, step=0.1),
        _number("response.repetition_penalty", 1.0, 1.5, step=0.1),
        Tunable("response.max_new_tokens", "int", 8, 1024, factor=2),
        Tunable("response.stop", "strings"),
        _number("critic.instruction_margin", -20, 20, step=2.0),
        _number("critic.pair_margin", -20, 20, step=2.0),
        Tunable("fewshot.set", "choice", choices=("core", "wide")),
        Tunable("fewshot.count", "int", 3, 12, step=3),
        Tunable("fewshot.rotation", "choice", choices=("fixed", "rotate", "pool")),
        Tunable("topics", "choice", choices=("off", "hints")),
        _number("oversample", 1.0, 5.0, step=1.0),
    )
}
"""The closed list of what a reviewer may change, by dotted name."""
