"""served/probes.py, against a toy model that really honours each knob, or ignores it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace

import pytest
from completion_server import engine
from toy_server import KNOBS, complete, toy_server

from pipeline.engine.base import EngineSpec
from pipeline.engine.served.connection import Refused
from pipeline.engine.served.probes import PROMPTS, Abilities, probe
from pipeline.engine.served.server import ServerEngine
from pipeline.errors import EngineError
from pipeline.types import Completion, GenRequest, Sampling, Score, ScoreRequest


@contextmanager
def toy(*ignores: str) -> Iterator[ServerEngine]:
    """An engine on a toy server."""
    with toy_server(ignores=ignores) as url:
        opened = ServerEngine.open(EngineSpec(kind="server", model="toy", base_url=url))
        try:
            yield opened
        finally:
            opened.close()


def missing(abilities: Abilities) -> set[str]:
    return {name for name, seen in asdict(abilities).items() if seen}


def test_a_server_that_honours_every_knob_is_found_to():
    with toy() as opened:
        assert opened.abilities == Abilities() and opened.info.scores == "any"
        assert opened.abilities.describe() == "honours every knob"


GREEDY = {"greedy", "top_p", "top_k", "min_p", "repetition_penalty", "stop"}
"""What cannot be told where temperature 0 does not repeat itself."""
FOUND = {
    "temperature": (GREEDY | {"temperature"}, "temperature"),
    "greedy": (GREEDY | {"temperature"}, "two texts at temperature 0 differ"),
    "sampling": ({"temperature", "seed", "top_p", "top_k", "min_p"}, "temperature 2 are the"),
    "seed": ({"seed"}, "one seed gave two texts"),
    "seeds": ({"seed"}, "two seeds gave one text"),
    "top_p": ({"top_p"}, "top_p = 1e-06 are not the greedy one"),
    "top_k": ({"top_k"}, "top_k = 1 are not the greedy one"),
    "min_p": ({"min_p"}, "min_p = 1 are not the greedy one"),
    "repetition_penalty": ({"repetition_penalty"}, "after a repetitive prompt is the same"),
    "penalty_prompt": ({"repetition_penalty"}, "after a repetitive prompt is the same"),
    "stop": ({"stop"}, "ignores stop strings"),
    "stop_trim": ({"stop"}, "ignores stop strings"),
    "stop_reason": ({"stop"}, "does not say whether a stop string"),
}


@pytest.mark.parametrize("ignored", FOUND)
def test_a_knob_that_is_ignored_is_found_by_name(ignored):
    names, reason = FOUND[ignored]
    with toy(ignored) as opened:
        assert missing(opened.abilities) == names
        assert reason in opened.abilities.describe()


def test_a_server_that_ignores_all_knobs_is_found_to_and_the_table_names_them_all():
    assert set(KNOBS) - {"max_tokens"} <= set(FOUND)
    with toy(*set(KNOBS) - {"max_tokens"}) as opened:
        assert missing(opened.abilities) == set(asdict(Abilities()))


def test_a_server_that_ignores_the_cap_is_not_opened_at_all():
    with pytest.raises(EngineError, match="ignores max_tokens: it made 16 where 8"):
        with toy("max_tokens"):
            pass


HOT = Sampling(1.0, 4)
ASKED = {
    "temperature": (HOT, "temperature .1.0 was asked for"),
    "seed": (HOT, "seed: one seed"),
    "top_p": (replace(HOT, top_p=0.9), "top_p .0.9 was"),
    "top_k": (replace(HOT, top_k=5), "top_k .5 was"),
    "min_p": (replace(HOT, min_p=0.1), "min_p .0.1 was"),
    "repetition_penalty": (replace(HOT, repetition_penalty=1.1), "repetition_penalty .1.1 was"),
    "stop": (replace(HOT, stop=("x",)), r"stop .\['x'\] was"),
    "greedy": (Sampling(0.0, 4), "greedy .0.0 was"),
}


@pytest.mark.parametrize("knob", ASKED)
def test_a_knob_that_is_ignored_is_refused_by_name_before_anything_is_sent(knob):
    sampling, message = ASKED[knob]
    abilities = Abilities(**{knob: "one seed gave two texts"})
    fine = Sampling(1.0 if knob == "greedy" else 0.0, 4)
    rows = [GenRequest("", "the", s, 1) for s in (fine, sampling)]
    with engine(lambda path, body: 500, abilities=abilities) as opened:
        with pytest.raises(EngineError, match=f"row 1: the server at .* not honour {message}"):
            opened.generate(rows)
        assert opened.seen == []


def test_what_a_server_honours_can_be_used_though_it_ignores_another_knob():
    with toy("top_k") as opened:
        (row,) = opened.generate([GenRequest("", "the", replace(HOT, top_p=0.5), 1)])
        assert row.token_ids
        with pytest.raises(EngineError, match="does not honour top_k .5 was asked for"):
            opened.generate([GenRequest("", "the", replace(HOT, top_k=5), 1)])


def test_a_greedy_draw_needs_neither_seed_nor_cut():
    abilities = Abilities(temperature="x", seed="x", top_p="x", top_k="x", min_p="x")
    assert abilities.problem(Sampling(0.0, 4, top_p=0.5, top_k=3, min_p=0.1)) is None
    assert (abilities.problem(Sampling(0.1, 4)) or "").startswith("does not honour temperature")


@pytest.mark.parametrize("status", [400, 422, 501])
def test_a_knob_that_the_server_refuses_is_one_that_it_does_not_honour(status):
    refusal = Refused("refused: 'min_p is unknown'", status=status)
    with toy() as opened:

        def ask(requests):
            rows = opened.generate(requests)
            pairs = zip(requests, rows, strict=True)
            return [refusal if r.sampling.min_p else row for r, row in pairs]

        assert probe(ask) == Abilities(min_p="refused: 'min_p is unknown'")


@pytest.mark.parametrize("status", [401, 404, 500])
@pytest.mark.parametrize("always", [True, False])
def test_a_server_that_fails_is_not_taken_for_one_without_abilities(status, always):
    def answer(path, body):
        return status if always or body.get("min_p") else complete(body, frozenset())

    with pytest.raises(EngineError, match=f"refused /completions: {status}"):
        with engine(answer, abilities=None):
            pass


@pytest.mark.parametrize("text", ["", " one", " a b c d e f g h"])
def test_a_model_that_always_says_the_same_shows_nothing(text):
    sent = []

    def ask(requests):
        sent.extend(requests)
        return [Completion(text, (1,), "length") for _ in requests]

    found = probe(ask)
    assert missing(found) == set(asdict(found)) - {"greedy"}
    assert {r.prefix + r.suffix for r in sent} == {p for pair in PROMPTS for p in pair}


def test_what_one_prompt_does_not_show_is_tried_on_the_next():
    sent = []
    same = Completion(" a", (1,), "length")
    with toy() as opened:

        def ask(requests):
            sent.extend(requests)
            rows = opened.generate(requests)
            pairs = zip(requests, rows, strict=True)
            return [same if r.suffix in PROMPTS[0] else row for r, row in pairs]

        assert probe(ask) == Abilities()
    assert {r.suffix for r in sent} == {*PROMPTS[0], *PROMPTS[1]}


def test_probes_are_few_and_small_and_what_was_shown_is_not_asked_again():
    sent = []
    with toy("stop_reason") as opened:

        def ask(requests):
            sent.append(requests)
            return [
                Refused("no", status=400) if r.sampling.stop else row
                for r, row in zip(
                    requests, opened.generate([plain(r) for r in requests]), strict=True
                )
            ]

        assert missing(probe(ask)) == {"stop"}
    rounds = [len(requests) for requests in sent]
    assert rounds == [13, 1, 1, 1, 1, 1, 2, 1, 2, 1, 2, 1]
    assert max(r.sampling.max_new_tokens for requests in sent for r in requests) == 8


def plain(request: GenRequest) -> GenRequest:
    return replace(request, sampling=replace(request.sampling, stop=()))


@pytest.mark.parametrize("ignores", [[], ["echo"]], ids=["echo", "prompt_logprobs"])
def test_any_text_is_scored_where_the_server_tells(ignores):
    asked = ScoreRequest("the old", " bird", (" sang", " sang in the rain", " a"))
    with toy(*ignores) as opened, toy() as reference:
        assert opened.info.scores == "any"
        (found,), (wanted,) = opened.score([asked]), reference.score([asked])
    assert [s.tokens for s in found] == [1, 4, 1] and all(s.logprob < 0 for s in found)
    assert [s.logprob for s in found] == pytest.approx([s.logprob for s in wanted])


def test_only_labels_are_scored_where_it_tells_no_more():
    with toy("echo", "prompt_logprobs") as opened, toy() as reference:
        assert opened.info.scores == "labels"
        (likely,) = reference.generate([GenRequest("", "the old", Sampling(0.0, 1), 1)])
        label = ScoreRequest("", "the old", (likely.text,))
        ((found,),), ((wanted,),) = opened.score([label]), reference.score([label])
        assert found == Score(pytest.approx(wanted.logprob), 1)
        with pytest.raises(EngineError, match="set engine.scorer"):
            opened.score([ScoreRequest("", "the old", (" sang in the rain",))])
    with toy("logprobs", "prompt_logprobs") as opened:
        with pytest.raises(EngineError, match="logprobs = None"):
            opened.score([ScoreRequest("", "the old", (" a",))])
