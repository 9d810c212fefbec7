import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import LedgerError
from agent.money.amounts import (
    MAX_MICRO,
    cap_to_micro,
    check_micro,
    show_usd,
    time_to_micro,
    time_within,
    usd_to_micro,
)


@pytest.mark.parametrize(
    ("usd", "micro"),
    [
        (0, 0),
        (300, 300_000_000),
        (300.0, 300_000_000),
        (0.1, 100_000),
        (0.29, 290_000),
        (1e-7, 1),
        ("0.0000011", 2),
        (Decimal("1.0000001"), 1_000_001),
        (1e9, MAX_MICRO),
    ],
)
def test_costs_round_up(usd: float, micro: int) -> None:
    assert usd_to_micro(usd) == micro


def test_caps_round_down() -> None:
    assert cap_to_micro("0.0000019") == 1
    assert cap_to_micro(300.0) == 300_000_000


@pytest.mark.parametrize("usd", [-1, -1e-9, math.nan, math.inf, "-0.1", 1e10])
def test_absurd_amounts_are_refused(usd: float) -> None:
    with pytest.raises(LedgerError):
        usd_to_micro(usd)
    with pytest.raises(LedgerError):
        time_to_micro(usd if usd != 1e10 else 1e300, 3600)


@pytest.mark.parametrize("amount", [True, 1.0, "1", None, -1, MAX_MICRO + 1])
def test_only_whole_micro_dollars_are_booked(amount: int) -> None:
    with pytest.raises(LedgerError, match="whole micro-dollars"):
        check_micro(amount)


@given(st.decimals(0, 1000, places=9))
def test_rounding_is_never_in_the_runs_favour(usd: Decimal) -> None:
    exact = usd * 1_000_000
    assert 0 <= usd_to_micro(usd) - exact < 1
    assert 0 <= exact - cap_to_micro(usd) < 1


@pytest.mark.parametrize(
    ("seconds", "price", "micro"),
    [(3600, 3.0, 3_000_000), (1, 3.0, 834), (0.001, 0.05, 1), (0, 3.0, 0), (86_400, 0, 0)],
)
def test_time_is_priced_by_the_hour(seconds: float, price: float, micro: int) -> None:
    assert time_to_micro(seconds, price) == micro


@given(st.integers(0, 10**9), st.floats(0.01, 100))
def test_time_within_an_amount_costs_about_that(micro: int, price: float) -> None:
    assert abs(time_to_micro(time_within(micro, price), price) - micro) <= 1


def test_a_free_device_runs_for_ever() -> None:
    assert time_within(0, 0) == math.inf


def test_messages_show_what_cents_would_hide() -> None:
    assert show_usd(2_500_000) == "$2.50"
    assert show_usd(834) == "$0.000834"
