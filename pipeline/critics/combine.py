"""The combined critic: log-odds that a row is good, fitted to the scores of the other critics.

A logistic regression on standardised scores with a small ridge, so that a critic that says nothing
gets next to no weight. Good and bad weigh the same, and so does every kind of fault. What it is
worth is shown on controls that it was not fitted to.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from pipeline.critics.panel import Combination

if TYPE_CHECKING:
    from numpy import ndarray

_RIDGE: Final = 0.01
"""Penalty on squared weights of standardised scores, where all rows together weigh 1."""


def fit(
    good: Mapping[str, Sequence[float]], bad: Mapping[str, Mapping[str, Sequence[float]]]
) -> Combination:
    """The combination that parts good from bad best.

    Args:
        good: Scores of good controls, by critic.
        bad: Scores of bad controls by fault, and then by critic; row by row the same controls.
    """
    import numpy as np

    names = sorted(good)
    groups = [
        np.array([group[name] for name in names], dtype=float).T for group in (good, *bad.values())
    ]
    shares = [0.5, *(0.5 / len(bad) for _ in bad)]
    weights = np.concatenate(
        [np.full(len(g), share / len(g)) for g, share in zip(groups, shares, strict=True)]
    )
    rows = np.concatenate(groups)
    sides = np.where(np.arange(len(rows)) < len(groups[0]), 1.0, -1.0)
    centre, scale = rows.mean(axis=0), rows.std(axis=0)
    scale[scale == 0] = 1.0
    found = _logistic((rows - centre) / scale, sides, weights)
    per_nat = found[1:] / scale
    bias = float(found[0] - per_nat @ centre)
    return Combination({n: float(w) for n, w in zip(names, per_nat, strict=True)}, bias)


def _logistic(rows: "ndarray", sides: "ndarray", weights: "ndarray") -> "ndarray":
    """Bias and weights of a logistic regression; ``sides`` are 1 and -1."""
    import numpy as np
    from scipy.optimize import minimize

    def loss(found: "ndarray") -> tuple[float, "ndarray"]:
        margins = sides * (found[0] + rows @ found[1:])
        slopes = -weights * sides * np.exp(-np.logaddexp(0.0, margins))
        value = weights @ np.logaddexp(0.0, -margins) + _RIDGE * found[1:] @ found[1:]
        return float(value), np.append(slopes.sum(), rows.T @ slopes + 2 * _RIDGE * found[1:])

    start = np.zeros(rows.shape[1] + 1)
    return minimize(loss, start, jac=True, method="L-BFGS-B").x  # type: ignore[no-any-return]
