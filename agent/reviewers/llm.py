"""The reviewer that is a language model behind any OpenAI-compatible chat endpoint.

It asks, books what the request cost, keeps the raw answer, and only then reads it. At most
:data:`MAX_REQUESTS` requests are sent for one review, over the ladder of structured output (JSON
schema, JSON object, plain), transport retries and one repeat with the validation error; all of
them within one deadline. What a request is and how it can end is ``agent/reviewers/chat.py``.
"""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from agent.config import PricesSection, ReviewerSection
from agent.errors import ConfigError, ReviewerError
from agent.records import RoundRecord
from agent.review import METRICS, parse_review, review_schema
from agent.reviewers.base import Keep, ReviewerAnswer, ReviewFailed, discard
from agent.reviewers.chat import Endpoint, RequestFailed, post_chat
from agent.reviewers.reply import Reply
from agent.reviewers.tariff import Message, Tariff, exact_encoding
from prompts.render import render

OPENAI_URL: Final = "https://api.openai.com/v1"
"""Where requests go when no base_url is configured."""
MAX_REQUESTS: Final = 4
"""Requests of one review at most, whatever happens."""
SYSTEM_TEMPLATE: Final = "reviewer_system.md.j2"
"""The system prompt's template; its digest belongs into the record of a review."""
_LADDER: Final = ("json_schema", "json_object", "plain")
_QUOTED_CHARS: Final = 2000
_CORRECTION_TOKENS: Final = 16_384  # 2,000 quoted and 500 explaining characters, in bytes at most
_FORMAT_WORDS: Final = ("response_format", "json_schema", "json_object", "schema", "grammar")


@dataclass(slots=True)
class _Tally:
    """What one review has used so far; the one thing here that changes."""

    deadline: float
    requests: int = 0
    cost_usd: float = 0.0
    raw: str = ""
    rung: int = 0
    messages: list[Message] = field(default_factory=list)

    def failed(self, why: str) -> ReviewFailed:
        """The error that holds the run, with everything kept."""
        return ReviewFailed(why, raw=self.raw, cost_usd=self.cost_usd, requests=self.requests)


