"""Lines of web pages, which turn up in an answer that came out of one.

Whether they count is decided in ``further.py``; marks that end an answer for certain are in
``scaffold.py``. The one idea: a line is looked at by itself, and cheap questions are asked first.
"""

import re

_TAG = re.compile(
    r"</?(?:h\d|b|p|div|img|a|table|tr|td|br|center|font|script|style|ul|ol|li|span|u|i|strong"
    r"|em)\b[^<>]{0,200}>",
    re.IGNORECASE,
)
_FRAME = re.compile(
    r"(?:Posted|Published|Updated|Submitted|Last (?:updated|modified)) (?:by|on|in|at)\b"
    r"|(?:Views|Comments|Tags|Categories|Share|Tweet|Download)\b.{0,30}$",
    re.IGNORECASE,
)
_CLICK = re.compile(r"\bclick (?:here|below|on the)\b", re.IGNORECASE)
_ADVERTISES = re.compile(
    r"\b(?:check out our|sign up (?:for|to)|subscribe to|our (?:website|web site|blog|store|shop"
    r"|newsletter|site)|contact us|visit us|free shipping|add to cart|privacy policy|terms of use"
    r"|read more|learn more about|this (?:website|web site|blog post|page|post|article|video)\b)",
    re.IGNORECASE,
)
_OWNED = (
    "our ",
    " us",
    "sign up",
    "subscribe",
    "free ship",
    "cart",
    "polic",
    "terms ",
    "more",
    "this ",
)
"""Words without one of which no page speaks so; much quicker to look for."""
_ADDRESS = re.compile(r"^(?:https?://|www\.)\S+$|^[Bb]y [A-Z]\w+ [A-Z]\w+$")


def of_page(line: str) -> bool:
    """Whether a line has a tag of a page, or the words of its frame."""
    clicks = "click" in line.lower() and _CLICK.search(line)
    return bool(_FRAME.match(line) or clicks or ("<" in line and _TAG.search(line)))


def is_address(line: str) -> bool:
    """Whether a line is an address of the web, or a byline, and nothing else."""
    return _ADDRESS.match(line) is not None


def advertises(line: str) -> bool:
    """Whether a line speaks as the owner of a page to its visitors."""
    small = line.lower()
    return any(word in small for word in _OWNED) and _ADVERTISES.search(line) is not None
