"""served/server.py and its common dialect, against loopback servers that play a part."""

import signal
import threading
import time
from dataclasses import replace
from typing import Any

import pytest
from completion_server import MODELS, USAGE, choice, engine, request

from pipeline.engine import open_engine
from pipeline.engine.base import EngineSpec, Leased, Stoppable
from pipeline.engine.served.openai_server import UNKNOWN_ID
from pipeline.errors import EngineError, EngineLost, EngineTimeout
from pipeline.types import Sampling, Score, ScoreRequest


def made(tokens: int, **fields: Any) -> Any:
    return choice(**fields) | {"usage": {"prompt_tokens": 3, "completion_tokens": tokens}}


def test_a_request_carries_every_knob_under_every_name():
    with engine(lambda path, body: choice()) as opened:
        opened.generate([request()])
        path, body = opened.seen[0]
    assert path == "/v1/completions" and body["prompt"] == "P Say hi:" and body["model"] == "base"
    assert body["repetition_penalty"] == body["repeat_penalty"] == 1.2
    assert (body["top_k"], body["min_p"], body["top_p"]) == (-1, 0.0, 0.9)
    assert (body["temperature"], body["max_tokens"]) == (0.7, 5)
    assert body["stop"] == ["\nInstruction"] and 0 <= body["seed"] < 2**32 - 1
    assert body["authorization"] == "Bearer key-1234"


@pytest.mark.parametrize(
    ("told", "reason", "stop", "ids"),
    [
        ({"token_ids": [5, 6, 7, 1]}, "eos", None, (5, 6, 7)),
        (
            {"token_ids": [5, 6, 7, 8], "stop_reason": "\nInstruction"},
            "stop",
            "\nInstruction",
            (5, 6, 7, 8),
        ),
        ({"stop_reason": 106}, "eos", None, (UNKNOWN_ID,) * 3),
        ({"matched_stop": "\nInstruction"}, "stop", "\nInstruction", (UNKNOWN_ID,) * 4),
        ({"finish_reason": "length"}, "length", None, (UNKNOWN_ID,) * 4),
    ],
    ids=["eos", "stop", "end token by number", "sglang", "length"],
)
def test_how_a_row_ended_is_read_from_the_answer(told, reason, stop, ids):
    answer = choice(**told)
    if "matched_stop" in told:
        del answer["choices"][0]["stop_reason"]
    sampling = Sampling(temperature=0.7, max_new_tokens=4, stop=("\nInstruction",))
    with engine(lambda path, body: answer) as opened:
        (row,) = opened.generate([request(sampling=sampling)])
    assert (row.finish_reason, row.stop, row.token_ids, row.text) == (reason, stop, ids, " hi")


def test_rows_come_back_in_order_though_answered_side_by_side():
    active, most = 0, 0
    lock = threading.Lock()

    def answer(path: str, body: dict[str, Any]) -> Any:
        nonlocal active, most
        with lock:
            active += 1
            most = max(most, active)
        number = int(body["prompt"].split()[-1])
        time.sleep(0.02 * (number % 3))
        with lock:
            active -= 1
        return choice(text=str(number))

    with engine(answer, concurrency=5) as opened:
        rows = opened.generate([request(str(n)) for n in range(40)])
    assert [row.text for row in rows] == [str(n) for n in range(40)]
    assert 2 <= most <= 5


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"choices": [], "usage": USAGE}, "0 choices where one"),
        ({"choices": choice()["choices"] * 2, "usage": USAGE}, "2 choices where one"),
        ({"usage": USAGE}, "choices = None"),
        (choice(text=None), "text = None"),
        (choice(text=" hi\nInstruction: x"), "ignores stop strings"),
        (choice(text="\ud800"), "is not Unicode"),
        ({"choices": choice()["choices"]}, "usage = None"),
        (choice(finish_reason="length"), "ended after 4 of 5 tokens"),
        (choice(finish_reason=None), "finish_reason None"),
        (made(6, finish_reason="length"), "ignores max_tokens: it made 6 where 5"),
        (made(5, finish_reason="length", text=""), "made 5 tokens and no text"),
        (choice() | {"model": "gpt-2"}, "with the model 'gpt-2' where 'base' was asked"),
        (choice(finish_reason="content_filter"), "content_filter"),
        (choice(token_ids=[5, 6, 1]), "3 token ids of 4 tokens"),
        (made(5, finish_reason="length", token_ids=[1] * 6), "6 token ids of 5 tokens"),
        (choice(token_ids=[5, 6, 7, True]), "expected whole numbers from 0"),
        (choice(token_ids=[5, 6, 7, -1]), "expected whole numbers from 0"),
        (choice(token_ids="5 6"), "token_ids = '5 6'; expected list"),
        (made(-1), "completion_tokens = -1; expected 0 or more"),
        (made(0), "the text ' hi' of no tokens"),
        (choice(stop_reason="another"), "stop_reason = 'another'; expected one of"),
        (b"<html>hello", "'<html>hello'"),
        (b"[" * 100_000, "expected a JSON object"),
        (b"[]", "expected a JSON object"),
        (500, "refused /completions: 500"),
        (429, "refused /completions: 429"),
        ((503, {"retry-after": "3600"}), "refused /completions: 503"),
        ((503, {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}), "refused /completions: 503"),
        ((502, {"retry-after": "0"}), "refused /completions: 502"),
        ((307, {"location": "http://elsewhere/v1"}), "refused /completions: 307 'http://elsewhere"),
    ],
)  # fmt: skip
def test_an_answer_that_cannot_be_trusted_is_an_error_and_is_not_asked_for_again(answer, message):
    with engine(lambda path, body: answer) as opened:
        with pytest.raises(EngineError, match=message):
            opened.generate([request()])
        assert len(opened.seen) == 1


