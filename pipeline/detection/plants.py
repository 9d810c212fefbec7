"""Planted positives: good answers spoilt mechanically, one kind of fault for each detector.

What a plant must look like follows from the definition of its metric, not from how a detector
works, so that a detector which looks for the wrong thing fails its certificate. Whether plants
survive cleaning is the business of ``certify.py``. The one idea: a fault is made from two good
pairs and a number, so every set of controls is the same in every run.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol


class GoodPair(Protocol):
    """What plants are made from."""

    @property
    def instruction(self) -> str:
        """What is asked."""

    @property
    def response(self) -> str:
        """A good answer."""


Plant = tuple[str, str]
"""Raw response, and why the engine ended it."""

_SCAFFOLDS: Final = (
    "\n\nInstruction: {i}\nResponse: {r}",
    "\n\nQ: {i}\nA: {r}",
    "\n\nInput: {i}\nOutput: {r}",
    "\nUser: {i}\nAssistant: {r}",
    "\n\n### Instruction:\n{i}\n\n### Response:\n{r}",
    "\n\nTask {n}: {i}\nAnswer: {r}",
    "\n\nHuman: {i}\n\nAssistant: {r}",
    "\n\n{n}. {i}\n{r}",
    "<|endoftext|>{i}\n\n{r}",
    "\n\nQuestion: {i}\nAnswer: {r}",
    "\n\nInstruction: {i}",
    "\n###\n{i}\n{r}",
    "\n</p>\n<p>Posted by admin</p>\n<p>{i}</p>",
    "\n\n**Instruction:** {i}\n**Response:** {r}",
    "\n\nFrage: {i}\nAntwort: {r}",
    "\n\nPregunta: {i}\nRespuesta: {r}",
    "\n### Human: {i}\n### Assistant: {r}",
    "\n\nPrompt: {i}\nCompletion: {r}",
    "\nuser: {i}\nassistant: {r}",
    "\n\n<question>{i}</question>\n<answer>{r}</answer>",
    "\n\nCommand: Name a fruit.\nResult: A pear\n\nCommand: Explain this: {i}\nResult: {r}",
)
_LEAKS: Final = (
    "{a}### {b}", "{a}###{b}", "{a} ### Instruction: {i}", "{a} Instruction: {i}",
    "{a} Response: {b}",
    "{a}###END### {b}", "{a} Q: {i}", "{a} Question: {i} {b}", "{a}###Response {b}", "{a} #### {b}",
)  # fmt: skip
_ANNOUNCEMENTS: Final = (
    "Certainly! Here's a short poem about the sea:",
    "The main differences between the two are:",
    "Here is a table of the results:",
    "To install it, run the following command:",
    "The recipe has four steps. They are as follows:",
    "Many fruits are rich in vitamin C. For example,",
    "**Ingredients:**",
    "Winter has its own charm.\n\n## Winter sports",
    "Here is a simple Python program:",
    "Here are three examples:",
    "The steps are as follows:",
    "Sure! Below is a list of ideas:",
    "There are several reasons for this, such as",
    "You will need the following ingredients:",
    "1. Preheat the oven.\n2.",
    "Here is the code:\n\n```python",
)
_EMPTY: Final = ("", " ", "\n", "\n\n", " \n \n", "\t", "\u200b", "###", "...", '""', " \n###\n")


def runaways(pairs: Sequence[GoodPair]) -> Iterator[Plant]:
    """A second task, turn or document after a good answer, on every scaffold in turn."""
    for place, pair, other in _with_another(pairs):
        form = _SCAFFOLDS[place % len(_SCAFFOLDS)]
        yield (
            f" {pair.response}"
            + form.format(i=other.instruction, r=other.response, n=place % 7 + 2),
            "eos",
        )


def repetitions(pairs: Sequence[GoodPair]) -> Iterator[Plant]:
    """Loops over a word, a phrase, a line and a numbered list."""
    for place, pair, other in _with_another(pairs):
        words = [w for w in other.instruction.rstrip("?.").split() if w.isalpha()]
        word, phrase = words[-1], " ".join(words[:4])
        line = _worded(other.response)
        yield (
            (f" {pair.response} " + f"{word} " * 20, "length"),
            (" " + f"{phrase}, " * 8, "length"),
            (f" {pair.response}\n" + f"{line}\n" * 5, "eos"),
            ("".join(f"{n}. {phrase}\n" for n in range(1, 13)), "eos"),
            (" " + f"The {word} is the {words[0]} of the {words[1]}. " * 6, "length"),
            (f" {pair.response}" + f"\n\nQ: {other.instruction}\nA: {line}" * 4, "length"),
            (" " + "".join(f"{n}. {w} " for n, w in enumerate(words[:4] * 4, 1)), "length"),
            (f" It says {phrase} in the end. {pair.response} " * 3, "eos"),
        )[place % 8]


def truncations(pairs: Sequence[GoodPair]) -> Iterator[Plant]:
    """Prose cut between two words of its last sentence, and announcements of nothing."""
    for place in range(len(_ANNOUNCEMENTS)):
        yield " " + _ANNOUNCEMENTS[place], "stop"
    for pair in pairs:
        for cut in _cuts(pair.response):
            yield f" {cut}", "eos"


def leaks(pairs: Sequence[GoodPair]) -> Iterator[Plant]:
    """A delimiter, a scaffold mark or a part of one left within the text."""
    # Twice as many as of other faults: with many stop strings the cleaner repairs most of them.
    for place, pair, other in _with_another(pairs, turns=4):
        form = _LEAKS[place % len(_LEAKS)]
        text = form.format(a=_sentence(pair), b=other.response, i=other.instruction)
        yield f" {text}", "eos"


def limits(pairs: Sequence[GoodPair]) -> Iterator[Plant]:
    """Answers that the token cap ended."""
    for pair in pairs:
        yield f" {pair.response[: 2 * len(pair.response) // 3]}", "length"


def empties(pairs: Sequence[GoodPair]) -> Iterator[Plant]:
    """No text, or nothing but the next task."""
    for blank in _EMPTY:
        yield blank, "eos"
    for place, pair, _ in _with_another(pairs):
        follows = f"\n\nInstruction: {pair.instruction}\nResponse: {pair.response}"
        yield _EMPTY[place % len(_EMPTY)] + follows, "length"


PLANTS: Final[dict[str, Callable[[Sequence[GoodPair]], Iterator[Plant]]]] = {
    "runaway": runaways,
    "repetition": repetitions,
    "token_limit": limits,
    "truncated": truncations,
    "delimiter_leak": leaks,
    "empty": empties,
}
"""Plants of each detector, by its name."""


def _with_another(
    pairs: Sequence[GoodPair], *, turns: int = 2
) -> Iterator[tuple[int, GoodPair, GoodPair]]:
    """Pairs with answers of one line, each ``turns`` times with another one, far away."""
    plain = [p for p in pairs if _plain(p.response) and _spaced(p)]
    for place in range(turns * len(plain)):
        turned = (place + len(plain) // 2 + place // len(plain)) % len(plain)
        yield place, plain[place % len(plain)], plain[turned]


def _plain(response: str) -> bool:
    return "\n" not in response and response[-1] not in "};"


def _spaced(pair: GoodPair) -> bool:
    """The instruction has words enough to make a loop of."""
    return sum(word.isalpha() for word in pair.instruction.rstrip("?.").split()) >= 4


def _sentence(pair: GoodPair) -> str:
    return pair.response.rstrip(".,:;") + "."


def _worded(text: str) -> str:
    return text if any(c.isalpha() for c in text) else f"It is {text}"


def _cuts(response: str) -> Iterator[str]:
    """Prose of 15 words or more, cut within its last sentence; verse and lists are none."""
    lines = response.replace("\n\n", " ").split("\n")
    listed = len(lines) > 1 or any(p and not p[0].isalpha() for p in response.split("\n"))
    if len(response.split()) < 15 or not response.endswith(".") or listed:
        return
    head, _, last = response.rstrip(".").rpartition(". ")
    words = last.split(" ")
    for left in sorted({len(words) // 2, 2 * len(words) // 3, 5 * len(words) // 6}):
        text = (f"{head}. " if head else "") + " ".join(words[:left])
        if left >= 2 and text[-1].isalpha():
            yield text
