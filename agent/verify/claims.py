"""What a run's record says of itself, against its configuration and its books.

Figures that follow from rows are ``stored.py``'s. The one idea: a cap that was raised in one place
stands as it was in another, and a time or a name that cannot be made again can still be impossible.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from agent.config import RunConfig
from agent.engines import device_type
from agent.errors import ConfigError
from agent.money.amounts import cap_to_micro, show_usd
from agent.money.chain import SealedEntry
from agent.records import RunRecord
from agent.reviewers import choose_reviewer
from agent.verify.findings import Difference, exact

_LONGEST: Final = timedelta(days=1)
"""Between a run's record and its first entry."""


def caps(config: RunConfig, entries: Sequence[SealedEntry]) -> Iterator[Difference]:
    """Caps that the books were opened with, against those of the configuration."""
    opened = [e.entry for e in entries if e.entry.kind == "open"]
    found = {e.stage if e.op_id == "sub-cap" else "cap": e.amount for e in opened}
    budget = config.budget
    expected = {"cap": budget.limit_usd} | budget.sub_caps
    for name in [*expected, *(n for n in found if n not in expected)]:
        wanted = cap_to_micro(expected[name]) if name in expected else None
        if wanted != found.get(name):
            where = "budget.limit_usd" if name == "cap" else f"budget.{name}_usd"
            yield Difference(where, f"{_amount(wanted)} by run.json", _amount(found.get(name)))


def _amount(micro: int | None) -> str:
    return "no cap" if micro is None else show_usd(micro)


def own(run: RunRecord, config: RunConfig) -> Iterator[Difference]:
    """What follows from the configuration alone."""
    if run.config_digest != config.digest():
        yield Difference("config_digest", config.digest(), exact(run.config_digest))
    if run.limit_usd != config.budget.limit_usd:
        yield Difference("limit_usd", repr(config.budget.limit_usd), repr(run.limit_usd))


def possible(
    run: RunRecord, config: RunConfig, entries: Sequence[SealedEntry]
) -> Iterator[Difference]:
    """What nothing that is stored can prove, but can disprove."""
    yield from _created(run.created, entries[0].at)
    known = list(dict.fromkeys(_reviewers(config)))
    if run.reviewer not in known:
        yield Difference("reviewer", " or ".join(map(exact, known)), exact(run.reviewer))
    prices = sorted(_device_prices(config))
    if run.device_price_usd_per_hour not in prices:
        listed = " or ".join(map(repr, prices)) or "no price"
        said = repr(run.device_price_usd_per_hour)
        yield Difference("device_price_usd_per_hour", listed, said)


def _created(said: str, first: float) -> Iterator[Difference]:
    """A run's record is written just before its books are opened."""
    try:
        seconds = datetime.fromisoformat(said).timestamp() if "+00:00" in said else None
    except (ValueError, OverflowError):
        seconds = None
    if seconds is None:
        yield Difference("created", "a time in UTC", exact(said))
    elif not 0 <= first - seconds <= _LONGEST.total_seconds():
        at = datetime.fromtimestamp(first, UTC).isoformat(timespec="seconds")
        yield Difference("created", f"within a day before the first entry, {at}", exact(said))


def _device_prices(config: RunConfig) -> set[float]:
    """What an hour can cost: which device ``auto`` found is that machine's secret."""
    auto = config.engine.kind == "hf" and config.engine.device == "auto"
    kinds = ("cuda", "cpu") if auto else (device_type(config.engine),)
    prices = config.prices.device_usd_per_hour
    return {prices[kind] for kind in kinds if kind in prices}


def _reviewers(config: RunConfig) -> Iterator[str]:
    """Whom this configuration can choose, in the words of the choice: without a key, and with."""
    for environ in ({}, {config.reviewer.api_key_env: "a key"}):
        try:
            yield choose_reviewer(config.reviewer, config.prices, environ)[1]
        except ConfigError:
            continue
