"""The index of instructions seen: what is in it is dropped before a response is paid for.

Two instructions are the same when they are equal after Unicode NFKC, case folding and folding of
white space.
"""

import unicodedata
from collections.abc import Iterable


def normalise(instruction: str) -> str:
    """The form in which two instructions are compared."""
    return " ".join(unicodedata.normalize("NFKC", instruction).casefold().split())


class NoveltyIndex:
    """Instructions seen so far, in memory."""

    def __init__(
        self, instructions: Iterable[str] = (), *, beside: "NoveltyIndex | None" = None
    ) -> None:
        """An index of ``instructions``, which also knows those ``beside`` it but never adds there.

        A micro-batch works on an index beside the committed one, so that work which fails leaves
        no trace.
        """
        self._beside = beside
        self._seen = {normalise(i) for i in instructions}

    def add(self, instruction: str) -> bool:
        """Whether the instruction is a novelty; from now on it is not."""
        key = normalise(instruction)
        if key in self:
            return False
        self._seen.add(key)
        return True

    def __contains__(self, key: str) -> bool:
        return key in self._seen or (self._beside is not None and key in self._beside)

    def __len__(self) -> int:
        return len(self._seen)
