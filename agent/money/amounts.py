"""Dollars and integer micro-dollars, and what a stretch of device time costs.

Everything that is booked is a whole number of micro-dollars. The one idea: arithmetic is exact, and
rounding is always against the run, so costs round up and the cap rounds down. A float stands for
the decimal that it prints as, since that is what a person wrote.
"""

import math
from decimal import Decimal
from fractions import Fraction
from typing import Final

from agent.errors import LedgerError

MICRO: Final = 1_000_000
"""Micro-dollars in a dollar."""
MAX_MICRO: Final = 10**15
"""A billion dollars: an amount above it is a mistake, and sums of a thousand fit in 64 bits."""

Dollars = float | int | str | Decimal


def usd_to_micro(usd: Dollars) -> int:
    """Micro-dollars of a cost, rounded up.

    Raises:
        LedgerError: if ``usd`` is negative, not finite, or above a billion.
    """
    return check_micro(math.ceil(_exact(usd) * MICRO))


def cap_to_micro(usd: Dollars) -> int:
    """Micro-dollars of a cap, rounded down.

    Raises:
        LedgerError: if ``usd`` is negative, not finite, or above a billion.
    """
    return check_micro(math.floor(_exact(usd) * MICRO))


def micro_to_usd(micro: int) -> float:
    """Dollars of a whole number of micro-dollars, for records and for people."""
    return micro / MICRO


def show_usd(micro: int) -> str:
    """Dollars for a message: cents, or all six places where cents would hide something."""
    return f"${micro / MICRO:.2f}" if micro % 10_000 == 0 else f"${micro / MICRO:.6f}"


def time_to_micro(seconds: float, usd_per_hour: Dollars) -> int:
    """Cost of ``seconds`` of a device, rounded up.

    Raises:
        LedgerError: if either is negative or not finite.
    """
    return check_micro(math.ceil(_exact(seconds) * _exact(usd_per_hour) * MICRO / 3600))


def time_within(micro: int, usd_per_hour: Dollars) -> float:
    """Seconds of a device that ``micro`` pays for; infinite where the device is free."""
    price = _exact(usd_per_hour)
    return float(Fraction(micro) * 3600 / (price * MICRO)) if price else math.inf


def check_micro(amount: int) -> int:
    """``amount`` itself, if it can be booked.

    Raises:
        LedgerError: if it is not a whole number from 0 to a billion dollars.
    """
    if isinstance(amount, bool) or not isinstance(amount, int) or not 0 <= amount <= MAX_MICRO:
        raise LedgerError(f"expected 0 to {MAX_MICRO} whole micro-dollars, found {amount!r}")
    return amount


def _exact(value: Dollars) -> Fraction:
    number = value if isinstance(value, Decimal) else Decimal(str(value))
    if not number.is_finite() or number < 0:
        raise LedgerError(f"expected an amount of 0 or more, found {value!r}")
    return Fraction(number)
