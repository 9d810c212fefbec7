"""What reads as a request, line by line, and which requests an instruction asks for.

Which requests make a response a runaway is decided in ``further.py``. The one idea: a request is
known by its grammar, a question mark or the verb of an order, and not by the scaffold around it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from pipeline.detection.body import CODE
from pipeline.detection.scaffold import QUESTION, REQUESTS

_LEAD = re.compile(
    r"^[ \t]*(?P<mark>[#>*_\-•+]*[ \t]*)(?P<ordinal>\(?(?:\d{1,3}[.):]|[a-zA-Z][.)])[ \t]*)?[*_]*"
    r"(?:(?P<label>[A-Z](?:[^\W\d_]|['-]){0,14}(?: [^\W\d_]{1,12})?|[A-Za-z])"
    r"[ \t]?(?:\#?\d{1,3})?[*_]{0,3}"
    r"[:：][*_]*[ \t]*)?"
)
_HEADED = re.compile(r"(?:[-*•+]|\d{1,3}[.)])[ \t]+\*\*[^*\n]{1,60}\*\*")
_SAYS = re.compile(r"\w")
_QUESTION_MARKS: Final = ("?", "？", "؟")
_TRAILING = re.compile(r"[ \t]*(?:\([^()\n]{0,60}\)|\[[^\[\]\n]{0,60}\]|[_.]{3,})?[ \t]*$")
_ORDERS = re.compile(
    r"(?:Please |Now |Briefly |In your own words,? )?"
    r"(?:Write (?:an?|about|down|the|your|one|two|three|four|five|some|in|out|each|\d+)"
    r"|Name|List|Explain|Describe|Translate|Summari[sz]e|Define|Compare|Classify|Rewrite|Convert"
    r"|Calculate|Compute|Generate|Compose|Identify|Discuss|Outline|Paraphrase|Categori[sz]e"
    r"|Give (?:an?|one|two|three|four|five|me|some|the|your|examples?|\d+)|Tell (?:me|us|about|what"
    r"|how|why)|Create (?:an?|your)|Suggest|Provide (?:an?|one|two|three|some|the|examples?)"
    r"|Make (?:up|an? (?:list|sentence|story|poem|table|chart))|Choose (?:the|one|a)"
    r"|Find the|Complete (?:the|each)|Fill in|Answer (?:the|each|in)|Match|Circle|Underline|Select"
    r"|Determine|Solve|Simplify|Evaluate|Analy[sz]e|Read the|Use (?:the|each|these) (?:\w+ )?"
    r"(?:words?|following|sentences?|passage|text|information)|Correct the|Arrange|Look at the"
    r"|Think of an?|State|Show (?:that|how|your)|Draw an?|Repeat|Count|Mention|Construct"
    r"|Design|Develop|Indicate|Distinguish|Sort|Rank|Estimate|Illustrate|Justify|Propose)\b"
    r"[^\n]{4,400}"
)
_FORMAT = re.compile(
    r"\b(?:below (?:is|are) (?:an? |some |the )?(?:list of )?(?:instruct|question|task|problem)"
    r"|write a response that|appropriately completes?|fill in the (?:blanks?|missing|gaps?)"
    r"|(?:choose|select|circle|pick|mark|tick|underline) the (?:correct|best|right|word|letter"
    r"|answer)"
    r"|(?:answer|solve|complete|translate|read|rewrite|do|consider) (?:each of )?the (?:following|"
    r"sentences?|questions?|statements?|passages?|problems?|exercises?)\b"
    r"|(?:use|put|match|change|correct|arrange|fill) (?:each|all) (?:of )?the\b"
    r"|following (?:multiple|questions?\b|instructions?\b|tasks?\b|exercises?\b|problems?\b)"
    r"|given the following|in this (?:task|exercise),? you|multiple[- ]choice|true or false"
    r"|you are (?:an? )?(?:helpful|ai\b|expert|assistant)"
    r"|in (?:your own words|complete sentences)\b)|[(\[]\d{1,2} (?:points?|marks?|pts?)[)\]]",
    re.IGNORECASE,
)
_FORMAT_WORDS: Final = (
    *("below ", "write a response", "appropriately", "fill in the", "following ", "in this "),
    *("the correct", "the best", "the right", "the word", "the letter", "the answer"),
    *("the following", "the sentence", "the question", "the statement", "the passage"),
    *("the problem", "the exercise", "each the", "each of the", "all the", "all of the"),
    *("multiple", "true or", "you are ", "in your own", "in complete", " point", " mark", " pt"),
)
"""Words without one of which nothing of that form is said; much quicker to look for."""

ABOUT_US: Final = re.compile(
    r"\b(you|your|yours|i|we|us|our|my|me|let's|happy|glad|sure|certainly|of course|help"
    r"|ich|du|dir|dich|sie|ihnen|ihr|wir|mir|je|tu|vous|votre|nous|yo|usted|te|tú|eu|você|io|ti|jij"
    r"|я|вы|вам|ты|мы)\b|[我您你私]",
    re.IGNORECASE,
)
"""Words for the reader and the writer."""

_GIVEN = re.compile(
    r"\b(?:answers?|answering|read|following|this|these|above|below|solve|complete|the|each|asked)"
    r"(?:\s+\w+){0,2}?\s+(?:questions?|exercises?|tasks?|problems?|tests?|prompts?)\b",
    re.IGNORECASE,
)
_WANTS_REQUESTS = re.compile(
    r"\b(questions?|ask|quiz\w*|riddles?|trivia|tasks?|prompts?|exercises?|worksheets?|survey|faqs?"
    r"|interview\w*|assignments?|puzzles?|exams?|tests?|homework|jokes?|puns?|flash ?cards?|poll"
    r"|q ?(?:&|and|/) ?a|instructions?"
    r"|questionnaire|problems?|challenges?|examples? of (?:an? )?(?:question|imperative|command)\w*"
    r"|imperatives?|topics?|brainstorm|lesson|icebreakers?|debate)\b",
    re.IGNORECASE,
)
_WANTS_ONE = re.compile(
    r"\b(rewrite|translat\w*|correct|paraphrase|repeat|titles?|headlines?|slogans?|mottos?|turn"
    r"|rephrase|proofread|complete|quotes?|quotations?|lines?|sayings?|famous|caption|subject)\b",
    re.IGNORECASE,
)
_WANTS_TALK = re.compile(
    r"\b(dialog(?:ue)?s?|conversations?|chats?|interviews?|scripts?|transcripts?|plays?|scenes?|skit"
    r"|role-?play|stor(?:y|ies)|socratic|debate|exchange|monologue|podcast|users?|roles?"
    r"|di[aáà]log\w*|gespräch\w*|conversa\w*|conversazion\w*|entrevista\w*|gesprek\w*|rozmow\w*"
    r"|диалог\w*|разговор\w*|diyalog\w*|konuşma\w*)\b|对话|對話|対話|会話|대화",
    re.IGNORECASE,
)
_WANTS_ORDERS = re.compile(
    r"\b(how (?:to|do|does|can|should|would|could|might)|tips?|advi[cs]e|steps?|ways?|guid\w+"
    r"|plans?|schedule|rules?|strateg\w+|improve|help|suggest\w*|recommend\w*|procedure|methods?"
    r"|process|should|to do|practices|commands?|checklist|agenda|goals?|resolutions?|signs?"
    r"|derive|derivation|proo?[fv]\w*|solv\w+|calculat\w+|comput\w+|show that|poster|activit\w+"
    r"|ideas|habits?|outline|template|recipes?)\b",
    re.IGNORECASE,
)
_WANTS_PROSE = re.compile(
    r"\b(di[aáà]log\w*|stor(?:y|ies)|letters?|essays?|speech|blog|poems?|songs?|lyrics?|posts?"
    r"|articles?|ads?|advert\w*|scripts?|e-?mails?|tweets?|captions?|conversations?|scenes?|skit"
    r"|monologue|reviews?|messages?|sentences?|text|paragraphs?|continue|edit|chat|role-?play"
    r"|socratic|sonnet|haiku|limerick|verses?|raps?|diary|journal|introduction|pitch|guide|novel"
    r"|plays?|toast|invitation|newsletter|podcast|transcript|fable|tale|narrat\w+|transcrib\w*)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Wants:
    """What an instruction asks for, as far as requests in its answer go, read from its words."""

    instruction: str
    """The instruction; a question that it sets is none that it asks for."""
    announced: str = ""
    """What the answer says that it will give, as in "Here is a toast:"."""

    @cached_property
    def requests(self) -> bool:
        """Questions or tasks themselves: none of them is a fault."""
        said = _GIVEN.sub(" ", self.instruction)
        return bool(_WANTS_REQUESTS.search(said) or REQUESTS["qa"].search(said))

    @cached_property
    def orders(self) -> bool:
        """Advice or steps, which are written as orders."""
        return bool(_WANTS_ORDERS.search(self.instruction))

    @cached_property
    def prose(self) -> bool:
        """A text in which somebody may ask, such as a letter or a story."""
        return any(_WANTS_PROSE.search(said) for said in (self.instruction, self.announced))

    @cached_property
    def talk(self) -> bool:
        """Turns of speakers, which have labels."""
        return bool(_WANTS_TALK.search(self.instruction))

    @cached_property
    def one(self) -> bool:
        """A sentence that may itself be a question or an order."""
        return bool(_WANTS_ONE.search(self.instruction))


def _leads(line: str) -> bool:
    """A sentence that a list follows: it announces, or asks the reader, and is no exam's."""
    if line.startswith("#") or line.count(" ") < 2:
        return False
    announces = line.endswith((":", "：")) or (line.endswith("?") and ABOUT_US.search(line))
    return bool(announces) and not sets_tasks(line)