def test_a_server_that_hides_why_it_stopped_is_refused_only_where_that_matters():
    answer = choice()
    del answer["choices"][0]["stop_reason"]
    with engine(lambda path, body: answer) as opened:
        with pytest.raises(EngineError, match="does not say whether a stop string"):
            opened.generate([request()])
        (row,) = opened.generate([request(sampling=Sampling(0.0, 5))])
    assert row.finish_reason == "eos"


def test_absence_is_named_and_the_key_is_never_shown():
    spec = EngineSpec(kind="server", model="base", base_url="http://127.0.0.1:9/v1", api_key="k-1")
    with pytest.raises(EngineError, match="no answer from http://127.0.0.1:9/v1.*start the server"):
        open_engine(spec)
    with engine(lambda path, body: b'"key-1234 is wrong"') as opened:
        with pytest.raises(EngineError, match=r"\*\*\* is wrong"):
            opened.generate([request()])
    with pytest.raises(EngineError, match="no HTTP header can carry") as caught:
        open_engine(replace(spec, api_key="schlüssel"))
    assert "schl" not in str(caught.value)
    with pytest.raises(EngineError, match="no answer from nonsense"):
        open_engine(replace(spec, base_url="nonsense"))
    with pytest.raises(EngineError, match="Port out of range.*expected http://HOST:PORT/v1"):
        open_engine(replace(spec, base_url="http://127.0.0.1:99999/v1"))


