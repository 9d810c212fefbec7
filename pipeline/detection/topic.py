"""What a text is about: the stems of its content words.

Whether a request belongs to a conversation is decided in ``asked.py``. The one idea: who asks back
speaks of what was asked, or says that it asks back; a task of its own does neither.
"""

import re
from collections.abc import Set
from typing import Final

_WORD = re.compile(r"[^\W\d_]{3,}")
_ENDING = re.compile(r"(?<=\w{3})(?:ing|ed|es|s|er|ly)$")
_STEM: Final = 5
"""Letters of a word that are compared, so that ``metals`` and ``metallic`` agree."""
_COMMON: Final = frozenset(
    """
    about above after again also although and answer any are aren because been before being
    below between both but call called can circle complete correct could describe did does doing
    don down draw during each either else ever every example explain feel few find following for
    from get give had has have having her here hers him his how however into its just know less
    like list made make many may mean might more most much must name need never next not now off
    often once one only other our ours out over own people please same say see several she
    should some such take tell than that the their them then there these they thing things think
    this those through time times too two under until upon use used using very was way ways well
    were what when where whether which while who whom whose why will with word words work works
    would write you your yours
    """.split()
)
"""Words that say nothing about a subject, tasks' own verbs among them."""
_ASKS_BACK = re.compile(
    r"(?:^|[.!?,;:–—-] ?|\b(?:and|or|so|but|first) )(?:could|can|would|will|may|shall"
    r"|should) (?:you|i|we)\b"
    r"|\b(?:can|could|may|shall|should) (?:i|we)\b"
    r"|\b(?:do|did) you (?:mean|want|need|prefer|already|also|happen|know whether|remember)\b"
    r"|\bare you (?:asking|looking|interested|after|referring|trying|using|planning|thinking)\b"
    r"|\b(?:what|which) (?:kind|sort|type|part|aspect|version|one)\b(?!.*\bwould you\b)"
    r"|\bwould you (?:like|prefer|rather)\b|\byou['’]d (?:like|prefer)\b|\blet me know\b"
    r"|\bplease\b|\bsorry\b",
    re.IGNORECASE,
)
"""The words of somebody who asks back or offers."""
_EXAM = re.compile(
    r"(?:what|who) do (?:you|we) call\b|(?:why|how|what|where|who"
    r"|which)\b.{0,12}\bdo you think [^?]"
    r"|what do you know about\b|(?:what|which)\b.{0,60}\bwould you (?:find|have|expect|use|put"
    r"|see|call)"
    r"|how many times\b|how long have you\b|what colou?rs?\b|if you (?:could|were|had)\b"
    r"|how (?:do|would) you (?:say|spell|write|know|call|find|make|describe|feel about)\b",
    re.IGNORECASE,
)
"""Forms of exam questions that say "you" and ask nobody in particular."""
_TELLS = re.compile(r"\b(?:i|i['’]\w+|my|we|our|me)\b(?![^?]*\?)", re.IGNORECASE)
"""Somebody who speaks of themselves, and does not ask."""


def stems(text: str) -> frozenset[str]:
    """The stems of a text's content words."""
    words = (word.lower() for word in _WORD.findall(text))
    return frozenset(_ENDING.sub("", word)[:_STEM] for word in words if word not in _COMMON)


def foreign_to(known: Set[str], line: str, *, least: int = 1) -> bool:
    """Whether a line is about something else than what is known, in so many content words."""
    own = stems(line)
    return line.isascii() and len(own) >= least and not own & known


def asked_of_nobody(line: str) -> bool:
    """Whether a question says "you" as exams do."""
    return _EXAM.match(line) is not None


def asks_back(line: str, instruction: str) -> bool:
    """Whether a question may be put by an assistant who needs to know more."""
    if asked_of_nobody(line):
        return False
    if _ASKS_BACK.search(line) or _TELLS.search(instruction) or not line.isascii():
        return True
    return bool(stems(line) & stems(instruction))
