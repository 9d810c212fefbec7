"""The reviewer that is a language model behind any OpenAI-compatible chat endpoint.

It pays for each request by itself, keeps what came back, and only then looks for a review in it. At
most :data:`MAX_REQUESTS` requests are sent for one review, over the forms that a server may refuse
(``agent/reviewers/dialect.py``), transport retries and one repeat with the validation error; all of
them within one deadline. What a request is and how it can end is ``agent/reviewers/chat.py``.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import urlsplit

from agent.config import PricesSection, ReviewerSection
from agent.errors import ConfigError, ReviewerError
from agent.records import RoundRecord
from agent.review import METRICS, review_schema
from agent.review_records import Review
from agent.reviewers.base import Pay, ReviewFailed
from agent.reviewers.chat import Cap, Endpoint, RequestFailed, post_chat
from agent.reviewers.dialect import Dialect, message
from agent.reviewers.reply import Reply, read_reply
from agent.reviewers.tariff import Message, Tariff, exact_encoding
from prompts.render import inline, render

OPENAI_URL: Final = "https://api.openai.com/v1"
"""Where requests go when no base_url is configured."""
MAX_REQUESTS: Final = 4
"""Requests of one review at most, whatever happens."""
SYSTEM_TEMPLATE: Final = "reviewer_system.md.j2"
"""The system prompt's template; its digest belongs into the record of a review."""
_QUOTED_CHARS: Final = 2000


@dataclass(slots=True)
class _Sitting:
    """One review under way; the one thing here that changes."""

    pay: Pay
    deadline: float
    dialect: Dialect
    requests: int = 0
    messages: list[Message] = field(default_factory=list)


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

    def review(self, learnings: str, rounds: Sequence[RoundRecord], *, pay: Pay) -> Review:
        """Ask the model for a review of ``learnings``.

        Raises:
            ReviewFailed: if there is no usable answer.
            BudgetError: if a request does not fit under the cap; it is not sent.
        """
        deadline = self._clock() + self._section.timeout_seconds
        sitting = _Sitting(pay, deadline, Dialect(self._endpoint.cap))
        corrections: list[Message] = []
        while True:
            reply = self._ask(learnings, corrections, sitting)
            try:
                return reply.review()
            except ReviewerError as error:
                if corrections or sitting.requests >= MAX_REQUESTS:
                    raise ReviewFailed(f"no usable review from {self.name}: {error}") from error
                corrections = _correction(reply.text, str(error))

    def _ask(self, learnings: str, corrections: Sequence[Message], sitting: _Sitting) -> Reply:
        """One reply, in the first form that the server does not refuse."""
        while True:
            sitting.messages = [*self._prompt(learnings, sitting.dialect), *corrections]
            try:
                reply: Reply = self._retrying(sitting)(self._request, sitting)
                return reply
            except RequestFailed as failure:
                other = sitting.dialect.after(failure)
                if other is None or sitting.requests >= MAX_REQUESTS:
                    raise ReviewFailed(self._explain(failure, sitting)) from failure
                sitting.dialect = other

    def _request(self, sitting: _Sitting) -> Reply:
        """Pay for one request, send it, and keep and price its answer before it is read."""
        seconds = sitting.deadline - self._clock()
        if seconds <= 0:
            raise RequestFailed("the deadline has passed", retry=False, billed=False)
        form, messages = sitting.dialect.response_format, sitting.messages
        endpoint = replace(self._endpoint, cap=sitting.dialect.cap)
        bound = self._prompt_bound(messages)
        with sitting.pay(self._tariff.bound_micro(bound)) as bill:
            sitting.requests += 1
            try:
                body = post_chat(endpoint, messages, response_format=form, seconds=seconds)
            except RequestFailed as failure:
                bill.unbilled = not failure.billed
                raise
            bill.keep(body)
            reply = _read(body)
            bill.cost_micro = self._tariff.charge_micro(reply, bound)
        return reply

    def _retrying(self, sitting: _Sitting) -> Any:
        from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential

        backoff = wait_exponential(multiplier=0.5, max=20)

        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.retry_after if isinstance(error, RequestFailed) else None
            return backoff(state) if asked is None else asked

        def stop(state: RetryCallState) -> bool:
            late = self._clock() + state.upcoming_sleep >= sitting.deadline
            return late or sitting.requests >= MAX_REQUESTS

        return Retrying(
            retry=retry_if_exception(lambda e: isinstance(e, RequestFailed) and e.retry),
            wait=wait,
            stop=stop,
            sleep=self._sleep,
            reraise=True,
        )

    def _prompt(self, learnings: str, dialect: Dialect) -> list[Message]:
        system = render(
            SYSTEM_TEMPLATE,
            max_changes=self._section.max_changes,
            metrics=METRICS,
            schema=dialect.schema,
        )
        return dialect.opening(system, learnings)

    def _prompt_bound(self, messages: Sequence[Message]) -> int:
        """Tokens of a request at most; the schema may count as part of the prompt."""
        return self._tariff.prompt_bound(messages, extra=json.dumps(review_schema()))

    def _explain(self, failure: RequestFailed, sitting: _Sitting) -> str:
        hint = {
            401: f"; check the key in {self._section.api_key_env}",
            403: f"; check what the key in {self._section.api_key_env} may use",
            404: "; check reviewer.model and reviewer.base_url",
        }.get(failure.status or 0, "")
        wait = failure.retry_after
        asked = f"; the server asked to wait {wait:.0f} s" if wait is not None else ""
        return (
            f"no review from {self._section.model!r} at {self._endpoint.base_url} after "
            f"{sitting.requests} request(s): {failure}{hint}{asked}"
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
    own = url.startswith("https://api.openai.com/")
    cap: Cap = "max_completion_tokens" if own else "max_tokens"
    return Endpoint(url, api_key, section.model, section.max_output_tokens, cap)


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return False
    clean = url.isprintable() and " " not in url
    return clean and parts.scheme in {"http", "https"} and bool(host)


def _read(body: str) -> Reply:
    try:
        return read_reply(body)
    except ValueError as error:
        told = f"status 200 with a body that is no chat completion ({error}): {inline(body, 200)}"
        raise RequestFailed(told, retry=False, billed=True) from None


def _correction(raw: str, error: str) -> list[Message]:
    request = render("reviewer_correction.md.j2", error=error)
    return [message("assistant", raw[:_QUOTED_CHARS] or "(empty)"), message("user", request)]