@pytest.mark.parametrize(
    ("name", "value"),
    [("ALL_PROXY", "socks5://127.0.0.1:9"), ("ALL_PROXY", "x://y"), ("SSL_CERT_FILE", "/nowhere")],
)
def test_a_client_that_cannot_be_built_names_the_variables_that_say_how(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    spec = EngineSpec(kind="server", model="base", base_url="http://127.0.0.1:9/v1")
    with pytest.raises(EngineError, match="correct or unset the variables.*ALL_PROXY and SSL_CERT"):
        open_engine(spec)


def drip(head: bytes, byte: bytes) -> Any:
    """A server that goes on for ever, a byte at a time."""

    def write(handler: Any) -> None:
        handler.wfile.write(head)
        while True:
            handler.wfile.write(byte)
            time.sleep(0.02)

    return write


def silent(handler: Any) -> None:
    time.sleep(1.0)


HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n"
ENDLESS = {
    "silent": silent,
    "drips its body": drip(HEAD, b" "),
    "drips its headers": drip(b"HTTP/1.1 200 OK\r\nx-", b"y"),
    "drips an error": drip(HEAD.replace(b"200 OK", b"500 No"), b" "),
}


@pytest.mark.parametrize("play", ENDLESS.values(), ids=ENDLESS)
def test_a_request_has_a_deadline_however_the_server_fills_the_time(play):
    with engine(lambda path, body: play, timeout=0.2) as opened:
        began = time.monotonic()
        with pytest.raises(EngineError, match="did not end its answer within 0.2 s") as caught:
            opened.generate([request()])
        assert time.monotonic() - began < 0.9 and not isinstance(caught.value, EngineTimeout)


@pytest.mark.parametrize("play", ENDLESS.values(), ids=ENDLESS)
def test_a_lease_ends_every_request_and_nothing_is_sent_after_it(play):
    with engine(lambda path, body: play) as opened:
        assert isinstance(opened, Leased)
        opened.lease(0.2)
        began = time.monotonic()
        with pytest.raises(EngineTimeout, match="its lease of 0.2 s ended; raise engine.lease"):
            opened.generate([request()] * 40)
        assert time.monotonic() - began < 0.9 and len(opened.seen) <= 32
        sent = len(opened.seen)
        with pytest.raises(EngineTimeout):
            opened.score([ScoreRequest("", "a", (" b",))])
        assert len(opened.seen) == sent
        opened.lease(5)
        assert opened.generate([]) == []


def test_a_new_lease_replaces_the_old_one():
    with engine(lambda path, body: choice()) as opened:
        opened.lease(0.001)
        time.sleep(0.01)
        opened.lease(30)
        assert len(opened.generate([request()] * 3)) == 3


@pytest.mark.parametrize("play", ENDLESS.values(), ids=ENDLESS)
def test_a_stop_from_another_thread_ends_every_request_for_good(play):
    with engine(lambda path, body: play) as opened:
        assert isinstance(opened, Stoppable)
        began = time.monotonic()
        timer = threading.Timer(0.2, opened.stop)
        timer.start()
        with pytest.raises(EngineLost, match="was stopped; open another"):
            opened.generate([request()] * 40)
        assert time.monotonic() - began < 0.9
        timer.join()
        sent = len(opened.seen)
        with pytest.raises(EngineLost, match="was stopped"):
            opened.generate([request()])
        assert len(opened.seen) == sent
        opened.close()
        opened.stop()


def test_a_stop_in_a_signal_handler_ends_what_runs():
    with engine(lambda path, body: silent) as opened:
        before = signal.signal(signal.SIGALRM, lambda *_: opened.stop())
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        try:
            began = time.monotonic()
            with pytest.raises(EngineLost, match="was stopped"):
                opened.generate([request()])
            assert time.monotonic() - began < 0.9
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def test_finding_out_what_a_server_is_has_a_deadline_of_its_own_and_leaves_no_lease():
    with pytest.raises(EngineTimeout, match=r"still being probed after 0\.3 s"):  # noqa: SIM117
        with engine(lambda path, body: silent, scored=True, open_seconds=0.3):
            pass
    with engine(lambda path, body: choice(), open_seconds=1.0) as opened:
        time.sleep(1.1)
        assert len(opened.generate([request()])) == 1


def test_an_answer_without_end_is_not_read_to_the_end(monkeypatch):
    monkeypatch.setattr("pipeline.engine.served.connection.BODY_BYTES", 2**20)
    sent = 0

    def write(handler: Any) -> None:
        nonlocal sent
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(1000):
            handler.wfile.write(b" " * 2**18)
            sent += 2**18

    with engine(lambda path, body: write) as opened:
        with pytest.raises(EngineError, match="sent more than 1 MiB"):
            opened.generate([request()])
    assert sent < 100 * 2**20


@pytest.mark.parametrize("status", [429, 503])
def test_a_request_refused_for_now_is_sent_again_when_the_server_says(status):
    answers = iter([(status, {"retry-after": "0"}), (status, {"retry-after": "0"}), choice()])
    with engine(lambda path, body: next(answers)) as opened:
        assert opened.generate([request()])[0].text == " hi"
        assert len(opened.seen) == 3


def test_a_server_that_always_says_later_is_given_up():
    with engine(lambda path, body: (503, {"retry-after": "0"})) as opened:
        with pytest.raises(EngineError, match="refused /completions: 503"):
            opened.generate([request()])
        assert len(opened.seen) == 4


def test_after_a_failure_the_rest_is_not_sent_and_what_runs_is_given_up():
    given_up = threading.Event()

    def wait(handler: Any) -> None:
        handler.connection.settimeout(5)
        if handler.connection.recv(1) == b"":
            given_up.set()

    def answer(path: str, body: dict[str, Any]) -> Any:
        if body["prompt"].endswith("fail"):
            time.sleep(0.1)
            return 500
        return wait

    with engine(answer, concurrency=8) as opened:
        with pytest.raises(EngineError, match="500"):
            opened.generate([request(), request("fail"), *[request() for _ in range(500)]])
        assert len(opened.seen) == 8 and given_up.wait(5)


def test_a_closed_engine_says_so_and_closing_twice_is_no_fault():
    with engine(lambda path, body: choice()) as opened:
        opened.close()
        opened.close()
        for use in (lambda: opened.generate([request()]), lambda: opened.count_tokens([])):
            with pytest.raises(EngineError, match="is closed"):
                use()


@pytest.mark.parametrize(
    ("models", "message"),
    [({"data": [{"id": "other"}]}, "has 'other', not 'base'"), ({"data": 3}, "has no model, not")],
)
def test_a_model_that_is_not_there_is_named_with_those_that_are(models, message):
    with pytest.raises(EngineError, match=message), engine(lambda p, b: 404, models=models):
        pass


def test_the_engine_says_what_it_is():
    with pytest.raises(EngineError, match="base_url is not set"):
        open_engine(EngineSpec(kind="server", model="base"))
    with engine(lambda path, body: choice()) as first, engine(
        lambda path, body: choice(), models={"data": [MODELS["data"][0] | {"created": 2}]}
    ) as second:  # fmt: skip
        assert first.info.kind == "server" and first.info.context == 512
        assert first.info.device.startswith("http://127.0.0.1:")
        assert first.info.digest == second.info.digest
        with pytest.raises(EngineError, match="exceed the model's context of 512"):
            first.generate([request(sampling=Sampling(0.5, 512))])
        with pytest.raises(EngineError, match="temperature"):
            first.generate([request(sampling=Sampling(-1.0, 5))])
        assert first.seen == []


def words(text: str) -> list[str]:
    return [w if i == 0 else f" {w}" for i, w in enumerate(text.split(" "))]


def echoing(path: str, body: dict[str, Any]) -> Any:
    """Scores word i of a prompt as -i, after a begin token, and generates one more."""
    told = ["<s>", *words(body["prompt"]), " more"]
    logprobs = {"tokens": told, "token_logprobs": [None, *range(0, 1 - len(told), -1)]}
    usage = {"prompt_tokens": len(told) - 1, "completion_tokens": 1}
    return {"choices": [{"text": "", "logprobs": logprobs}], "usage": usage}


def test_continuations_are_scored_from_an_echoed_prompt():
    with engine(echoing, scored=True) as opened:
        assert opened.info.scores == "any"
        wanted = ScoreRequest("Q: what", " now", (" A", " B C"))
        assert opened.score([wanted, wanted]) == [(Score(-3.0, 1), Score(-7.0, 2))] * 2
        assert opened.count_tokens(["", "one", "one two three"]) == [0, 1, 3]


def test_a_border_that_no_token_respects_is_found_by_counting():
    def answer(path: str, body: dict[str, Any]) -> Any:
        found = echoing(path, body)
        tokens = found["choices"][0]["logprobs"]["tokens"]
        found["choices"][0]["logprobs"]["tokens"] = [t.replace("😀", "�") for t in tokens]
        return found

    with engine(answer, scored=True) as opened:
        assert opened.score([ScoreRequest("one two", "", (" 😀 x",))]) == [(Score(-5.0, 2),)]


@pytest.mark.parametrize("bad", [float("nan"), float("-inf"), 0.5, None, "high", -(10**400)])
def test_what_is_no_log_probability_is_refused(bad):
    def answer(path: str, body: dict[str, Any]) -> Any:
        found = echoing(path, body)
        if body["prompt"] == "one two":
            found["choices"][0]["logprobs"]["token_logprobs"][2] = bad
        return found

    with engine(answer, scored=True) as opened:
        with pytest.raises(EngineError, match="did not score ' two' in full"):
            opened.score([ScoreRequest("one", "", (" two",))])


@pytest.mark.parametrize("bad", [float("nan"), 0.5, None])
def test_a_server_that_gives_no_log_probabilities_in_the_probe_scores_labels_only(bad):
    def answer(path: str, body: dict[str, Any]) -> Any:
        found = echoing(path, body)
        found["choices"][0]["logprobs"]["token_logprobs"][3] = bad
        return found

    with engine(answer, scored=True) as opened:
        assert opened.info.scores == "labels"


def test_zeros_in_the_place_of_log_probabilities_are_none():
    def answer(path: str, body: dict[str, Any]) -> Any:
        found = echoing(path, body)
        logprobs = found["choices"][0]["logprobs"]
        logprobs["token_logprobs"] = [None, *(0.0 for _ in logprobs["tokens"][1:])]
        return found

    with engine(answer, scored=True) as opened:
        assert opened.info.scores == "labels"


@pytest.mark.parametrize("modern", [True, False])
def test_without_echo_single_labels_are_scored_and_nothing_else(modern):
    likely = {" A": -0.5, " B": -1.5}
    if modern:
        tops = [{"token": t, "logprob": p} for t, p in likely.items()]
        logprobs: dict[str, Any] = {"content": [{"token": " A", "top_logprobs": tops}]}
    else:
        logprobs = {"tokens": [" A"], "token_logprobs": [-0.5], "top_logprobs": [likely]}
    with engine(lambda path, body: choice(logprobs=logprobs), scored=True) as opened:
        assert opened.info.scores == "labels"
        asked = ScoreRequest("", "Answer:", (" A", " B"))
        assert opened.score([asked]) == [(Score(-0.5, 1), Score(-1.5, 1))]
        with pytest.raises(EngineError, match="' a text' is not among its 2.*set engine.scorer"):
            opened.score([ScoreRequest("", "Answer:", (" a text",))])
