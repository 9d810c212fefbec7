"""Signs that a response goes on into further tasks, weighed together.

A mark that is a boundary by itself is found in ``boundary.py``, where the cleaner cuts; here
nothing is cut, so a sign may be weak. The one idea: each sign holds on any scaffold, and a
response runs away when the weights of its signs reach ``ENOUGH``: one that good answers hardly ever
show, or two that they show now and then.
"""

import re
from collections.abc import Iterator, Sequence

from pipeline.detection.asked import asked_for_more
from pipeline.detection.lines import Line, lines_of
from pipeline.detection.pages import advertises, is_address, of_page
from pipeline.detection.scaffold import MARKUP_REQUEST, REQUESTS
from pipeline.detection.sign import ENOUGH, LIKELY, SURE, Sign, alike
from pipeline.detection.turns import labelled
from pipeline.detection.wants import Wants

_PREAMBLE = re.compile(
    r"below (?:is|are) (?:an? )?(?:instructions?|questions?|tasks?) that\b|write a response that\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"\w+")


def further_tasks(text: str, instruction: str) -> bool:
    """Whether the signs of further tasks in a response are enough."""
    return sum(sign.weight for sign in signs(text, instruction)) >= ENOUGH


def signs(text: str, instruction: str) -> list[Sign]:
    """What speaks for further tasks in a response, each with its weight."""
    lines = list(lines_of(text))
    if not lines or not instruction:
        return []  # Nobody can say what was asked for.
    first = lines[0].text
    wants = Wants(instruction, first if first.endswith((":", "：")) else "")
    found = [
        *_page(lines, instruction),
        *_echoes(lines, instruction),
        *_preamble(lines, instruction),
    ]
    if not wants.requests:
        found += asked_for_more(lines, instruction, wants)
    if not wants.talk:
        found += labelled(lines, wants, computes=_computes(text, instruction))
    return found


def _page(lines: Sequence[Line], instruction: str) -> Iterator[Sign]:
    """Parts of web pages after an answer that had none."""
    parts = [line for line in lines[1:] if _from_page(line)]
    if not parts or of_page(lines[0].whole) or MARKUP_REQUEST.search(instruction):
        return
    for line in parts:
        if of_page(line.whole):
            yield Sign("a part of a web page", SURE if line.alone else LIKELY)
        elif is_address(line.text):
            yield Sign("an address or a byline by itself", LIKELY)
        else:
            yield Sign("speaks as a web page does", LIKELY)


def _from_page(line: Line) -> bool:
    return of_page(line.whole) or is_address(line.text) or advertises(line.text)


def _preamble(lines: Sequence[Line], instruction: str) -> Iterator[Sign]:
    """What prompts for language models begin with, after an answer."""
    for line in lines[1:]:
        if _PREAMBLE.match(line.text) and not _PREAMBLE.search(instruction):
            yield Sign("the preamble of a prompt", SURE)


def _echoes(lines: Sequence[Line], instruction: str) -> Iterator[Sign]:
    """The instruction said again after the answer, in its own words or nearly."""
    size = len(instruction)
    if len(set(_WORD.findall(instruction.lower()))) < 4:
        return
    for line in lines[1:]:
        near = size < 2 * len(line.text) < 4 * size
        if near and line.text.count(" ") >= 3 and alike(line.text, instruction):
            yield Sign("the instruction again", LIKELY)


def _computes(text: str, instruction: str) -> bool:
    """Code was asked for or shown, which has inputs and outputs."""
    return "```" in text or REQUESTS["io"].search(instruction) is not None
