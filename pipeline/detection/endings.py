"""How a text ends: whether it stops mid-sentence, or before what it announces.

A missing full stop proves nothing: names, numbers, list items, code, table rows, verses and
signatures go without. The one idea: the last line is put into one of those classes first, and
only prose is asked for the end of its sentence.
"""

import re
from typing import Final

from pipeline.detection.announced import announces, only_intends
from pipeline.detection.unclosed import left_open

_WINDOW: Final = 8000
"""Characters at the end of a text that tell how it ends."""
_LAST: Final = 600
"""Characters at the end of its last line that are looked at."""

_OPEN_WORDS: Final = frozenset(
    """
    a against although among and at because behind being beneath beside between beyond but
    con could das del dem der despite during e.g ein eine einen est et every except for from
    für had he i i.e including into ist las le les los mit my nor oder of onto or ou our
    para por shall she should sind sont such than the their they though throughout to toward
    towards und une unless upon via von we were whereas whether which while whom whose with
    would your zu
    """.split()
)
"""Words that can end no sentence and no phrase of any kind, in English and its neighbours."""

_WEAK_OPEN_WORDS: Final = frozenset(
    """
    about after also an any are as be been before between by called can could de den des die
    do du each el has have her his if in is its known la like may might more most must named
    no not off on only over per should since some that these this those through un under
    until very was were when where who will within without would
    """.split()
)
"""Words that end no sentence of more than a few words."""

_STARTERS: Final = frozenset(
    """
    a all an and as at but by each every for from he her his however i if in it its many most my on
    our she since so some the their there these they this those to we when while with you your
    """.split()
)
"""Words that, as the first of a sentence, are never its last."""

_JOINTS: Final = frozenset(
    "a an and are as at by for from has have in into is it of on that the to was were with".split()
)
"""Words without any of which a few words in a row are no sentence."""

_TERMINAL = re.compile(r"[.!?…。！？｡।؟۔:;][\"'”’»)\]}*_`~>]*$|[\"”»)\]}`>|*_~]$")
_SENTENCE_END = re.compile(r"[a-z0-9)\"'”’%][.!?…][\"'”’)\]]*(?=\s|$)")
_ITEM = re.compile(
    r"^[ \t]*(?:[-*•+–]|\(?\d{1,3}[.):]|\(?[a-zA-Z][.)]|[ivxIVX]{1,4}[.)])(?:[ \t]+|$)"
)
_CODE = re.compile(
    r"[;{}]$|^\s*(?:def|class|return|import|from \S+ import|for .+ in .+:|while .+:"
    r"|if .+:|else:|elif"
    r"|try:|except|print ?\(|console\.|var |let |const |function\b|public |private "
    r"|#include|SELECT\b|INSERT\b"
    r"|UPDATE\b|FROM\b|WHERE\b|<\/?[a-z]|\$ |>>> |@\w+|end$|fi$|done$|\w+(?:\.\w+)*\(.*\)$)"
    r"|[=<>!]=|=>|->|::|\w\(\w*\)|^\s*[\w.\[\]]+ [-+*/]?= \S"
)
_QUOTE_MARK = re.compile(r"^>[ \t](?!>)", re.MULTILINE)
_FIELD = re.compile(r"\*\*[^*\n]{1,40}(?:\*\*:|:\*\*)[ \t]*\S+(?:[ \t]+\S+){0,5}$")
"""A bold name with a short value, as of a product or a day."""
_NUMBER_END = re.compile(r"[\d²³⁰-⁹₀-₉½¼¾%°€$£¥][ \w%°/²³]{0,6}$")
_LINK_END = re.compile(r"(?:https?://|www\.|@|#)\S+$|\S+\.(?:com|org|net|edu|gov|io|html?|pdf|py)$")
_SIGN_OFF = re.compile(
    r"^(?:(?:yours )?(?:sincerely|truly|faithfully|respectfully)|(?:best|kind"
    r"|warm) ?(?:regards|wishes)?|regards"
    r"|(?:with )?(?:all |lots of |much )?(?:my |our )?love|thanks|thank you|cheers"
    r"|take care|warmly|cordially)\b.{0,12}$",
    re.IGNORECASE,
)
_TRAILS = re.compile(r"([^\W\d_]+),?(\s?)(?:\.{3,}|…)$")
_SUSPENSE = re.compile(
    r"\b(stor(y|ies)|poems?|lyrics?|songs?|dialog(ue)?s?|scenes?|suspense|thriller|horror|tale"
    r"|teaser"
    r"|cliffhanger|opening|sentences?|conversations?|texts?|message|character|monologue|complete"
    r"|continue|ellips\w+|dots)\b",
    re.IGNORECASE,
)
"""Words in an instruction whose answer may trail off."""
_SPACED = re.compile(r"[A-Za-z\u00c0-\u058f\u05d0-\u0e00\uac00-\ud7af]")
"""A letter of a script that parts words by spaces."""
_SPEAKER = re.compile(r"[A-Z][\w .'-]{0,30}: \S")
_EMOJI = re.compile(r"[\u2190-\u2bff\U0001f000-\U0001faff\ufe0f\u200d]$")


