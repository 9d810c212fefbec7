"""The least that a cap must be for anything to be bought under it, known before a cent is spent.

Whether money runs out later is the ledger's to say. The one idea: no purchase is smaller than one
micro-batch on the shortest lease, with the engine's release kept, and its price is known.
"""

from agent.config import RunConfig
from agent.engines import price_per_hour
from agent.errors import ConfigError
from agent.money.amounts import cap_to_micro, show_usd, time_to_micro
from agent.money.metered import Lease
from agent.reviewers.base import Reviewer


def lease_of(config: RunConfig, reviewer: Reviewer) -> Lease:
    """The engine's lease; it stays open while a reviewer that is asked over the network thinks.

    Raises:
        ConfigError: if its price is not known.
    """
    pause = config.reviewer.timeout_seconds if reviewer.name.startswith("llm:") else 0.0
    return Lease(price_per_hour(config), config.engine.lease_seconds, pause_seconds=pause)


def check_sub_caps(config: RunConfig, lease: Lease) -> None:
    """Refuse a stage's own cap that can never pay for one micro-batch.

    Raises:
        ConfigError: naming the caps, and the least that each must be.
    """
    engine_time = {"pilot": lease.pause_seconds, "scale": 0.0}
    caps = config.budget.sub_caps
    _refuse(
        {
            f"budget.{name}_usd": (caps[name], least_micro(lease, pause=pause))
            for name, pause in engine_time.items()
            if name in caps
        },
        lease,
    )


def check_cap(config: RunConfig, lease: Lease) -> None:
    """Refuse a whole cap that can never pay for one micro-batch.

    Raises:
        ConfigError: naming the least that it must be.
    """
    least = least_micro(lease, pause=lease.pause_seconds)
    _refuse({"budget.limit_usd": (config.budget.limit_usd, least)}, lease)


def least_micro(lease: Lease, *, pause: float) -> int:
    """Micro-dollars of the shortest lease and of the engine's release after it."""
    shortest = min(lease.min_seconds, lease.seconds)
    working = time_to_micro(shortest, lease.usd_per_hour)
    return working + time_to_micro(lease.release_seconds + pause, lease.usd_per_hour)


def _refuse(caps: dict[str, tuple[float, int]], lease: Lease) -> None:
    short = [
        f"{key} {show_usd(cap_to_micro(usd))} can never pay for one micro-batch: at "
        f"${lease.usd_per_hour:g} an hour its shortest lease and the engine's release take "
        f"{show_usd(least)}"
        for key, (usd, least) in caps.items()
        if cap_to_micro(usd) < least
    ]
    if short:
        raise ConfigError("; ".join(short) + "; raise it, or leave it out")
