"""What an instruction asks for, as far as requests in its answer go.

Which lines of an answer are requests is read in ``lines.py``. The one idea: a quiz, tips, a letter
or a dialogue that was asked for takes away what would speak against an answer that holds one.
"""

import re
from dataclasses import dataclass
from functools import cached_property

from pipeline.detection.scaffold import REQUESTS

_GIVEN = re.compile(
    r"\b(?:answers?|answering|read|following|this|these|above|below|solve|complete|the|each|asked)"
    r"(?:\s+\w+){0,2}?\s+(?:questions?|exercises?|tasks?|problems?|tests?|prompts?)\b",
    re.IGNORECASE,
)
_WANTS_REQUESTS = re.compile(
    r"\b(questions?|ask(?! for\b)|quiz\w*|riddles?|trivia|tasks?|prompts?|exercises?"
    r"|worksheets?|survey|faqs?"
    r"|interview\w*|assignments?|puzzles?|exams?|tests?|homework|jokes?|puns?|flash ?cards?|poll"
    r"|q ?(?:&|and|/) ?a"
    r"|questionnaire|problems?|challenges?|examples? of (?:an? )?(?:question|imperative|command)\w*"
    r"|imperatives?|drills?|practi[cs]e|rehears\w+|revis(?:e|ion)|revising|topics?|brainstorm"
    r"|lesson|icebreakers?|debate)\b",
    re.IGNORECASE,
)
_WANTS_ONE = re.compile(
    r"\b(rewrite|translat\w*|correct|paraphrase|repeat|titles?|headlines?|slogans?|mottos?|turn"
    r"|rephrase|proofread|complete|quotes?|quotations?|lines?|sayings?|famous|caption|subject)\b",
    re.IGNORECASE,
)
_WANTS_TALK = re.compile(
    r"\b(dialog(?:ue)?s?|conversations?|chats?|interviews?|scripts?|transcripts?|plays?|scenes?"
    r"|skit"
    r"|role-?play|stor(?:y|ies)|socratic|debate|exchange|monologue|podcast|users?|roles?"
    r"|di[aáà]log\w*|gespräch\w*|conversa\w*|conversazion\w*|entrevista\w*|gesprek\w*|rozmow\w*"
    r"|диалог\w*|разговор\w*|diyalog\w*|konuşma\w*)\b|对话|對話|対話|会話|대화",
    re.IGNORECASE,
)
_WANTS_ORDERS = re.compile(
    r"\b(how (?:to|do|does|can|should|would|could|might)|tips?|advi[cs]e|steps?|ways?|guid\w+"
    r"|plans?|schedule|rules?|strateg\w+|improve|help|suggest\w*|recommend\w*|procedure|methods?"
    r"|process|should|to do|practices|commands?|checklist|agenda|goals?|resolutions?|signs?"
    r"|instructions?|derive|derivation|proo?[fv]\w*|solv\w+|calculat\w+|comput\w+|show that"
    r"|poster|activit\w+"
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

_SENTENCES = re.compile(r"\bsentences?\b", re.IGNORECASE)
_FACT = re.compile(
    r"(?:How (?:many|much|long|far|old|tall|often|big)|Which|Who|Whose|When|Where|Why"
    r"|What (?:color|colour|year|day|time|number|country|city|animal|does|do|did|was"
    r"|were))\b[^\n]*\?",
    re.IGNORECASE,
)
"""A question about a fact, whatever words it has."""
_MAKES = re.compile(
    r"\b(?:write|compose|draft|create|make|give|tell|generate|help|suggest|recommend|come up"
    r"|show|i|my|me"
    r"|(?:can|could|would|will|how (?:do|can|should|would)) (?:you|we|one))\b",
    re.IGNORECASE,
)
"""Words of a question that asks for a text."""

_CLOSED = re.compile(
    r"\?[\s\"'”)]*$|^\W*(?:Name|List|Describe|Explain|Define|Identify|Circle|Compare|Complete"
    r"|Fill|Choose"
    r"|Find|State|Classify|Translate|Draw|Label|Use|Read|Match|Underline|Select|What|Why|How"
    r"|Who|Which"
    r"|When|Where)\b",
    re.IGNORECASE,
)
"""A question, or an order of the kind that exams give: no list of questions answers it."""


@dataclass(frozen=True)
class Wants:
    """What an instruction asks for, as far as requests in its answer go, read from its words."""

    instruction: str
    """The instruction; a question that it sets is none that it asks for."""
    announced: str = ""
    """What the answer says that it will give, as in "Here is a toast:"."""

    @cached_property
    def _fact(self) -> bool:
        return _FACT.fullmatch(self.instruction.strip()) is not None

    @cached_property
    def _told(self) -> bool:
        """A question that a statement answers."""
        said = self.instruction.rstrip(" )\"'")
        return self._fact or (said.endswith("?") and _MAKES.search(said) is None)

    @cached_property
    def open(self) -> bool:
        """Something whose form nobody can tell, as in "I have an exam on Monday."."""
        return _CLOSED.search(self.instruction) is None

    @cached_property
    def requests(self) -> bool:
        """Questions or tasks themselves: none of them is a fault."""
        said = _GIVEN.sub(" ", self.instruction)
        asked = _WANTS_REQUESTS.search(said) or REQUESTS["qa"].search(said)
        return asked is not None and not self._fact

    @cached_property
    def orders(self) -> bool:
        """Advice or steps, which are written as orders."""
        return bool(_WANTS_ORDERS.search(self.instruction))

    @cached_property
    def prose(self) -> bool:
        """A text in which somebody may ask, such as a letter or a story."""
        said = self.announced if self._told else f"{self.instruction}\n{self.announced}"
        return _WANTS_PROSE.search(said) is not None

    @cached_property
    def long_prose(self) -> bool:
        """Such a text of more than a sentence or two."""
        said = self.announced if self._told else f"{self.instruction}\n{self.announced}"
        return _WANTS_PROSE.search(_SENTENCES.sub(" ", said)) is not None

    @cached_property
    def talk(self) -> bool:
        """Turns of speakers, which have labels."""
        return not self._told and _WANTS_TALK.search(self.instruction) is not None

    @cached_property
    def one(self) -> bool:
        """A sentence that may itself be a question or an order."""
        return not self._fact and _WANTS_ONE.search(self.instruction) is not None
