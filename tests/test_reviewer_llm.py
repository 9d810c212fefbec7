"""agent/reviewers/llm.py against a scripted server: every ending is bounded, booked and kept."""

import json
import re
import socket
import threading
import time
from base64 import b64encode
from typing import Any, Never

import pytest
from builders import story
from fake_server import FakeServer, Play, chat, refusal, serving
from purse import Purse

from agent.config import ModelPrice, PricesSection, ReviewerSection
from agent.errors import BudgetError, ConfigError, ReviewerError
from agent.review_records import Review
from agent.reviewers import ReviewFailed, choose_reviewer
from agent.reviewers.llm import MAX_REQUESTS, LlmReviewer
from agent.reviewers.reply import read_reply

REPORT = "# Learnings report\n\nrunaway 22/28\n"
PRICES = PricesSection(
    reviewers={"m": ModelPrice(input_usd_per_million=1.0, output_usd_per_million=10.0)}
)
GOOD: dict[str, Any] = {
    "diagnosis": "responses run on",
    "changes": [{"parameter": "response.stop", "value": ["\nInstruction"], "reason": "ends them"}],
    "predictions": [{"metric": "runaway", "low": 0, "high": 0.03, "probability": 0.8}],
    "distrusted_metrics": [],
    "confidence": 0.7,
    "stop": False,
}
ANSWER = json.dumps(GOOD)
USAGE_MICRO = 100 * 1 + 50 * 10


class Trial:
    """One review against a server, with everything that came of it."""

    def __init__(self, *plays: Play, timeout: float = 20.0, **section: Any):
        self.purse = Purse()
        self.slept: list[float] = []
        self.review: Review | None = None
        self.error: ReviewFailed | None = None
        with serving(plays) as server:
            self.server: FakeServer = server
            values = {"kind": "llm", "model": "m", "base_url": server.url, **section}
            reviewer = LlmReviewer(
                ReviewerSection.model_validate({**values, "timeout_seconds": timeout}),
                prices=PRICES,
                api_key="canary-key-123",
                sleep=self.slept.append,
            )
            start = time.monotonic()
            try:
                self.review = reviewer.review(REPORT, story()[:1], pay=self.purse.pay)
            except ReviewFailed as error:
                self.error = error
            self.seconds = time.monotonic() - start

    @property
    def requests(self) -> int:
        """Requests that were paid for."""
        return len(self.purse.reserved)

    @property
    def kept(self) -> list[str]:
        """Texts of the answers that were kept and can be read."""
        return [read_reply(body).text for body in self.purse.kept]

    def check(self) -> None:
        """What holds for every ending."""
        assert (self.review is None) != (self.error is None)
        assert self.requests == len(self.purse.charged) == len(self.server.requests) <= MAX_REQUESTS
        for charged, reserved in zip(self.purse.charged, self.purse.reserved, strict=True):
            assert 0 <= charged <= reserved
        assert "canary" not in str(self.error) + "".join(self.purse.kept)


def test_a_good_answer_is_kept_paid_and_read():
    trial = Trial(chat(ANSWER))
    trial.check()
    assert trial.review is not None
    assert trial.review.changes[0].parameter == "response.stop"
    assert trial.purse.kept == [chat(ANSWER).body.decode()] and trial.kept == [ANSWER]
    assert trial.purse.charged == [USAGE_MICRO]
    sent = trial.server.requests[0]
    assert sent["response_format"]["json_schema"]["strict"] is True
    assert sent["messages"][-1] == {"role": "user", "content": REPORT}
    assert sent["max_tokens"] == 4096
    assert trial.server.headers[0]["authorization"] == "Bearer canary-key-123"


def test_a_request_that_cannot_be_paid_is_not_sent():
    def broke(worst_case: int) -> Never:
        raise BudgetError("no money")

    with serving([chat(ANSWER)]) as server:
        section = ReviewerSection(kind="llm", model="m", base_url=server.url)
        reviewer = LlmReviewer(section, prices=PRICES, api_key="k")
        with pytest.raises(BudgetError):
            reviewer.review(REPORT, story()[:1], pay=broke)
    assert server.requests == []


@pytest.mark.parametrize(
    ("location", "where"),
    [
        ("http://user:pw@elsewhere.example:81/v1?key=secret", "it points to elsewhere.example,"),
        ("/v2/chat", "another path of the same server"),
        ("http://[", "an address that makes no sense"),
    ],
)
def test_a_redirect_is_said_with_its_host_only_and_charged(location, where):
    trial = Trial(Play(b"moved", 307, {"location": location}))
    trial.check()
    said = str(trial.error)
    assert where in said and "redirects are not followed" in said and "charged in full" in said
    assert "secret" not in said and "pw" not in said
    assert trial.purse.charged == trial.purse.reserved


