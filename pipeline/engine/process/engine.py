"""An engine in a process of its own, which can be ended: by its lease, its silence, or its death.

A hang, a fault of the device or an out-of-memory kill ends that process and not the run. The one
idea: memory that ran out is answered with half the batch, or first with another try where that
would not make the call smaller, and every such re-plan is kept, so that it can be recorded and
held to. Which engine it is, is left to a factory that the process imports.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from pipeline.engine.base import EngineSpec, Replan
from pipeline.engine.process.child import Child
from pipeline.errors import AgentError, EngineError, EngineOutOfMemory, EngineTimeout
from pipeline.types import Completion, EngineInfo, GenRequest, Score, ScoreRequest

FACTORY: Final = "pipeline.engine.local.hf:HFEngine.open"
SILENCE_SECONDS: Final = 60.0
"""A process that gave no sign of life for so long is taken to hang."""


class ProcessEngine:
    """An engine in a child process, as an :class:`~pipeline.engine.base.Engine` with a lease."""

    def __init__(
        self, spec: EngineSpec, *, factory: str = FACTORY, silence: float = SILENCE_SECONDS
    ) -> None:
        """Start the process, which begins to load; the first verb waits until it is ready.

        Args:
            spec: What ``factory`` is called with.
            factory: ``module:name`` of a function that returns an engine.
            silence: Seconds without a sign of life after which the process is ended.
        """
        self._spec = spec
        self._factory = factory
        self._silence = silence
        self._info: EngineInfo | None = None
        self._seconds = self._until = math.inf
        self._replans: tuple[Replan, ...] = ()
        self._child = self._start()

    @property
    def info(self) -> EngineInfo:
        """What the engine is, with the batch size that it works with now."""
        self._ready()
        assert self._info is not None
        return self._info

    @property
    def replans(self) -> tuple[Replan, ...]:
        """What running out of memory has changed so far."""
        return self._replans

    def lease(self, seconds: float) -> None:
        """From now on, all further work together may take ``seconds``, loading included."""
        self._seconds, self._until = seconds, time.monotonic() + seconds

    def generate(self, requests: Sequence[GenRequest]) -> list[Completion]:
        """One completion for each request, in order.

        Raises:
            EngineError: what the engine itself raises, and if it answers with another number.
            EngineTimeout: at the end of the lease.
            EngineLost: if the process ended by itself or gave no sign of life.
            EngineOutOfMemory: if not even one row at a time fits.
        """
        return self._batch("generate", requests)

    def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[Score, ...]]:
        """For each request, one score for each of its continuations; raises as ``generate``."""
        return self._batch("score", requests)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, special tokens not added; raises as ``generate``."""
        return self._batch("count_tokens", texts)

    def stop(self) -> None:
        """End what it does, from any thread or signal handler; that raises EngineLost."""
        self._child.kill()

    def close(self) -> None:
        """End the process, whatever it does."""
        self._child.end()

    def _start(self) -> Child:
        return Child((self._factory, self._spec), silence=self._silence)

    def _batch(self, verb: str, rows: Sequence[Any]) -> list[Any]:
        tried_again = False
        while True:
            self._ready()
            try:
                answers: list[Any] = self._ask(verb, list(rows))
            except EngineOutOfMemory as error:
                size = self._info.batch_size if self._info else None
                if not tried_again and size is not None and len(rows) < size // 2:
                    tried_again = True
                    self._go_on(size)
                else:
                    self._replan(error, size)
                continue
            if len(answers) != len(rows):
                raise EngineError(
                    f"the engine returned {len(answers)} answers to {len(rows)} requests of {verb}"
                )
            return answers

    def _ready(self) -> None:
        """Wait until the process has loaded its engine.

        Raises:
            EngineError: if it cannot, or is gone.
        """
        if self._child.ended:
            raise EngineError("the engine is closed; open it again")
        if self._info is None:
            try:
                self._info = self._hear()
            except EngineOutOfMemory as error:
                raise EngineOutOfMemory(
                    f"{error}; the model itself does not fit: set engine.quantization, or choose "
                    "a smaller model or a larger device"
                ) from error
            finally:
                if self._info is None:
                    self._child.end()

    def _ask(self, *message: object) -> Any:
        self._child.tell(message)
        return self._hear()

    def _hear(self) -> Any:
        try:
            answer = self._child.hear(self._until)
        except TimeoutError:
            raise EngineTimeout(
                f"the engine was still at work when its lease of {self._seconds:.0f} s ended, and "
                "was stopped; raise engine.lease_seconds or lower pilot.micro_batch and "
                "scale.micro_batch in budget.yaml"
            ) from None
        if isinstance(answer, AgentError):
            raise answer
        return answer

    def _replan(self, error: EngineOutOfMemory, size: int | None) -> None:
        """Halve the batch."""
        if size is None or size < 2:
            raise EngineOutOfMemory(
                f"{error}; not even one row at a time fits: shorten prompts or max_new_tokens, "
                "set engine.quantization, or choose a smaller model or a larger device"
            ) from error
        self._go_on(size // 2)
        self._replans += (Replan(str(error), size, size // 2),)

    def _go_on(self, size: int) -> None:
        """Take batches of ``size`` rows, in the process or, if that died, in another one."""
        assert self._info is not None
        self._spec = replace(self._spec, batch_size=size)
        if self._child.ended:
            self._child, self._info = self._start(), None
        else:
            self._ask("resize", size)
            self._info = replace(self._info, batch_size=size)
