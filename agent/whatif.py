"""What stored rows say of another setting: a person's question, answered for $0.

Parses and checks the wished values, asks the same functions as the loop, and sets the answer
beside the setting that it changes, on the same rows: the present one or, where no stored rows can
answer from there, the latest from which they can. Without a run's lock, an engine or a price, but
where changed texts are to be scored again. The one idea: what was not measured is named, with its
reason.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from agent.archive import Bought
from agent.errors import ConfigError, RunError
from agent.records import RoundRecord, pilots
from agent.rescoring import Quote, quote, with_stored_scores
from agent.stages.judges import calibration
from agent.stages.replaying import measured
from agent.stages.stored import Found, Source, ask, sources
from pipeline.metrics import Measurement
from pipeline.params import TUNABLE, GenParams

CRITICS: Final = ("critic.instruction", "critic.pair")
"""What may be asked about beside what a review may change: who judges."""


@dataclass(frozen=True, slots=True)
class Base:
    """A setting that a question may start from."""

    name: str
    """What people call it."""
    params: GenParams
    """All of it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What stored rows say of a setting."""

    wanted: GenParams
    """The setting."""
    base: "Base"
    """The setting that it changes."""
    passed_over: tuple[tuple[str, Found], ...]
    """Later settings from which no stored rows can answer, by name."""
    found: Found
    """Its rows."""
    after: Measurement | None
    """Measured on them; None where no stored rows can answer."""
    before: Measurement | None
    """The setting that is changed on the same rows; None where those cannot answer for it."""
    pilot: int
    """The pilot, from 1, at whose share of alpha both are judged: the next one."""
    quote: Quote | None
    """What scoring the changed texts would cost; None where nothing is left to score."""


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Values by dotted name from ``name=value`` texts; a value is JSON, or else a bare word.

    Raises:
        ConfigError: naming the text, and what is expected.
    """
    found: dict[str, Any] = {}
    for text in settings:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals:
            raise ConfigError(f"--set {text!r}: expected NAME=VALUE, such as response.stop='[]'")
        if name not in TUNABLE and name not in CRITICS:
            known = ", ".join((*TUNABLE, *CRITICS))
            raise ConfigError(f"--set {name!r}: there is no such parameter; known: {known}")
        if name in found:
            raise ConfigError(f"--set {name}: named twice")
        found[name] = _value(name, value)
    if not found:
        raise ConfigError("nothing to ask: give at least one --set NAME=VALUE")
    return found


def _value(name: str, text: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text.replace("\\n", "\n")
    strings = name in TUNABLE and TUNABLE[name].kind == "strings"
    return [value] if strings and isinstance(value, str) else value


def setting(present: GenParams, values: dict[str, Any], bought: Bought) -> GenParams:
    """The present setting with ``values``; a critic that is changed gets its margin from controls.

    Raises:
        ConfigError: naming the parameter, what was found and what is expected.
    """
    open_margins = {
        f"{name}_margin": None
        for name in CRITICS
        if name in values and f"{name}_margin" not in values
    }
    try:
        wanted = present.replace(open_margins | values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"--set {where}={first['input']!r:.80}: {first['msg']}") from error
    return calibration(bought).apply(wanted)


def answer(bought: Bought, values: dict[str, Any]) -> Answer:
    """What the rows that a run has stored say of the present setting with ``values``.

    Raises:
        ConfigError: if a value is not valid.
        RunError: if the run has no stored rows yet.
    """
    rounds = bought.store.load_rounds()
    stored = sources(bought, before=len(rounds) + 1)
    if not stored:
        raise RunError(
            f"run {bought.store.run_id!r} has no stored rows that could be replayed: its open "
            "probe is not bought yet"
        )
    tried = []
    for base in _bases(bought, rounds):
        wanted = setting(base.params, values, bought)
        found = ask(stored, wanted)
        tried.append((base, wanted, found))
        if found.used:
            break
    base, wanted, found = tried[-1] if tried[-1][2].used else tried[0]
    found = with_stored_scores(bought, found, wanted)
    alpha_round = pilots(rounds) + 1
    return Answer(
        wanted=wanted,
        base=base,
        passed_over=tuple((b.name, f) for b, _, f in tried if b is not base and not f.used),
        found=found,
        after=measured(bought, found, wanted, alpha_round=alpha_round) if found.used else None,
        pilot=alpha_round,
        before=_before(bought, stored, found, base.params, alpha_round),
        quote=quote(bought, found, wanted),
    )


def _bases(bought: Bought, rounds: Sequence[RoundRecord]) -> list[Base]:
    """The settings of all rounds, the present one first; before the first round, the baseline."""
    found = [Base(f"round {r.round}", r.params) for r in reversed(rounds)]
    return found or [Base("the baseline", calibration(bought).apply(bought.config.parameters))]


def _before(
    bought: Bought, stored: Sequence[Source], found: Found, base: GenParams, alpha_round: int
) -> Measurement | None:
    same = [s for s in stored if s.name in found.used]
    now = ask(same, base)
    if not same or now.refused:
        return None
    return measured(bought, now, base, alpha_round=alpha_round)
