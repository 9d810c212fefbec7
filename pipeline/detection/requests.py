"""What reads as a request: the verbs of orders, the words of exams and prompts.

Which requests make a response a runaway is decided in ``further.py``. The one idea: a request is
known by its grammar, a question mark or the verb of an order, and not by the scaffold around it.
"""

import re
from typing import Final

ORDERS: Final = re.compile(
    r"(?:Please |Now |Briefly |In your own words,? )?"
    r"(?:Write (?:an?|about|down|the|your|one|two|three|four|five|some|in|out|each|\d+)"
    r"|Name|List|Explain|Describe|Translate|Summari[sz]e|Define|Compare|Classify|Rewrite|Convert"
    r"|Calculate|Compute|Generate|Compose|Identify|Discuss|Outline|Paraphrase|Categori[sz]e"
    r"|Give (?:an?|one|two|three|four|five|me|some|the|your|examples?|\d+)|Tell (?:me|us|about|what"
    r"|how|why)|Create (?:an?|your)|Suggest|Provide (?:an?|one|two|three|some|the|examples?)"
    r"|Make (?:up|an? (?:list|sentence|story|poem|table|chart))|Choose (?:the|one|a)"
    r"|Find (?:the|an?|out|two|three|four) |Complete (?:the|this|each|an?)|Fill in"
    r"|Answer (?:the|each|in)|Match|Circle|(?:Read|Find) and|Underline|Select"
    r"|Determine|Solve|Simplify|Evaluate|Analy[sz]e|Read (?:the|this|each)|Use (?:the|each"
    r"|these) (?:\w+ )?"
    r"(?:words?|following|sentences?|passage|text|information)|Correct the|Arrange|Look at the"
    r"|(?:Put|Show) (?:the|these|each)(?: of the| following)? (?:words?|sentences?|numbers?"
    r"|letters?)"
    r"|Use (?:the correct form|[\"“])|Use (?:two|three|four|five|\d+|the following) words"
    r"|Make (?:an? (?:list|poster|art)|sentences)"
    r"|(?:write|make|draw|give|list) (?:an?|one|two|three|four|five|\d+) "
    r"|Think of an?|State (?:the|an?|whether|your|why|how|two|three)|Show (?:that|how|your)"
    r"|Draw (?:an?|and|the|two|three|pictures)|List out|Imagine (?:an?|that|you)|Label (?:the"
    r"|each)|Repeat|Count|Mention|Construct"
    r"|Design|Develop|Indicate|Distinguish|Sort|Rank|Estimate|Illustrate|Justify|Propose)\b"
    r"[^\n]{4,400}"
)
FORMAT: Final = re.compile(
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
FORMAT_WORDS: Final = (
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


def sets_tasks(line: str) -> bool:
    """An order, or the words of an exam, as it stands over questions to answer."""
    return bool(ORDERS.fullmatch(line) or FORMAT.search(line.lower()))