def test_an_answer_is_kept_before_it_is_priced_and_priced_before_it_is_read():
    trial = Trial(Play(b"no JSON, but it was paid for"))
    trial.check()
    assert trial.purse.kept == ["no JSON, but it was paid for"]
    assert trial.purse.charged == trial.purse.reserved


ONCE = [
    ("unauthorised", refusal(401, "bad key canary-key-123"), 1, "nothing", "check the key"),
    ("forbidden", refusal(403), 1, "nothing", "what the key"),
    ("no such model", refusal(404), 1, "nothing", "check reviewer.model"),
    ("bad request", refusal(400, "context too long"), 1, "nothing", "context too long"),
    ("redirect", Play(b"", 302, {"location": "http://127.0.0.1:1/"}), 1, "full", "302"),
    ("rate limited", refusal(429), 4, "nothing", "status 429"),
    ("request timeout", refusal(408), 4, "full", "status 408"),
    ("server error", refusal(500), 4, "full", "status 500"),
    ("overloaded", refusal(529), 4, "full", "status 529"),
    ("reset", Play(reset=True), 4, "full", "after 4 request"),
    ("hung up", Play(b"{", headers={"Content-Length": "9", "Connection": "close"}), 4, "full", "4"),
    ("silent", Play(headers={"Content-Length": "0"}), 1, "full", "no chat completion"),
    ("not JSON", Play(b"<html>"), 1, "full", "no chat completion"),
    ("JSON, not a completion", Play(b'{"error": "x"}'), 1, "full", "no choices"),
    ("no choices", Play(b'{"choices": []}'), 1, "full", "no choices"),
    ("deep", Play(b"[" * 100_000), 1, "full", "nested"),
    ("not text", Play(b"\xff\xfe\x00"), 1, "full", "no chat completion"),
    ("huge", Play(b"x" * 65_536, repeat=64), 1, "full", "more than 1,048,576"),
    ("compressed", Play(b"x", headers={"Content-Encoding": "gzip"}), 1, "full", "compressed"),
]


@pytest.mark.parametrize(
    ("play", "requests", "charge", "message"), [c[1:] for c in ONCE], ids=[c[0] for c in ONCE]
)
def test_a_fault_that_stays_ends_in_a_hold(play, requests, charge, message):
    trial = Trial(play)
    trial.check()
    assert trial.error is not None and trial.requests == requests
    assert message in str(trial.error)
    assert isinstance(trial.error, ReviewerError) and trial.error.exit_code == 9
    full = trial.purse.reserved if charge == "full" else [0] * requests
    assert trial.purse.charged == full
    assert len(trial.slept) == requests - 1


UNUSABLE = [
    ("prose", chat("I think you should try stop strings.")),
    ("truncated", chat(ANSWER[:60], finish="length")),
    ("whole, but cut", chat(ANSWER, finish="length")),
    ("refusal", chat(None, refusal="I cannot help with that.")),
    ("empty", chat("")),
    ("blank", chat(" \n")),
    ("filtered", chat(ANSWER, finish="content_filter")),
    ("extra key", chat(json.dumps({**GOOD, "model": "gpt-99"}))),
    ("true for 1", chat(json.dumps({**GOOD, "confidence": True}))),
    ("NaN", chat(ANSWER.replace("0.7", "NaN"))),
    ("thinks on", chat("<think> hm, " + ANSWER)),
    ("thinks beside", chat(None, reasoning_content="hm, " + ANSWER)),
    ("thinks up to the cap", chat(None, finish="length", reasoning="hm")),
    ("calls a tool", chat(None, finish="tool_calls", tool_calls=[{"id": "1", "type": "function"}])),
    ("thinks in a part", chat([{"type": "thinking", "thinking": "hm"}])),
    ("refuses in a part", chat([{"type": "refusal", "refusal": "I will not."}])),
]


@pytest.mark.parametrize("play", [u[1] for u in UNUSABLE], ids=[u[0] for u in UNUSABLE])
def test_an_unusable_answer_is_asked_for_once_more(play):
    trial = Trial(play, chat(ANSWER))
    trial.check()
    assert trial.review is not None and trial.requests == 2
    assert len(trial.kept) == 2 and trial.kept[1] == ANSWER
    assert trial.purse.charged == [USAGE_MICRO] * 2
    roles = [m["role"] for m in trial.server.requests[1]["messages"]]
    assert roles == ["system", "user", "assistant", "user"]
    assert "cannot be used" in trial.server.requests[1]["messages"][-1]["content"]


