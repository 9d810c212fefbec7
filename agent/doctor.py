"""The doctor: what a run would need, checked one by one, without loading a model or spending.

Every check says what it found and, where something is wrong, what to do; one that fails does not
keep the others from being made.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from agent.config import RunConfig
from agent.config_file import load_config
from agent.engines import device_type, find_model, price_per_hour
from agent.errors import AgentError, ConfigError
from agent.least import check_cap, check_sub_caps, lease_of
from agent.reviewers import choose_reviewer
from agent.screens import Screen


def examine(path: Path, reports: Path) -> Screen:
    """Check everything that can be checked for free."""
    checks = [_check("configuration", lambda: f"{path}: {load_config(path).digest()[:12]}")]
    if checks[0]["ok"]:
        config = load_config(path)
        checks += [
            _check("model", lambda: find_model(config)),
            _check("device", lambda: _device(config)),
            _check("reviewer", lambda: _reviewer(config)),
            _check("caps", lambda: _caps(config)),
        ]
    checks.append(_check("disk", lambda: _disk(reports)))
    marks = {True: "ok  ", False: "FAIL"}
    lines = [f"{marks[bool(c['ok'])]}  {c['name']:<14} {c['found']}" for c in checks]
    return Screen("\n".join(lines), {"checks": checks})


def _check(name: str, look: Callable[[], str]) -> dict[str, str | bool]:
    try:
        return {"name": name, "ok": True, "found": look()}
    except AgentError as error:
        return {"name": name, "ok": False, "found": str(error)}


def _device(config: RunConfig) -> str:
    return f"{device_type(config.engine)} at ${price_per_hour(config):.2f} an hour"


def _reviewer(config: RunConfig) -> str:
    return choose_reviewer(config.reviewer, config.prices, os.environ)[1]


def _caps(config: RunConfig) -> str:
    reviewer, _ = choose_reviewer(config.reviewer, config.prices, os.environ)
    lease = lease_of(config, reviewer)
    check_sub_caps(config, lease)
    check_cap(config, lease)
    return "each pays for one micro-batch at least"


def _disk(reports: Path) -> str:
    place = reports.absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise ConfigError(f"{place} is not a folder that can be written; pass --reports DIR")
    free = shutil.disk_usage(place).free / 2**30
    if free < 1:
        raise ConfigError(f"{free:.1f} GB free at {place}; a run wants at least 1 GB")
    return f"{free:.0f} GB free at {place}"
