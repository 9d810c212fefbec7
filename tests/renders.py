"""Reports rendered again for tests of ``verify``, which look at the same run many times."""

from collections.abc import Sequence
from typing import Any

from agent.records import RoundRecord, RunRecord
from agent.verify.rendering import Files, rendered


class Kept:
    """Renders again only what differs from what was rendered before."""

    def __init__(self, most: int) -> None:
        """Keep the first ``most`` answers, and the latest one."""
        self._most = most
        self._known: list[tuple[Any, Files]] = []

    def begin(self, run: RunRecord, rounds: Sequence[RoundRecord]) -> None:
        pass

    def files(self, run: RunRecord, rounds: Sequence[RoundRecord]) -> Files:
        asked = (run, tuple(rounds))
        for known, files in self._known:
            if known == asked:
                return files
        files = rendered(*asked)
        self._known = [*self._known[: self._most], (asked, files)]
        return files

    def close(self) -> None:
        pass