@pytest.mark.parametrize("play", [u[1] for u in UNUSABLE], ids=[u[0] for u in UNUSABLE])
def test_an_answer_that_stays_unusable_holds_with_everything_kept(play):
    trial = Trial(play)
    trial.check()
    assert trial.error is not None and trial.requests == 2
    assert len(trial.kept) == 2
    assert trial.purse.charged == [USAGE_MICRO] * 2


SAID = [
    ("thinks beside", chat(None, reasoning_content="hm"), "thought and then answered nothing"),
    ("thinks up to the cap", chat("", finish="length", reasoning="hm"), "max_output_tokens"),
    ("is cut", chat(ANSWER[:50], finish="length", reasoning="hm"), "cut at its token cap"),
    ("calls a tool", chat(None, tool_calls=[{"id": "1"}]), "called a tool"),
    ("calls a function", chat(None, function_call={"name": "f"}), "called a tool"),
    ("refuses", chat([{"refusal": "No."}]), "refused"),
    ("never stops thinking", chat("<think> hm"), "within the model's thoughts"),
]


@pytest.mark.parametrize(("play", "why"), [s[1:] for s in SAID], ids=[s[0] for s in SAID])
def test_the_model_is_told_why_its_answer_cannot_be_used(play, why):
    trial = Trial(play, chat(ANSWER))
    assert trial.review is not None
    assert why in trial.server.requests[1]["messages"][-1]["content"]


WHOLE: list[tuple[str, dict[str, Any]]] = [
    ("in parts", {"content": [{"type": "text", "text": t} for t in (ANSWER[:9], ANSWER[9:])]}),
    ("after a part of thoughts", {"content": [{"type": "thinking"}, {"text": ANSWER}]}),
    ("with thoughts beside", {"content": ANSWER, "reasoning_content": "hm {"}),
    ("with a call beside", {"content": ANSWER, "tool_calls": [{"id": "1"}]}),
    ("after thoughts that the prompt began", {"content": f"hm {{\n</think>\n{ANSWER}"}),
]


@pytest.mark.parametrize("message", [w[1] for w in WHOLE], ids=[w[0] for w in WHOLE])
def test_an_answer_is_found_wherever_servers_put_it(message):
    trial = Trial(chat(**message))
    trial.check()
    assert trial.review is not None and trial.requests == 1
    assert trial.review.changes[0].value == ["\nInstruction"]


def test_a_lookup_without_an_end_is_within_the_deadline(monkeypatch):
    """Names are looked up by threads, which nobody can stop."""
    never = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: never.wait(20) and [])
    section = ReviewerSection(
        kind="llm", model="m", base_url="http://nowhere.example/v1", timeout_seconds=1
    )
    reviewer = LlmReviewer(section, prices=PRICES, api_key="k")
    start = time.monotonic()
    with pytest.raises(ReviewFailed):
        reviewer.review(REPORT, story()[:1], pay=Purse().pay)
    seconds = time.monotonic() - start
    never.set()
    assert seconds < 3.0


def test_a_closed_thought_and_a_code_fence_are_taken_off():
    trial = Trial(chat(f"<think>\nLet me see {{.\n</think>\n\n```json\n{ANSWER}\n```\n"))
    assert trial.review is not None and trial.requests == 1


LADDER = [
    ("schema unknown", [refusal(400, "response_format json_schema is not supported")], 1),
    ("format unknown", [refusal(400, "unknown field response_format")] * 2, 2),
    ("unprocessable", [refusal(422, "response_format: invalid")], 1),
]


@pytest.mark.parametrize(("plays", "rung"), [c[1:] for c in LADDER], ids=[c[0] for c in LADDER])
def test_the_ladder_steps_down_where_the_server_refuses_a_format(plays, rung):
    trial = Trial(*plays, chat(ANSWER))
    trial.check()
    assert trial.review is not None
    assert trial.purse.charged == [0] * len(plays) + [USAGE_MICRO]
    last = trial.server.requests[-1]
    expected = [{"type": "json_object"}, None][rung - 1]
    assert last.get("response_format") == expected
    assert '"additionalProperties": false' in last["messages"][0]["content"]


CAP = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
ROLE = "System role not supported"


def test_a_cap_by_another_name_is_sent_where_the_server_wants_it():
    trial = Trial(refusal(400, CAP), chat(ANSWER))
    trial.check()
    assert trial.review is not None and trial.purse.charged == [0, USAGE_MICRO]
    first, second = trial.server.requests
    assert first.pop("max_tokens") == second.pop("max_completion_tokens") == 4096
    assert first == second, "and nothing else is other"


