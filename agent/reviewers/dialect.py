"""How a server wants to be spoken to, learned from what it refuses.

OpenAI-compatible servers differ in what they take: a JSON schema, a system message, the name of the
token cap. The one idea: a refusal costs nothing and says what it is about, so each request that is
refused for its form is followed by one in the next form, until a server takes it or none is left.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from agent.review import review_schema
from agent.reviewers.chat import Cap, RequestFailed
from agent.reviewers.tariff import Message

Structure = Literal["json_schema", "json_object", "plain"]
_LOWER: Final[dict[Structure, Structure]] = {"json_schema": "json_object", "json_object": "plain"}
_FORMAT_WORDS: Final = ("response_format", "json_schema", "json_object", "schema", "grammar")
_REFUSALS: Final = frozenset({400, 422})


@dataclass(frozen=True, slots=True)
class Dialect:
    """One form of a request."""

    cap: Cap
    """What the token cap is called."""
    structure: Structure = "json_schema"
    """How strictly the server is asked for JSON."""
    system: bool = True
    """Whether what the reviewer is told stands in a message of its own."""

    def after(self, failure: RequestFailed) -> "Dialect | None":
        """The form to try after ``failure``; None if it was not about the form."""
        said = str(failure).lower()
        if failure.status not in _REFUSALS:
            return None
        if self.cap == "max_tokens" and "max_completion_tokens" in said:
            return replace(self, cap="max_completion_tokens")
        if self.system and "system" in said and "role" in said:
            return replace(self, system=False)
        if self.structure in _LOWER and any(word in said for word in _FORMAT_WORDS):
            return replace(self, structure=_LOWER[self.structure])
        return None

    def opening(self, told: str, learnings: str) -> list[Message]:
        """What the reviewer is told and the report, as this server takes them."""
        if self.system:
            return [message("system", told), message("user", learnings)]
        return [message("user", f"{told}\n\n{learnings}")]

    @property
    def schema(self) -> str | None:
        """The schema to be told in words, where the server is not given it."""
        return None if self.structure == "json_schema" else json.dumps(review_schema())

    @property
    def response_format(self) -> Mapping[str, Any] | None:
        """What the server is asked for."""
        if self.structure == "plain":
            return None
        if self.structure == "json_object":
            return {"type": "json_object"}
        schema = {"name": "review", "strict": True, "schema": review_schema()}
        return {"type": "json_schema", "json_schema": schema}


def message(role: str, content: str) -> Message:
    """One message of a conversation."""
    return {"role": role, "content": content}
