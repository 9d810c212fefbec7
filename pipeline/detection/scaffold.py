"""What the marks of tasks, turns and documents look like, on the scaffolds in common use.

Instruction/Response, Q/A, Input/Output, User/Assistant, Human, ``###`` headings, numbered tasks,
chat-template tokens and web pages. Patterns only: whether a mark is a boundary or part of an
answer is decided in ``boundary.py``. The one idea: every pattern is anchored and bounded, so that
a text is searched in linear time.
"""

import re
from typing import Final, Literal

Family = Literal["task", "qa", "chat", "io"]

ASKS: Final[dict[str, Family]] = {
    "instruction": "task",
    "instructions": "task",
    "instruct": "task",
    "prompt": "task",
    "task": "task",
    "query": "task",
    "problem": "task",
    "exercise": "task",
    "q": "qa",
    "question": "qa",
    "user": "chat",
    "human": "chat",
    "input": "io",
    "frage": "qa",
    "aufgabe": "task",
    "anweisung": "task",
    "pregunta": "qa",
    "instrucción": "task",
    "domanda": "qa",
    "istruzione": "task",
    "pergunta": "qa",
    "instrução": "task",
    "vraag": "qa",
    "pytanie": "qa",
    "вопрос": "qa",
    "问题": "qa",
    "问": "qa",
    "質問": "qa",
    "질문": "qa",
}
"""Role words that open a task, by the family of their scaffold."""

REPLIES: Final[dict[str, Family]] = {
    "response": "task",
    "completion": "task",
    "solution": "task",
    "reply": "task",
    "a": "qa",
    "answer": "qa",
    "assistant": "chat",
    "ai": "chat",
    "bot": "chat",
    "output": "io",
    "antwort": "qa",
    "respuesta": "qa",
    "réponse": "qa",
    "risposta": "qa",
    "resposta": "qa",
    "antwoord": "qa",
    "odpowiedź": "qa",
    "ответ": "qa",
    "答案": "qa",
    "答": "qa",
    "回答": "qa",
    "답변": "qa",
}
"""Role words that open an answer."""

HARD: Final = frozenset({"instruction", "human", "response", "assistant", "completion"})
"""Role words that prose hardly ever puts before a colon at the start of a line."""

REQUESTS: Final[dict[Family, re.Pattern[str]]] = {
    "task": re.compile(
        r"\b(tasks?|plans?|schedule|exercises?|workouts?|problems?|prompts?|quer(y|ies)|homework"
        r"|worksheets?|to-?do|template|instructions?|training|sql)\b", re.IGNORECASE),
    "qa": re.compile(
        r"\b(questions?|quiz|quizz\w*|faqs?|q ?(?:&|and) ?a|q/a|trivia|riddles?|jokes?|puns?"
        r"|interview|flash ?cards?"
        r"|knock|exam|test|puzzles?|survey|poll|frage?n?|pregunt\w*|domand\w*|pergunt\w*"
        r"|vragen|pyta\w*|вопрос\w*|witze?|chiste|blague|barzelletta|soru\w*|sor|rätsel\w*"
        r"|raadsel\w*"
        r"|adivinanzas?|adivinhas?|indovinell\w*|devinettes?|bilmece\w*|загад\w*|zagadk\w*)\b"
        r"|问|題|题|質問|질문|谜|なぞなぞ|수수께끼",
        re.IGNORECASE),
    "chat": re.compile(
        r"\b(dialog(ue)?s?|conversations?|chats?|chatbots?|bots?|system prompts?|interviews?"
        r"|scripts?"
        r"|transcripts?|plays?|scenes?"
        r"|role-?play|exchange|debate|skit|roles?|users?)\b", re.IGNORECASE),
    "io": re.compile(
        r"\b(functions?|programs?|code|coding|algorithms?|inputs?|outputs?|test cases?"
        r"|examples?|python"
        r"|javascript|java|scripts?|format|regex|method|class|implement\w*|sort\w*|economics?)\b",
        re.IGNORECASE),
}  # fmt: skip
"""Words in an instruction that ask for an answer in the form of that family."""


_LOWER: Final = frozenset(
    {"instruction", "response", "user", "assistant", "human", "question", "answer"}
)
"""Role words that scaffolds also write small."""


def _words(table: dict[str, Family]) -> str:
    both = [form for word in table for form in (word.capitalize(), word.upper())]
    both += [word for word in table if word in _LOWER]
    return "|".join(sorted(dict.fromkeys(both), key=len, reverse=True))


_ROLES: Final = f"{_words(ASKS)}|{_words(REPLIES)}"