class LlmReviewer:
    """A chat model as the reviewer.

    Args:
        section: Model, address, caps and deadline.
        prices: Must hold the model's price.
        api_key: The bearer token.
        clock: Seconds that only grow.
        sleep: Waits between retries.

    Raises:
        ConfigError: if the model has no price, or address or key cannot be used.
    """

    def __init__(
        self,
        section: ReviewerSection,
        *,
        prices: PricesSection,
        api_key: str,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = f"llm:{section.model}"
        self._section = section
        self._tariff = _tariff(section, prices)
        self._endpoint = _endpoint(section, api_key)
        self._clock = clock
        self._sleep = sleep

    def worst_case_usd(self, learnings: str) -> float:
        """Every request in full, each with the longest correction in it."""
        prompt = self._prompt_bound(self._prompt(learnings, schema=True)) + _CORRECTION_TOKENS
        return MAX_REQUESTS * self._tariff.bound_usd(prompt)

    def review(
        self, learnings: str, rounds: Sequence[RoundRecord], *, keep: Keep = discard
    ) -> ReviewerAnswer:
        """Ask the model for a review of ``learnings``.

        Raises:
            ReviewFailed: if there is no usable answer; it carries the cost all the same.
        """
        tally = _Tally(deadline=self._clock() + self._section.timeout_seconds)
        corrections: list[Message] = []
        while True:
            reply = self._ask(learnings, corrections, tally)
            tally.raw = reply.text
            keep(reply.text)
            try:
                if reply.problem:
                    raise ReviewerError(reply.problem)
                review = parse_review(reply.text)
            except ReviewerError as error:
                if corrections or tally.requests >= MAX_REQUESTS:
                    raise tally.failed(f"no usable review from {self.name}: {error}") from error
                corrections = _correction(reply.text, str(error))
            else:
                return ReviewerAnswer(review, reply.text, tally.cost_usd, tally.requests)

    def _ask(self, learnings: str, corrections: Sequence[Message], tally: _Tally) -> Reply:
        """One reply, stepping down the ladder where the server refuses a rung."""
        while True:
            schema = _LADDER[tally.rung] != "json_schema"
            tally.messages = [*self._prompt(learnings, schema=schema), *corrections]
            try:
                reply: Reply = self._retrying(tally)(self._request, tally)
                return reply
            except RequestFailed as failure:
                steps_down = _about_format(failure) and tally.rung + 1 < len(_LADDER)
                if not steps_down or tally.requests >= MAX_REQUESTS:
                    raise tally.failed(self._explain(failure, tally)) from failure
                tally.rung += 1

    def _request(self, tally: _Tally) -> Reply:
        """Send one request and book it, before anyone looks at the answer."""
        seconds = tally.deadline - self._clock()
        if seconds <= 0:
            raise RequestFailed("the deadline has passed", retry=False, billed=False)
        tally.requests += 1
        form = _response_format(_LADDER[tally.rung])
        bound = self._prompt_bound(tally.messages)
        try:
            reply = post_chat(self._endpoint, tally.messages, response_format=form, seconds=seconds)
        except RequestFailed as failure:
            tally.cost_usd += self._tariff.bound_usd(bound) if failure.billed else 0.0
            raise
        tally.cost_usd += self._tariff.charge_usd(reply, bound)
        return reply

    def _retrying(self, tally: _Tally) -> Any:
        from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential

        backoff = wait_exponential(multiplier=0.5, max=20)

        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.retry_after if isinstance(error, RequestFailed) else None
            return backoff(state) if asked is None else asked

        def stop(state: RetryCallState) -> bool:
            late = self._clock() + state.upcoming_sleep >= tally.deadline
            return late or tally.requests >= MAX_REQUESTS

        return Retrying(
            retry=retry_if_exception(lambda e: isinstance(e, RequestFailed) and e.retry),
            wait=wait,
            stop=stop,
            sleep=self._sleep,
            reraise=True,
        )

    def _prompt(self, learnings: str, *, schema: bool) -> list[Message]:
        system = render(
            SYSTEM_TEMPLATE,
            max_changes=self._section.max_changes,
            metrics=METRICS,
            schema=json.dumps(review_schema()) if schema else None,
        )
        return [_message("system", system), _message("user", learnings)]

    def _prompt_bound(self, messages: Sequence[Message]) -> int:
        """Tokens of a request at most; the schema may count as part of the prompt."""
        return self._tariff.prompt_bound(messages, extra=json.dumps(review_schema()))

    def _explain(self, failure: RequestFailed, tally: _Tally) -> str:
        hint = {
            401: f"; check the key in {self._section.api_key_env}",
            403: f"; check what the key in {self._section.api_key_env} may use",
            404: "; check reviewer.model and reviewer.base_url",
        }.get(failure.status or 0, "")
        wait = failure.retry_after
        asked = f"; the server asked to wait {wait:.0f} s" if wait is not None else ""
        return (
            f"no review from {self._section.model!r} at {self._endpoint.base_url} after "
            f"{tally.requests} request(s): {failure}{hint}{asked}"
        )


def _tariff(section: ReviewerSection, prices: PricesSection) -> Tariff:
    price = prices.reviewers.get(section.model)
    if price is None:
        raise ConfigError(
            f"the reviewer model {section.model!r} has no price; write it under prices.reviewers "
            "(input_usd_per_million, output_usd_per_million), or set reviewer.kind to rules"
        )
    # Behind another address the same name may be another model, with another tokenizer.
    exact = exact_encoding(section.model, os.environ) if section.base_url is None else None
    return Tariff(price, section.max_output_tokens, exact)


def _endpoint(section: ReviewerSection, api_key: str) -> Endpoint:
    url = section.base_url or OPENAI_URL
    if not _is_address(url):
        raise ConfigError(f"reviewer.base_url: expected an http or https address, found {url!r}")
    if not api_key.isascii() or not api_key.isprintable() or " " in api_key:
        raise ConfigError(f"the key in {section.api_key_env} holds characters that no key has")
    return Endpoint(url, api_key, section.model, section.max_output_tokens)


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return False
    clean = url.isprintable() and " " not in url
    return clean and parts.scheme in {"http", "https"} and bool(host)


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _correction(raw: str, error: str) -> list[Message]:
    request = render("reviewer_correction.md.j2", error=error)
    return [_message("assistant", raw[:_QUOTED_CHARS] or "(empty)"), _message("user", request)]


def _response_format(rung: str) -> Mapping[str, Any] | None:
    if rung == "plain":
        return None
    if rung == "json_object":
        return {"type": "json_object"}
    schema = {"name": "review", "strict": True, "schema": review_schema()}
    return {"type": "json_schema", "json_schema": schema}


def _about_format(failure: RequestFailed) -> bool:
    text = str(failure).lower()
    return failure.status in {400, 422} and any(word in text for word in _FORMAT_WORDS)
