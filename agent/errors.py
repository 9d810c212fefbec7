"""Errors of money, people and runs; they extend the tree of ``pipeline/errors.py``."""

from pipeline.errors import AgentError, ConfigError, DataError, EngineError, SentinelError

__all__ = [
    "AgentError",
    "ApprovalError",
    "BudgetError",
    "ConfigError",
    "DataError",
    "EngineError",
    "LedgerError",
    "ReviewerError",
    "RunError",
    "RunLocked",
    "SentinelError",
    "StorageError",
]


class RunError(AgentError):
    """A run id that does not exist, leaves the reports folder, or is in the wrong state."""

    exit_code = 2


class RunLocked(RunError):
    """Another process works on the same run."""

    exit_code = 11


class StorageError(AgentError):
    """The disk is full or a file of the run cannot be written."""

    exit_code = 12


class LedgerError(AgentError):
    """The ledger refused an operation that contradicts what it already holds."""


class BudgetError(LedgerError):
    """A reservation does not fit under a cap: a planned ending, not a fault."""

    exit_code = 4


class ReviewerError(AgentError):
    """The reviewer could not be reached, or answered nothing usable: the run holds."""

    exit_code = 9


class ApprovalError(AgentError):
    """A plan or an approval that does not exist, has expired, or covers something else."""

    exit_code = 2