def sets_tasks(line: str) -> bool:
    """An order, or the words of an exam, as it stands over questions to answer."""
    return bool(_ORDERS.fullmatch(line) or _FORMAT.search(line.lower()))


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a response, with what stands around it."""

    whole: str
    """The line as it stands, without blanks at its ends."""
    text: str
    """The line without its mark, ordinal and label."""
    label: str
    """What stands before its colon, in a few words; empty without one."""
    marked: bool
    """A heading, a list item or a quotation."""
    before: str
    """The last line with something in it before this one; empty for the first."""
    lead: str
    """The line over the list in which it stands; ``before`` outside of lists."""
    alone: bool
    """Blank lines, or the ends of the text, stand around it."""
    asks: bool
    """It is a question as a whole."""
    orders: bool
    """It orders to write, list or explain something."""

    @property
    def led_up_to(self) -> bool:
        """What is above announces it, or asks the reader; a heading's colon does not count."""
        if self.before.endswith((":", "：")) and not self.before.startswith("#"):
            return True
        return self.marked and _leads(self.lead)

    @property
    def foreign(self) -> bool:
        """In another language than English, where nobody can say whether it is personal."""
        return not self.text.isascii() and not QUESTION.match(self.text)

    @property
    def headed(self) -> bool:
        """A heading, or a list item that opens with a bold title and goes on about it."""
        return self.whole.startswith("#") or _HEADED.match(self.whole) is not None

    @property
    def personal(self) -> bool:
        """It speaks of the reader or the writer, as an offer or a clarifying question does."""
        return bool(ABOUT_US.search(self.text))

    @property
    def formal(self) -> bool:
        """It speaks of the form of a task, in the words of exams and of prompts."""
        said = self.text[:300].lower()
        return any(word in said for word in _FORMAT_WORDS) and bool(_FORMAT.search(said))

    @property
    def requests(self) -> bool:
        """A question or an order."""
        return self.asks or self.orders