def ends_early(text: str, *, instruction: str = "") -> bool:
    """Whether a cleaned response stops mid-sentence or before what it announces.

    Args:
        text: A cleaned response; an empty one does not end early, that is another fault.
        instruction: What it responds to: an answer to some may trail off.
    """
    text = text.rstrip()
    if not text:
        return False
    if left_open(text):
        return True
    text = _QUOTE_MARK.sub("", text[-_WINDOW:])
    lines = [line for line in text.split("\n") if line.strip()]
    last = lines[-1].strip()[-_LAST:]
    if announces(last, lines) or only_intends(text):
        return True
    if _trails_off(last) and not _SUSPENSE.search(instruction):
        return True
    if text.endswith("```") or _TERMINAL.search(last) or _is_code(last, lines) or "|" in last:
        return False
    if last.endswith((",", "(", "[", "{", " -", "–", "—", "/", "&", "“", "«", "‘", "=")):
        return not _SIGN_OFF.match(last.rstrip(","))
    if _EMOJI.search(last) or _LINK_END.search(last):
        return False
    return _mid_sentence(text, lines, last)


def _trails_off(last: str) -> bool:
    """Dots in place of the rest of a sentence, as in an excerpt of a page."""
    match = _TRAILS.search(last) if last.endswith(("...", "…")) else None
    if not match or '"' in last:
        return False
    words = _words(re.split(r"[.!?]\s", last)[-1])
    word = match[1].lower()
    if word in _OPEN_WORDS or word in _WEAK_OPEN_WORDS:
        return len(words) > 4
    return word.islower() and len(words) >= (6 if match[2] else 8)


def _is_code(last: str, lines: list[str]) -> bool:
    if _CODE.search(last):
        return True
    return len(lines) > 1 and lines[-1].startswith(("    ", "\t")) and bool(_CODE.search(lines[-2]))


def _words(line: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:['’.-][^\W_]+)*", line)


def _mid_sentence(text: str, lines: list[str], last: str) -> bool:
    """Whether prose without a full stop is unfinished."""
    words = _words(last)
    if not words:
        return False
    if not _SPACED.search(last):
        return "。" in text and not _ITEM.match(lines[-1]) and len(last) >= 12
    if len(lines) > 1 and lines[-2].rstrip().endswith(":") and len(words) <= 8:
        return False
    final = words[-1].lower()
    if len(final) == 1 and words[-1].isupper():
        # A vitamin, a grade, a king: "Vitamin A", "Charles I". "... but I" is none of these.
        return final == "i" and len(words) > 2 and words[-2].islower()
    sentence_text = re.split(r"[.!?…][\"'”’)]*\s", last)[-1]
    sentence = _words(sentence_text)
    if _open_word(words[-1], len(sentence), alone=len(_words(text)) == 1):
        return True
    if _ITEM.match(lines[-1]):
        return _unlike_its_list(lines)
    if (
        _FIELD.match(last)
        or "=" in sentence_text
        or (_NUMBER_END.search(last) and len(sentence) <= 12)
    ):
        return False
    if _verse(lines) or _turns(lines) or _signature(lines, last) or _series(sentence_text):
        return False
    punctuated = bool(_SENTENCE_END.search(text[: -len(last)])) or len(sentence) < len(words)
    if punctuated:
        return len(sentence) >= 2 and not _title(sentence) or len(sentence) > 6
    return _cut_short(sentence, last)


def _cut_short(sentence: list[str], last: str) -> bool:
    """Whether words in a row without any stop before them are an unfinished sentence."""
    joined = any(word.lower() in _JOINTS for word in sentence)
    whole = last[0].isupper() and sentence[-1:] == [word.lower() for word in sentence[-1:]]
    return len(sentence) >= 12 or (len(sentence) >= 8 and whole and joined)


def _open_word(word: str, place: int, *, alone: bool) -> bool:
    """Whether a word, in that place of its sentence, cannot be its end."""
    final = word.lower()
    if final in _STARTERS and word.istitle() and place == 1 and not alone:
        return True
    return (final in _OPEN_WORDS and place > 1) or (final in _WEAK_OPEN_WORDS and place > 4)


def _unlike_its_list(lines: list[str]) -> bool:
    """A last item without a full stop where every other item of some length has one."""
    items = [line.strip() for line in lines[:-1] if _ITEM.match(line)]
    ended = [item for item in items if item.endswith((".", "!", "?"))]
    if not items or len(ended) < len(items):
        return False
    # Slogans and titles are stopped or not as their writer likes; sentences are not.
    said = sum(len(_words(item)) for item in items)
    return said >= 6 * len(items) and len(_words(lines[-1])) >= 2


def _verse(lines: list[str]) -> bool:
    """Several short lines, most of them without a full stop: verse, an address, a plain list."""
    if len(lines) < 3:
        return False
    near = lines[-6:]
    short = sum(len(_words(line)) <= 10 for line in near)
    bare = sum(not line.rstrip().endswith((".", "!", "?")) for line in near)
    return short == len(near) and 2 * bare > len(near)


def _turns(lines: list[str]) -> bool:
    """A dialogue whose speakers do without full stops."""
    spoken = [line.rstrip() for line in lines[-8:] if _SPEAKER.match(line)]
    bare = sum(not line.endswith((".", "!", "?", '"', "”")) for line in spoken)
    return len(spoken) >= 3 and bool(_SPEAKER.match(lines[-1])) and 3 * bare >= len(spoken)


def _series(sentence: str) -> bool:
    """Names or words one after another, between commas."""
    items = re.split(r"[,;]", sentence)
    return len(items) >= 4 and all(len(_words(item)) <= 3 for item in items)


def _signature(lines: list[str], last: str) -> bool:
    words = _words(last)
    if len(lines) > 1 and _SIGN_OFF.match(lines[-2].strip().rstrip(",")) and len(words) <= 8:
        return True
    return len(lines) > 1 and len(words) <= 4 and (_title(words) or bool(_SIGN_OFF.match(last)))


def _title(words: list[str]) -> bool:
    return all(word[0].isupper() or word[0].isdigit() for word in words)
