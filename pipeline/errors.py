"""Everything that can go wrong and be told to a person, in reading order.

One root, a few subclasses named after the border that was crossed. Errors are raised at that
border and caught once, in ``agent/__main__.py``. Errors of money, people and runs extend this
tree in ``agent/errors.py``.
"""


class AgentError(Exception):
    """The root: a message for a person that says what was found, what was expected, what to do."""

    exit_code = 10


class ConfigError(AgentError, ValueError):
    """Something a user wrote is wrong: budget.yaml, an option, an environment variable."""

    exit_code = 2


class DataError(AgentError, ValueError):
    """A file of rows cannot be read as what it claims to be."""

    exit_code = 2


class EngineError(AgentError):
    """A model could not be found, loaded or run, or did not do what it was asked."""


class EngineOutOfMemory(EngineError):
    """A batch did not fit into the device's memory; a smaller one may."""


class EngineLost(EngineError):
    """The engine's process ended by itself, or gave no sign of life and was ended."""


class EngineTimeout(EngineError):
    """The engine was still at work when its lease ended."""


class SentinelError(EngineError):
    """A contamination sentinel failed: what would be generated is not a base model's own text."""