def lines_of(text: str) -> Iterator[Line]:
    """The lines of a response that have something in them, outside code blocks."""
    rows = [row.strip() for row in CODE.sub("`code`", text).split("\n")]
    rows = [row if _SAYS.search(row) else "" for row in rows]
    before = over = ""
    in_list = False
    for place, row in enumerate(rows):
        if row:
            lead = _LEAD.match(row)
            end = lead.end() if lead else 0
            label = (lead and lead["label"]) or ""
            marked = bool(lead and (lead["mark"].strip() or lead["ordinal"]))
            alone = not (place and rows[place - 1]) and not "".join(rows[place + 1 : place + 2])
            said = row[end:].strip(" *_")
            orders = _ORDERS.fullmatch(said) is not None
            listed = marked and not row.startswith("#")
            over = over if listed and in_list else before
            in_list = listed
            yield Line(row, said, label, marked, before, over, alone, _asks(said), orders)
            before = row


def _asks(line: str) -> bool:
    if "?" not in line and not line.endswith(_QUESTION_MARKS):
        return False
    said = _TRAILING.sub("", line)
    head, mark, last = said.rpartition("? ")
    if mark and _ORDERS.fullmatch(last):
        said = head + "?"
    return said.endswith(_QUESTION_MARKS) and (said.count(" ") >= 2 or not said.isascii())
