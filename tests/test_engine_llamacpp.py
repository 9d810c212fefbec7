"""served/llamacpp.py, against a loopback server that plays its part and a real one."""

import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pytest
from completion_server import engine, request

from pipeline.engine import open_engine
from pipeline.engine.base import EngineSpec
from pipeline.engine.local.models import embedded_gguf
from pipeline.engine.served.openai_server import OpenAIServer
from pipeline.engine.served.probes import Abilities
from pipeline.engine.served.server import ServerEngine
from pipeline.errors import EngineError
from pipeline.sentinels import check_behaviour
from pipeline.types import GenRequest, Sampling, Score, ScoreRequest


def llama(path: str, body: dict[str, Any], **changes: Any) -> Any:
    """llama.cpp, whose tokens are letters."""
    if path == "/tokenize":
        first = [0] if body["add_special"] else []
        return {"tokens": first + [ord(c) for c in body["content"]]}
    assert path == "/completion"
    if body.get("n_probs"):
        tokens = [token for token, _ in body.get("logit_bias", [])]
        tokens += [int(i) for i in re.findall(r"<\[(\d+)\]>", body.get("grammar", ""))]
        told = [{"id": t, "logprob": -float(len(body["prompt"]) + i)} for i, t in enumerate(tokens)]
        return {"completion_probabilities": [t | changes for t in told]}
    settings = {k: v for k, v in body.items() if k != "prompt"}
    found = {"content": " hi", "tokens": [32, 104, 105, 1], "stop_type": "eos", "stopping_word": ""}
    return found | {"generation_settings": settings} | changes


LLAMA = {"data": [{"id": "base", "owned_by": "llamacpp", "meta": {"n_ctx": 256, "ftype": "Q4"}}]}


@pytest.mark.parametrize(
    ("told", "reason", "stop", "count"),
    [
        ({}, "eos", None, 3),
        ({"stop_type": "word", "stopping_word": "\nInstruction"}, "stop", "\nInstruction", 4),
        ({"stop_type": "limit", "tokens": [1, 2, 3, 4, 5]}, "length", None, 5),
    ],
)
def test_llama_cpp_tells_how_a_row_ended(told, reason, stop, count):
    with engine(lambda path, body: llama(path, body, **told), models=LLAMA) as opened:
        (row,) = opened.generate([request()])
        body = opened.seen[0][1]
        assert (opened.info.context, opened.info.dtype) == (256, "Q4")
    assert (row.finish_reason, row.stop, len(row.token_ids)) == (reason, stop, count)
    assert body["repeat_last_n"] == 256 and body["seed"] == (2**40 + 7) % (2**32 - 1)
    assert body["samplers"] == ["penalties", "temperature", "top_k", "top_p", "min_p"]


@pytest.mark.parametrize(
    "knob", ["temperature", "top_p", "top_k", "min_p", "repeat_penalty", "repeat_last_n", "seed",
             "stop", "n_predict", "samplers"],
)  # fmt: skip
def test_a_knob_that_llama_cpp_ignores_is_an_error(knob):
    def answer(path: str, body: dict[str, Any]) -> Any:
        found = llama(path, body)
        found["generation_settings"][knob] = 40
        return found

    with engine(answer, models=LLAMA) as opened:
        with pytest.raises(EngineError, match=f"used {knob} = 40 where"):
            opened.generate([request()])


def test_llama_cpp_scores_by_forcing_token_after_token():
    def answer(path: str, body: dict[str, Any]) -> Any:
        return 400 if "grammar" in body else llama(path, body)

    with engine(answer, models=LLAMA, scored=True) as opened:
        assert opened.score([ScoreRequest("ab", "c", (" A", "x"))]) == [
            (Score(-9.0, 2), Score(-4.0, 1))
        ]
        assert opened.count_tokens(["abc", ""]) == [3, 0]


def test_where_it_knows_grammars_of_tokens_a_continuation_is_one_request():
    wanted = ScoreRequest("ab", "c", (" A", "xyz"))
    with engine(llama, models=LLAMA, scored=True) as opened:
        assert opened.score([wanted]) == [(Score(-9.0, 2), Score(-15.0, 3))]
        asked = [body for path, body in opened.seen if path == "/completion"]
    assert [body["grammar"] for body in asked] == [
        "root ::= <[32]> <[65]>", "root ::= <[120]> <[121]> <[122]>",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"stop_type": "word", "stopping_word": "another"}, "'another', which was not asked for"),
        ({"stop_type": "limit", "tokens": [1] * 6}, "ended after 6 of 5 tokens"),
        ({"tokens": [1, True]}, "expected whole numbers from 0"),
        ({"tokens": [1, -1]}, "expected whole numbers from 0"),
        ({"tokens": []}, "of no tokens"),
    ],
)
def test_an_answer_of_llama_cpp_that_cannot_be_true_is_an_error(told, message):
    with engine(lambda path, body: llama(path, body, **told), models=LLAMA) as opened:
        with pytest.raises(EngineError, match=message):
            opened.generate([request()])


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"id": 7}, "did not take the token"), ({"logprob": float("nan")}, "as a log-probability"),
     ({"logprob": 0.5}, "as a log-probability"), ({"logprob": None}, "logprob = None")],
)  # fmt: skip
def test_a_forced_token_that_was_not_taken_is_an_error(changes, message):
    with engine(lambda p, b: llama(p, b, **changes), models=LLAMA) as opened:
        with pytest.raises(EngineError, match=message):
            opened.score([ScoreRequest("ab", "c", (" A",))])


