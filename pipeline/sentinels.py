"""Contamination sentinels: what is generated must be a base model's own text.

Two questions, asked before rows are bought: does any prompt hold a chat template's markers or a
special token, and does the model behave like one that was tuned to answer? Stopping the run is left
to the caller. The one idea: a model is recognised by what it does, since base models ship with chat
templates too, and tuned ones without.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from pipeline.engine.base import Engine
from pipeline.types import EngineInfo, GenRequest, Sampling

MARKERS: Final = re.compile(
    r"<[|｜][^\s<>|｜]{1,40}[|｜]?>|<[^\s<>|｜]{1,40}[|｜]>"
    r"|</?(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>|\[/?(?:SYSTEM_PROMPT|AVAILABLE_TOOLS)\]"
)
"""Markers of the chat templates in use, whichever of them a tokenizer knows."""
CHATS: Final = (
    "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n",
    "<start_of_turn>user\n{}<end_of_turn>\n<start_of_turn>model\n",
    "<|turn>user\n{}<turn|>\n<|turn>model\n",
    "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "<|user|>\n{}<|end|>\n<|assistant|>\n",
    "[INST]{}[/INST]",
)
"""A question in the markers of one family of tuned models each."""
QUESTIONS: Final = tuple(
    f"{question} Answer in one word."
    for question in (
        "What is the capital of France?",
        "How many days are there in a week?",
        "What colour is a ripe banana?",
        "Who wrote Romeo and Juliet?",
        "What do bees make?",
        "Which planet is closest to the sun?",
        "What is the opposite of hot?",
        "What is 2 plus 3?",
        "What is the largest ocean on Earth?",
        "Which animal says moo?",
        "In which country is the city of Tokyo?",
        "What language is spoken in Brazil?",
        "What gas do people need to breathe?",
        "What is frozen water called?",
        "How many legs does a spider have?",
        "Who painted the Mona Lisa?",
    )
)
"""What a person would ask an assistant, without a scaffold that shows how to answer."""
MAX_ENDED: Final = 0.5
"""Share of questions that a base model may end its text after."""
_PROBE: Final = Sampling(temperature=0.0, max_new_tokens=24)


@dataclass(frozen=True, slots=True)
class SentinelResult:
    """What one sentinel found."""

    name: str
    """chat_markers, special_tokens or instruction_tuned."""
    passed: bool
    """Nothing speaks against a base model's own text."""
    found: str
    """What was found, in one phrase, whether it passed or not."""


def check_prompts(prompts: Sequence[str], info: EngineInfo) -> list[SentinelResult]:
    """Look for chat markers and special tokens in prompts.

    A tokenizer turns the text of a special token into the token, so that no special token's text
    in a prompt means none among its ids, but for the BOS token that the engine puts first.
    """
    return [
        _result("chat_markers", prompts, {m for text in prompts for m in MARKERS.findall(text)}),
        _result("special_tokens", prompts, _special_tokens(prompts, info)),
    ]


def check_behaviour(engine: Engine) -> SentinelResult:
    """Ask questions; a model that ends its text after a short answer was tuned to answer.

    They are asked bare, and in the chat markers of every family whose markers are single tokens of
    this model. A base model writes on.

    Raises:
        EngineError: if the engine fails.
    """
    forms = ("{}", *_chats(engine))
    prompts = [form.format(question) for form in forms for question in QUESTIONS]
    rows = engine.generate([GenRequest("", prompt, _PROBE, seed=0) for prompt in prompts])
    n = len(QUESTIONS)
    ended = [
        sum(row.finish_reason == "eos" for row in rows[start : start + n])
        for start in range(0, len(rows), n)
    ]
    most = max(ended)
    how = "bare" if most == ended[0] else f"as {forms[ended.index(most)]!r}"
    found = (
        f"the text ended within {_PROBE.max_new_tokens} tokens after {most} of {n} questions "
        f"asked {how}"
    )
    return SentinelResult("instruction_tuned", most <= MAX_ENDED * n, found)


def _chats(engine: Engine) -> list[str]:
    return [chat for chat in CHATS if set(engine.count_tokens(MARKERS.findall(chat))) == {1}]


def _special_tokens(prompts: Sequence[str], info: EngineInfo) -> set[str]:
    """Special tokens in the prompts; the search is in one text, since tokenizers have thousands."""
    bos = info.bos or ""
    text = "\0".join(prompt.removeprefix(bos) for prompt in prompts)
    return {token for token in info.special_tokens if token.strip() and token in text}


def _result(name: str, prompts: Sequence[str], found: Iterable[str]) -> SentinelResult:
    names = sorted(found)
    if not names:
        return SentinelResult(name, True, f"none in {len(prompts)} prompts")
    shown = ", ".join(repr(n) for n in names[:5]) + (", ..." if len(names) > 5 else "")
    count = sum(any(n in text for n in names) for text in prompts)
    return SentinelResult(name, False, f"{shown} in {count} of {len(prompts)} prompts")
