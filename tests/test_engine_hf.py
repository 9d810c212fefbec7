"""local/hf.py: transformers' own tokens and scores, whatever a row is batched with."""

import gc
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.engine.base import EngineSpec
from pipeline.engine.local.hf import HFEngine
from pipeline.engine.local.sampling import Sampler
from pipeline.errors import EngineError
from pipeline.types import GenRequest, Sampling, ScoreRequest
from tests import tiny_models

PREFIX = "Instruction: name a sea\nResponse: the Baltic\n\n"
SUFFIXES = ["Instruction: x", "Instruction: what is a dog?\nResponse:", "é", "In", "A long " * 9]
GREEDY = Sampling(0.0, 24)
WARM = Sampling(0.9, 24, top_p=0.95, repetition_penalty=1.1)


@pytest.fixture(scope="module", params=["gemma3", "llama"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    make: Callable[[], Any] = getattr(tiny_models, request.param)
    return tiny_models.save(make(), tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def engine(folder: Path) -> HFEngine:
    spec = EngineSpec(model=str(folder), device="cpu", dtype="float32")
    return HFEngine.open(spec, batch_size=4)


def reference(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", local_files_only=True
    )


def decode(ids: Sequence[int]) -> str:
    text: str = tiny_models.tokenizer().decode(list(ids), skip_special_tokens=False)
    return text


def prompt_ids(request: GenRequest | ScoreRequest) -> list[int]:
    """The documented rule: prefix with BOS, then suffix, each tokenised on its own."""
    made = tiny_models.tokenizer()
    suffix = made.encode(request.suffix, add_special_tokens=False).ids
    return [*made.encode(request.prefix).ids, *suffix]


def requests(sampling: Sampling, prefix: str = PREFIX) -> list[GenRequest]:
    return [GenRequest(prefix, suffix, sampling, seed) for seed, suffix in enumerate(SUFFIXES)]


@pytest.mark.parametrize("penalty", [1.0, 1.2])
@pytest.mark.parametrize("prefix", ["", PREFIX], ids=["no prefix", "prefix"])
def test_greedy_tokens_are_those_of_generate(
    folder: Path, engine: HFEngine, penalty: float, prefix: str
) -> None:
    asked = requests(replace(GREEDY, repetition_penalty=penalty), prefix)
    model = reference(folder)
    for request, completion in zip(asked, engine.generate(asked), strict=True):
        ids = prompt_ids(request)
        made = model.generate(
            torch.tensor([ids]), max_new_tokens=24, do_sample=False, repetition_penalty=penalty
        )[0, len(ids) :].tolist()
        assert list(completion.token_ids) == [token for token in made if token != 1]
        assert completion.finish_reason == ("eos" if made[-1] == 1 else "length")
        assert completion.text + completion.trimmed == decode(completion.token_ids)


def test_a_row_does_not_depend_on_its_neighbours(engine: HFEngine) -> None:
    asked = [*requests(WARM), *requests(replace(WARM, temperature=1.4, top_k=7), "other ")]
    together = engine.generate(asked)
    assert engine.generate(asked[::-1]) == together[::-1]
    assert [engine.generate([request])[0] for request in asked] == together
    assert len({completion.token_ids for completion in together}) > 5


def test_many_rows_that_begin_alike_are_as_each_alone(engine: HFEngine) -> None:
    """From eight rows on, the beginning that their suffixes share is computed once."""
    asked = [GenRequest(PREFIX, f"Topic: {i}", WARM, i) for i in range(10)]
    assert engine.generate(asked) == [engine.generate([request])[0] for request in asked]


def test_two_engines_draw_the_same_tokens(folder: Path, engine: HFEngine) -> None:
    spec = EngineSpec(model=str(folder), device="cpu", dtype="float32")
    again = HFEngine.open(spec, batch_size=4)
    assert again.generate(requests(WARM)) == engine.generate(requests(WARM))
    again.close()
    with pytest.raises(EngineError, match="closed"):
        again.generate(requests(WARM))


def test_rows_of_one_batch_have_their_own_knobs(engine: HFEngine) -> None:
    mixed = [
        GenRequest(PREFIX, "Instruction: x", setting, 5)
        for setting in (GREEDY, WARM, replace(WARM, max_new_tokens=3), replace(WARM, top_k=1))
    ]
    greedy, warm, short, only = engine.generate(mixed)
    assert short.token_ids == warm.token_ids[:3] and short.finish_reason == "length"
    assert only.token_ids != warm.token_ids and greedy.token_ids != warm.token_ids


@pytest.mark.parametrize("width", [1, 2, 5, 14])
def test_stop_strings_match_decoded_text_across_tokens(engine: HFEngine, width: int) -> None:
    """Every token of these models is one byte, so any longer string crosses token borders."""
    for request, free in zip(requests(WARM), engine.generate(requests(WARM)), strict=True):
        stop = free.text[4 : 4 + width]
        cut = replace(request, sampling=replace(WARM, stop=("\0never", stop)))
        ended = engine.generate([cut])[0]
        assert (ended.finish_reason, ended.stop) == ("stop", stop)
        assert ended.text == free.text[: free.text.index(stop)]
        assert ended.token_ids == free.token_ids[: len(ended.token_ids)]
        assert stop in decode(ended.token_ids) and stop not in decode(ended.token_ids[:-1])


def test_nothing_is_drawn_after_a_stop_string(
    engine: HFEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = requests(WARM)[0]
    stop = engine.generate([request])[0].text[2:12]
    steps: list[int] = []
    draw = Sampler.draw

    def counted(self: Sampler, logits: torch.Tensor, step: int) -> torch.Tensor:
        steps.append(step)
        return draw(self, logits, step)

    monkeypatch.setattr(Sampler, "draw", counted)
    ended = engine.generate([replace(request, sampling=replace(WARM, stop=(stop,)))])[0]
    assert len(steps) == len(ended.token_ids) < 24


def test_an_end_token_ends_a_row_and_is_not_kept(folder: Path, engine: HFEngine) -> None:
    free = engine.generate(requests(GREEDY))[0]
    token = free.token_ids[5]
    loaded = replace(engine._open(), eos=frozenset({token}))
    ended = HFEngine(loaded, name="tiny", digest="").generate(requests(GREEDY))[0]
    assert ended.finish_reason == "eos"
    assert ended.token_ids == free.token_ids[: free.token_ids.index(token)]


def test_scores_are_those_of_a_plain_forward_pass(folder: Path, engine: HFEngine) -> None:
    asked = [
        ScoreRequest(prefix, suffix, continuations)
        for prefix in ("", PREFIX)
        for suffix in SUFFIXES
        for continuations in ((" ", "B"), ("the whole sentence", "x", "été"))
    ]
    model = reference(folder)
    encode = tiny_models.tokenizer().encode
    for request, scores in zip(asked, engine.score(asked), strict=True):
        for text, score in zip(request.continuations, scores, strict=True):
            tail = encode(text, add_special_tokens=False).ids
            ids = prompt_ids(request) + tail
            with torch.inference_mode():
                logs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            places = range(len(ids) - len(tail) - 1, len(ids) - 1)
            expected = sum(logs[place, ids[place + 1]].item() for place in places)
            assert score.tokens == len(tail)
            assert score.logprob == pytest.approx(expected, abs=1e-3)


def test_a_prompt_may_stand_wholly_in_the_prefix(engine: HFEngine) -> None:
    whole, split = ("abcdef", ""), ("abc", "def")
    one, other = engine.generate([GenRequest(*text, GREEDY, 1) for text in (whole, split)])
    assert one == other, "a token is a byte here, so both prompts have the same tokens"
    scored = engine.score([ScoreRequest(*text, ("x",)) for text in (whole, split)])
    assert scored[0][0].logprob == pytest.approx(scored[1][0].logprob, abs=1e-5)


def test_a_row_longer_than_the_context_is_refused_before_anything_is_computed(
    engine: HFEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.engine.local.hf.decode", lambda *_: pytest.fail("computed"))
    long = GenRequest("", "x" * 250, GREEDY, 1)
    with pytest.raises(EngineError, match=r"row 1: a prompt of 250 tokens and 24 more.*255"):
        engine.generate([GenRequest("", "x", GREEDY, 1), long])


def test_information_names_the_model_and_its_tokens(folder: Path, engine: HFEngine) -> None:
    info = engine.info
    assert (info.kind, info.model, info.context, info.bos) == ("hf", folder.name, 256, "<bos>")
    assert info.special_tokens == ("<bos>", "<eos>", "<pad>")
    assert engine.count_tokens(["abc", "é", ""]) == [3, 2, 0]


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    model = tiny_models.llama()
    with torch.no_grad():
        model.lm_head.weight[9] = float("nan")
    spec = EngineSpec(model=str(tiny_models.save(model, tmp_path / "nan")), dtype="float32")
    with pytest.raises(EngineError, match="not numbers"):
        HFEngine.open(spec)


def test_an_architecture_without_cover_is_refused(tmp_path: Path) -> None:
    from transformers import BloomConfig, BloomForCausalLM

    config = BloomConfig(vocab_size=259, hidden_size=32, n_layer=2, n_head=2)
    folder = tiny_models.save(BloomForCausalLM(config), tmp_path / "bloom")
    with pytest.raises(EngineError, match="cannot run in process.*kind: server"):
        HFEngine.open(EngineSpec(model=str(folder), device="cpu", dtype="float32"))


def counted(engine: HFEngine, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Rows and tokens a row of every forward pass from now on."""
    seen: list[tuple[int, int]] = []
    loaded = engine._open()

    def run(ids: torch.Tensor, cache: Any, *, keep: int = 1) -> torch.Tensor:
        seen.append((ids.shape[0], ids.shape[1]))
        return loaded.run(ids, cache, keep=keep)

    monkeypatch.setattr(engine, "_loaded", replace(loaded, run=run))
    return seen


def test_scores_keep_to_the_batch_size(engine: HFEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = counted(engine, monkeypatch)
    asked = [ScoreRequest("p", f"{i}", (" ", "B")) for i in range(40)]
    scored = engine.score(asked)
    assert max(rows for rows, _ in seen) == 4
    engine.resize(2)
    seen.clear()
    again = engine.score(asked)
    engine.resize(4)
    assert max(rows for rows, _ in seen) == 2
    flat = [[score.logprob for scores in found for score in scores] for found in (scored, again)]
    assert flat[0] == pytest.approx(flat[1], abs=1e-4)


def test_a_long_text_is_scored_in_parts(engine: HFEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [ScoreRequest("p", "x" * 120, ("a long continuation " * 3, "short"))]
    ((whole, short),) = engine.score(asked)
    monkeypatch.setattr("pipeline.engine.local.scoring.TOKENS", 50)
    seen = counted(engine, monkeypatch)
    ((parts, again),) = engine.score(asked)
    assert max(tokens for _, tokens in seen) <= 50 and len(seen) > 15
    assert (parts.tokens, again.tokens) == (whole.tokens, short.tokens) == (60, 5)
    assert parts.logprob == pytest.approx(whole.logprob, abs=1e-3)
    assert again.logprob == pytest.approx(short.logprob, abs=1e-3)


def test_closing_releases_the_weights(folder: Path) -> None:
    spec = EngineSpec(model=str(folder), device="cpu", dtype="float32")
    opened = HFEngine.open(spec, batch_size=4)
    opened.generate(requests(GREEDY))
    weights = weakref.ref(opened._open().run)
    opened.close()
    gc.collect()
    assert weights() is None