def test_a_llama_cpp_that_lies_about_its_parameters_is_found_out():
    """It says that it used what was asked, and always writes the same."""
    models = LLAMA
    with engine(
        lambda p, b: llama(p, b, stop_type="limit", tokens=[7] * b.get("n_predict", 1)),
        models=models, abilities=None,
    ) as opened:  # fmt: skip
        told = opened.abilities
        assert told.temperature and told.top_k and told.seed and told.repetition_penalty
        with pytest.raises(EngineError, match="does not honour temperature"):
            opened.generate([request()])
        assert opened.seen == []


def test_a_llama_cpp_row_cut_by_its_context_is_an_error():
    with engine(lambda p, b: llama(p, b, stop_type="limit"), models=LLAMA) as opened:
        with pytest.raises(EngineError, match="ended after 4 of 5 tokens"):
            opened.generate([request()])


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Address of a real llama.cpp server with the embedded model."""
    xllamacpp = pytest.importorskip("xllamacpp", reason="make test-peer installs it")
    params = xllamacpp.CommonParams()
    params.model.path = str(embedded_gguf(EngineSpec()))
    params.port = 0
    params.n_ctx = 4096
    params.n_parallel = 2
    params.cpuparams.n_threads = 1  # its threads spin while they wait for each other
    params.model_alias = {"gemma"}
    running = xllamacpp.Server(params)
    yield f"{running.listening_address}/v1"
    del running


@pytest.fixture(scope="module")
def peer(url: str) -> Iterator[ServerEngine]:
    """An engine on it."""
    opened = ServerEngine.open(EngineSpec(kind="server", model="gemma", base_url=url))
    yield opened
    opened.close()


PROMPT = "Instruction: Name a colour.\nResponse: Blue.\n\nInstruction: Name a fruit.\nResponse:"


@pytest.mark.peer
def test_a_real_server_honours_every_knob_and_scores_any_text(peer):
    assert peer.abilities == Abilities() and peer.info.scores == "any"


@pytest.mark.peer
def test_a_real_server_in_the_common_words_names_no_stop_string_and_echoes_nothing(
    url, monkeypatch
):
    monkeypatch.setattr(
        "pipeline.engine.served.server._dialect", lambda connection, found: OpenAIServer(connection)
    )
    opened = ServerEngine.open(EngineSpec(kind="server", model="gemma", base_url=url))
    found = {name for name, seen in asdict(opened.abilities).items() if seen}
    assert found == {"stop"} and "does not say whether" in opened.abilities.describe()
    assert opened.info.scores == "labels"
    (row,) = opened.generate([GenRequest("", PROMPT, Sampling(0.7, 6, top_p=0.9), 1)])
    assert row.text and len(row.token_ids) <= 6
    with pytest.raises(EngineError, match="does not honour stop"):
        opened.generate([GenRequest("", PROMPT, Sampling(0.7, 6, stop=("\n",)), 1)])
    opened.close()


@pytest.mark.peer
def test_a_real_server_answers_a_batch_and_repeats_itself(peer):
    sampling = Sampling(0.7, 60, top_p=0.9, repetition_penalty=1.1, stop=("\nInstruction", "\n\n"))
    asked = [GenRequest("", PROMPT, sampling, seed=n) for n in range(8)]
    rows = peer.generate(asked)
    assert {row.finish_reason for row in rows} <= {"eos", "stop", "length"}
    assert any(row.stop in sampling.stop for row in rows)
    assert all(row.token_ids and not any(s in row.text for s in sampling.stop) for row in rows)
    assert len({row.text for row in rows}) > 3
    alone = [peer.generate([row])[0] for row in asked[:3]]
    assert alone == [peer.generate([row])[0] for row in asked[:3]]
    assert check_behaviour(peer).passed


@pytest.mark.peer
def test_a_real_server_scores_as_the_model_in_process_does(peer):
    asked = [ScoreRequest("", PROMPT, (" Apple.", " The moon is made of cheese.", " A", " B"))]
    (served,) = peer.score(asked)
    here = open_engine(EngineSpec())
    (local,) = here.score(asked)
    assert peer.count_tokens([PROMPT]) == here.count_tokens([PROMPT])
    here.close()
    assert [s.tokens for s in served] == [s.tokens for s in local]
    for ours, theirs in zip(local, served, strict=True):
        assert theirs.mean == pytest.approx(ours.mean, abs=0.3)