def test_a_server_without_a_system_role_is_told_all_in_one_message():
    trial = Trial(refusal(400, ROLE), chat(ANSWER))
    trial.check()
    assert trial.review is not None
    told, report = (m["content"] for m in trial.server.requests[0]["messages"])
    assert trial.server.requests[1]["messages"] == [
        {"role": "user", "content": f"{told}\n\n{report}"}
    ]


def test_every_form_that_is_refused_is_learned_for_the_rest_of_the_review():
    trial = Trial(refusal(400, CAP), refusal(422, ROLE), refusal(400, "json_schema"), chat(ANSWER))
    trial.check()
    assert trial.review is not None and trial.requests == MAX_REQUESTS
    last = trial.server.requests[-1]
    assert "max_tokens" not in last and last["response_format"] == {"type": "json_object"}
    assert [m["role"] for m in last["messages"]] == ["user"]


@pytest.mark.parametrize("again", [CAP, ROLE])
def test_a_refusal_that_stays_the_same_ends_the_review(again):
    trial = Trial(refusal(400, again))
    trial.check()
    assert trial.error is not None and trial.requests == 2


def test_openai_itself_is_sent_the_name_that_it_takes():
    for url in (None, "https://api.openai.com/v1"):
        section = ReviewerSection(model="m", base_url=url)
        reviewer = LlmReviewer(section, prices=PRICES, api_key="k")
        assert reviewer._endpoint.cap == "max_completion_tokens"


def test_four_requests_in_all_over_ladder_retry_and_correction():
    plays = [refusal(400, "json_schema"), refusal(503), chat("no"), chat("no"), chat(ANSWER)]
    trial = Trial(*plays)
    trial.check()
    assert trial.error is not None and trial.requests == 4
    # A correction that only just fits does not start a further retry.
    assert len(trial.kept) == 2


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), ("0", 0.0), ("soon", None), ("-3", None)]
)
def test_retry_after_is_honoured_where_it_makes_sense(header, seconds):
    trial = Trial(refusal(429, retry_after=header), chat(ANSWER))
    assert trial.review is not None and trial.requests == 2
    assert trial.slept == [pytest.approx(seconds if seconds is not None else 0.5)]
    assert trial.purse.charged == [0, USAGE_MICRO]


def test_a_retry_after_beyond_the_deadline_ends_at_once():
    trial = Trial(refusal(429, retry_after="3600"))
    assert trial.error is not None and trial.requests == 1 and trial.slept == []
    assert "asked to wait 3600 s" in str(trial.error)


def test_a_retry_after_date_counts_from_now():
    trial = Trial(refusal(503, retry_after="Wed, 21 Oct 2015 07:28:00 GMT"), chat(ANSWER))
    assert trial.slept == [0.0] and trial.review is not None


def test_a_server_error_that_passes_is_charged_in_full_and_retried():
    trial = Trial(refusal(500), chat(ANSWER))
    trial.check()
    assert trial.review is not None and trial.requests == 2
    assert trial.purse.charged == [trial.purse.reserved[0], USAGE_MICRO]


def test_an_address_where_nobody_listens_costs_nothing():
    with serving([]) as server:
        url = server.url
    section = ReviewerSection(kind="llm", model="m", base_url=url, timeout_seconds=20)
    reviewer = LlmReviewer(section, prices=PRICES, api_key="k", sleep=lambda seconds: None)
    purse = Purse()
    with pytest.raises(ReviewFailed, match="ConnectError"):
        reviewer.review(REPORT, story()[:1], pay=purse.pay)
    assert purse.charged == [0] * MAX_REQUESTS


SLOW = [
    ("no first byte", Play(wait=30.0)),
    ("body drips", Play(b" " * 1000, drip=0.02)),
    ("headers drip", Play(b"{}", drip=0.02, drip_headers=True, headers={"X": "y" * 1000})),
]


@pytest.mark.parametrize("play", [s[1] for s in SLOW], ids=[s[0] for s in SLOW])
def test_the_deadline_is_total_and_what_is_unknown_is_charged(play):
    trial = Trial(play, timeout=1.0)
    trial.check()
    assert trial.error is not None and trial.requests == 1
    assert trial.seconds < 3.0
    assert trial.purse.charged == trial.purse.reserved


