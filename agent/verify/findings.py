"""What a check of a run comes to: named lines, each well or with what differs.

Nothing is read or computed here. The one idea: a check that could not be made is no check that
went well, so each line is one of three: verified, differing, or left out with its reason.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

GROUPS: Final = ("ledger", "artifacts", "records", "reviews", "plan", "data set", "reports", "rows")
"""What checks are about, in the order in which they are shown."""
Group = Literal[
    "ledger", "artifacts", "records", "reviews", "plan", "data set", "reports", "rows"
]  # fmt: skip
_SHOWN: Final = 160


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it should be."""

    where: str
    """The field, the line, or the operation; empty for a file as a whole."""
    expected: str
    """What follows from the rows and the books."""
    found: str
    """What is stored."""

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{place}expected {self.expected}, found {self.found}"


@dataclass(frozen=True, slots=True)
class Check:
    """One named thing that was looked at, or should have been."""

    group: Group
    """What it is about."""
    name: str
    """The file, or what was checked."""
    differences: tuple[Difference, ...] = ()
    """What differs; empty where all is well."""
    left_out: str = ""
    """Why it was not checked; empty where it was."""


@dataclass(slots=True)
class Verified:
    """All that was looked at in a run."""

    run_id: str
    """The run, by its own record where that can be read."""
    seal: str = ""
    """How many entries the books have, and the hash of the last, which stands for all of them."""
    checks: list[Check] = field(default_factory=list)
    """Every check, in the order of the work."""
    unverifiable: list[str] = field(default_factory=list)
    """What follows from nothing that is stored, and is protected by nothing."""
    notes: list[str] = field(default_factory=list)
    """What is to be known, and is no difference."""

    def add(
        self,
        group: Group,
        name: str,
        differences: Sequence[Difference] = (),
        *,
        left_out: str = "",
    ) -> None:
        """Take in a check; one that differs is never also left out."""
        self.checks.append(Check(group, name, tuple(differences), left_out))

    @property
    def differing(self) -> list[Check]:
        """Checks that found something."""
        return [c for c in self.checks if c.differences]

    @property
    def left_out(self) -> list[Check]:
        """Checks that were not made."""
        return [c for c in self.checks if c.left_out and not c.differences]

    @property
    def verified(self) -> list[Check]:
        """Checks that went well."""
        return [c for c in self.checks if not c.differences and not c.left_out]

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON."""
        return asdict(self) | {
            "differing": len(self.differing),
            "verified": len(self.verified),
            "left_out": len(self.left_out),
        }


def shown(value: object) -> str:
    """A value in a message: short, on one line, with nothing that a terminal obeys."""
    text = value if isinstance(value, str) else repr(value)
    return exact(" ".join(text.split()))


def exact(text: str) -> str:
    """The same with every space and line break as it is, for texts that are set side by side."""
    plain = "".join(c if " " <= c <= "~" else ascii(c)[1:-1] for c in text[:_SHOWN])
    fits = len(text) <= _SHOWN and len(plain) <= _SHOWN
    return plain if fits else f"{plain[: _SHOWN - 3]}..."