ROLE_LINE: Final = re.compile(
    rf"^[ \t]*(?:>[ \t]?)?(?:(?P<ordinal>\d{{1,3}})[.)][ \t]*)?(?P<heading>\#{{1,6}}[ \t]*)?"
    rf"[*_]{{0,3}}\[?(?P<role>{_ROLES})\]?(?:[ \t]*(?:\#"
    rf"|No\.?)?[ \t]*(?P<number>\d{{1,4}}))?[*_]{{0,3}}[ \t]*"
    rf"(?:[:：][*_]{{0,3}}|(?<=Q)[.)](?=[ \t]+\S)|(?P<bare>(?<=\w)[*_]{{0,3}}[ \t]*$))",
    re.MULTILINE,
)
"""A role word at the start of a line, as ``Instruction:``, ``**Q2:**`` or ``### Response``; a
``bare`` one, without a colon, counts only as a heading."""

SERIES_LINE: Final = re.compile(
    r"^[ \t]*(?P<word>Task|Question|Problem|Exercise|Example|Prompt|Test|Item)[ \t]*#?[ \t]*"
    r"(?P<number>\d{1,3})[ \t]*[:.)\-]",
    re.MULTILINE,
)
"""A numbered task: ``Task 2:``."""

ITEM_LINE: Final = re.compile(r"^(?P<number>\d{1,3})[.)][ \t]+\S", re.MULTILINE)
"""An item of a numbered list or a task of a numbered scaffold."""

SPECIAL_TOKEN: Final = re.compile(
    r"<\|[A-Za-z][\w -]{0,30}\|>|<｜[^｜>]{1,40}｜>|\[/?INST\]|<</?SYS>>"
    r"|<(?:eos|bos|pad|unk|(?:start|end)_of_[a-z]{1,12})>|\[(?:EOS|BOS|END|PAD|UNK|SEP|CLS)\]"
)
"""A token of a chat template or a tokenizer, in any place."""

SEPARATOR_LINE: Final = re.compile(
    r"^[ \t]*(?:#{3,}|={3,}|\*{5,})[ \t]*$|^#{2,} ?(?:END|STOP)\b.*$", re.MULTILINE
)
"""A line that only separates tasks. ``---`` and ``***`` are rules of Markdown and are not."""

DOCUMENT_LINE: Final = re.compile(
    r"^[ \t]*(?:<!DOCTYPE\b|<html\b|</?(?:head|body|html)>|Posted (?:by|on|in) \S|Filed under\b"
    r"|Share this\b.{0,20}$|Related (?:posts|articles|questions|topics)\b.{0,3}$"
    r"|Leave a (?:reply|comment)\b"
    r"|Copyright (?:©|\(c\)|\d{4})|©[ \t]?\d{4}|All rights reserved\b|Advertisements?$|Read more:?$"
    r"|Click here to \S|Sign up for (?:our|the) newsletter|\d{1,5} comments?$|Comments? \(\d{1,5}\)"
    r"|\\end\{document\}|\\documentclass"
    r"|Directions:[ \t]+(?:Write|Read|Choose|Answer|Circle|Complete|Fill|Match|Underline)\b)",
    re.MULTILINE | re.IGNORECASE,
)
"""A line with which a web page or file begins or ends."""

PREAMBLE: Final = re.compile(
    r"^Below (?:is|are) (?:an? )?(?:instruction|question|task)s?\b[^\n]*\n+(?!Below )(?=[#\w])",
    re.MULTILINE,
)
"""What stands over every task of a scaffold; it returns without being said again."""

ROLE_TAG: Final = re.compile(
    r"^[ \t]*<(?:question|instruction|user|human|prompt|task|query|input|q)>", re.MULTILINE
)
"""A tag that opens a task."""

PAGE_TAGS: Final = frozenset(
    "div p body html td tr table li ul ol span article section blockquote font center s a".split()
    + ["h1", "h2", "h3", "h4", "h5", "h6"]
)
"""Elements of web pages whose closing tags turn up in text that came out of one."""

MARKUP_REQUEST: Final = re.compile(
    r"\b(html|xml|web ?(?:page|site)s?|tags?|markup|css|latex|blog|email|e-mail|footer"
    r"|template|licen[cs]e"
    r"|svg|jsx|react|code|copyright|advert\w*|page|document)\b",
    re.IGNORECASE,
)
"""Words in an instruction that ask for such lines."""

INLINE_ASK: Final = re.compile(
    r"(?<=[.!?\"'”)\]])[ \t]{0,4}(?:#{2,6}[ \t]*)?(?P<role>Instruction|Response|Human"
    r"|Assistant|Question|Q|User|Input|INSTRUCTION"
    r"|RESPONSE|HUMAN|USER|QUESTION)(?:[ \t]?\d{1,3})?[:：](?=[ \t\n]|$)"
)
"""A role word that follows the end of a sentence on the same line."""

QUESTION: Final = re.compile(
    r"(?:What|Why|How|Who|Whom|Whose|When|Where|Which|Is|Are|Was|Were|Do|Does|Did|Can|Could"
    r"|Should|Will|Would)"
    r"\b[^\n?]{8,200}\?"
)
"""A question that fills its paragraph."""