USAGES = [
    ("none", None),
    ("null", {}),
    ("strings", {"prompt_tokens": "100", "completion_tokens": "50"}),
    ("true", {"prompt_tokens": True, "completion_tokens": True}),
    ("negative", {"prompt_tokens": -5, "completion_tokens": 50}),
    ("nothing read", {"prompt_tokens": 0, "completion_tokens": 50}),
    ("nothing written", {"prompt_tokens": 100, "completion_tokens": 0}),
    ("absurd", {"prompt_tokens": 10**12, "completion_tokens": 50}),
    ("above the cap", {"prompt_tokens": 100, "completion_tokens": 4097}),
    ("fractions", {"prompt_tokens": 1.5, "completion_tokens": 2.5}),
]


@pytest.mark.parametrize("usage", [u[1] for u in USAGES], ids=[u[0] for u in USAGES])
def test_usage_that_cannot_be_true_is_charged_in_full(usage):
    trial = Trial(chat(ANSWER, usage=usage))
    trial.check()
    assert trial.review is not None
    assert trial.purse.charged == trial.purse.reserved


def test_a_correction_is_reserved_with_what_it_quotes():
    trial = Trial(chat("no " * 600), chat(ANSWER))
    trial.check()
    first, second = trial.purse.reserved
    assert second - first > 1800


def test_an_echo_of_the_key_is_not_kept():
    coded = b64encode(b"canary-key-123").decode()
    echo = chat(f"you sent Bearer canary-key-123, in base64 {coded}")
    trial = Trial(echo, Play(echo.body, 401), chat(ANSWER))
    trial.check()
    assert "Bearer ***, in base64 ***" in trial.kept[0]
    assert "Y2FuYXJ5" not in str(trial.error)


def test_a_model_without_a_price_is_refused_at_construction():
    with pytest.raises(ConfigError, match="'other' has no price"):
        LlmReviewer(ReviewerSection(model="other"), prices=PRICES, api_key="k")


@pytest.mark.parametrize(
    "url", ["ftp://x/v1", "127.0.0.1:80", "http://a b/", "http://x/\n", "http://["]
)
def test_an_address_that_is_none_is_refused_at_construction(url):
    with pytest.raises(ConfigError, match=r"reviewer\.base_url"):
        LlmReviewer(ReviewerSection(model="m", base_url=url), prices=PRICES, api_key="k")


@pytest.mark.parametrize("key", ["a\nb", "a b", "schlüssel"])
def test_a_key_that_is_none_is_refused_without_being_shown(key):
    with pytest.raises(ConfigError, match="OPENAI_API_KEY") as caught:
        LlmReviewer(ReviewerSection(model="m"), prices=PRICES, api_key=key)
    assert key not in str(caught.value)


LOCAL = "http://127.0.0.1:9/v1"
CHOICES: list[tuple[dict[str, Any], dict[str, str], str, str]] = [
    ({"kind": "rules"}, {"OPENAI_API_KEY": "k"}, "rules", "as configured"),
    ({"kind": "auto"}, {}, "rules", "OPENAI_API_KEY is not set"),
    ({"kind": "auto"}, {"OPENAI_API_KEY": ""}, "rules", "OPENAI_API_KEY is not set"),
    ({"kind": "auto"}, {"OPENAI_API_KEY": "k"}, "llm:m", "OPENAI_API_KEY is set"),
    ({"kind": "auto", "api_key_env": "MINE"}, {"OPENAI_API_KEY": "k"}, "rules", "MINE is not set"),
    ({"kind": "llm"}, {"OPENAI_API_KEY": "k"}, "llm:m", "as configured"),
    ({"kind": "llm", "base_url": LOCAL}, {}, "llm:m", "127.0.0.1:9"),
]


@pytest.mark.parametrize(("section", "environ", "name", "why"), CHOICES)
def test_the_reviewer_is_chosen_and_the_choice_is_explained(section, environ, name, why):
    chosen, sentence = choose_reviewer(
        ReviewerSection.model_validate({"model": "m", **section}), PRICES, environ
    )
    assert chosen.name == name
    assert why in sentence and "canary" not in sentence


@pytest.mark.parametrize("url", [None, "https://api.example/v1"])
def test_an_llm_without_a_key_is_a_configuration_error(url):
    section = ReviewerSection(kind="llm", model="m", base_url=url)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        choose_reviewer(section, PRICES, {})


def test_no_environment_variable_redirects_the_request(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    assert Trial(chat(ANSWER)).review is not None
    reviewer = LlmReviewer(ReviewerSection(model="m"), prices=PRICES, api_key="k")
    assert re.match(r"https://api\.openai\.com/", reviewer._endpoint.base_url)
