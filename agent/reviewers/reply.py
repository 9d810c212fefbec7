"""The body of a chat completion: its text, whether that can be an answer, the usage, the review.

Servers disagree about everything but these few fields, so nothing else is looked at. What a model
thought is no answer, wherever a server puts it. A count that is not a plausible number is no count.
"""

from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent.errors import ReviewerError
from agent.review import parse_review
from agent.review_records import Review
from agent.strict_json import load_strict

_MAX_BYTES: Final = 4 * 1024 * 1024  # decoded; the transport's own limit is lower


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server answered with status 200."""

    text: str
    """The message's content, or the words of a refusal; possibly empty."""
    problem: str | None
    """Why the text cannot be an answer (refusal, cut, empty), or None."""
    usage: tuple[int, int] | None
    """Prompt and completion tokens as the server counts them; None if it gave no sane count."""

    def review(self) -> Review:
        """The review in it.

        Raises:
            ReviewerError: if it holds none that can be used; the message says why.
        """
        if self.problem:
            raise ReviewerError(self.problem)
        return parse_review(self.text)


class _Usage(BaseModel):
    model_config = ConfigDict(strict=True)
    prompt_tokens: int = Field(ge=1)
    completion_tokens: int = Field(ge=0)


class _Part(BaseModel):
    text: str | None = None
    refusal: str | None = None


class _Message(BaseModel):
    content: str | list[_Part] | None = None
    refusal: str | None = None
    reasoning_content: Any = None
    reasoning: Any = None
    tool_calls: Any = None
    function_call: Any = None

    @property
    def said(self) -> str:
        """The text, which some servers send in parts."""
        if isinstance(self.content, list):
            return "".join(part.text or "" for part in self.content)
        return self.content or ""

    @property
    def refused(self) -> str:
        """The words of a refusal; empty if there is none."""
        parts = self.content if isinstance(self.content, list) else ()
        return self.refusal or "".join(part.refusal or "" for part in parts)


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Body(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: Any = None


def read_reply(body: str) -> Reply:
    """The reply in the ``body`` of a response with status 200.

    Raises:
        ValueError: if it is no chat completion; the message says why.
    """
    try:
        tree = _Body.model_validate(load_strict(body, max_bytes=_MAX_BYTES))
    except ValidationError:
        raise ValueError("no choices with a message") from None
    choice = tree.choices[0]
    text = choice.message.said or choice.message.refused
    return Reply(text, _problem(choice), _usage(tree.usage))


def _problem(choice: _Choice) -> str | None:
    message, empty = choice.message, not choice.message.said.strip()
    thought = empty and bool(message.reasoning_content or message.reasoning)
    if message.refused:
        return "the model refused to answer"
    if choice.finish_reason == "length":
        spent = " while the model was still thinking; raise reviewer.max_output_tokens"
        return "the answer was cut at its token cap" + (spent if thought else "")
    if choice.finish_reason == "content_filter":
        return "a content filter stopped the answer"
    if empty and (message.tool_calls or message.function_call):
        return "the model called a tool instead of answering"
    if thought:
        return "the model thought and then answered nothing"
    return "the answer was empty" if empty else None


def _usage(value: Any) -> tuple[int, int] | None:
    try:
        usage = _Usage.model_validate(value)
    except ValidationError:
        return None
    return usage.prompt_tokens, usage.completion_tokens
