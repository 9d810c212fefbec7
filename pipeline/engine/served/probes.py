"""What a completions server does with each sampling knob, found by turning it.

A server's word is not taken: a few requests of at most eight tokens show whether a knob acts. At
temperature 2 the texts of two seeds must leave the greedy one, and top-k 1, top-p near 0 or min-p 1
must bring them back; a repetition penalty must move the first token after a repetitive prompt; a
stop string cut from the greedy text must end it there. What one prompt does not show is tried on
the next; what none shows counts as not honoured. A probe shows that a knob acts, not how exactly.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

from pipeline.errors import EngineError
from pipeline.types import Completion, GenRequest, Sampling

Outcome = Completion | EngineError
"""A completion, or why the answer was refused."""
Ask = Callable[[Sequence[GenRequest]], Sequence[Outcome]]
"""Sends probes side by side; what says nothing of knobs, such as a lost connection, it raises."""

PROMPTS: Final = (
    ("The weather today is", "one " * 11 + "one"),
    ("Once upon a time there was a", "yes yes yes yes yes yes yes yes yes"),
    ("My favourite thing about the city is that", "la la la la la la la la la la la"),
    ("In the morning she went to the", "1 1 1 1 1 1 1 1 1 1 1 1"),
)
"""Texts that go on in many ways, each with one that goes on by repeating itself."""
_GREEDY: Final = Sampling(temperature=0.0, max_new_tokens=8)
_HOT: Final = replace(_GREEDY, temperature=2.0)
_FIRST: Final = replace(_GREEDY, max_new_tokens=1)
_TIGHT: Final = {
    "top_p": replace(_HOT, top_p=1e-6),
    "top_k": replace(_HOT, top_k=1),
    "min_p": replace(_HOT, min_p=1.0),
}
_PLAN: Final[dict[str, tuple[Sampling, tuple[int, ...]]]] = {
    "greedy": (_GREEDY, (1, 2)),
    "cold": (replace(_GREEDY, temperature=0.01), (1,)),
    "hot": (_HOT, (1, 2)),
    **{name: (sampling, (1, 2)) for name, sampling in _TIGHT.items()},
    "plain": (_FIRST, (1,)),
    "penalised": (replace(_FIRST, repetition_penalty=2.0), (1,)),
}
"""How each kind of probe is drawn, and with which seeds."""
_NEEDS: Final[dict[str, tuple[str, ...]]] = {
    "greedy": (),
    "temperature": ("cold", "hot"),
    "seed": (),
    **{name: ("hot", name) for name in _TIGHT},
    "repetition_penalty": ("plain", "penalised"),
    "stop": (),
}
"""The probes, beside the greedy ones, that show a knob; those of seed and stop follow them."""
_Texts = Mapping[str, Sequence[str | EngineError]]
"""What each kind of probe gave, in the order of its seeds."""


@dataclass(frozen=True, slots=True)
class Abilities:
    """Which knobs a server honours: for each, None, or what was seen instead."""

    greedy: str | None = None
    """Temperature 0 repeats itself, whatever the seed."""
    temperature: str | None = None
    """A low one is greedy, a high one is not."""
    seed: str | None = None
    """One seed gives one text, another seed another."""
    top_p: str | None = None
    """Next to 0 it is greedy at any temperature."""
    top_k: str | None = None
    """At 1 it is greedy at any temperature."""
    min_p: str | None = None
    """At 1 it is greedy at any temperature."""
    repetition_penalty: str | None = None
    """It counts the tokens of the prompt."""
    stop: str | None = None
    """A stop string ends the text, is trimmed, and is named."""

    def problem(self, sampling: Sampling) -> str | None:
        """Which knob that ``sampling`` turns is not honoured, in words; None where all are."""
        for name, value in _turned(sampling):
            if seen := getattr(self, name):
                shown = "" if name == "seed" else f" ({value!r} was asked for)"
                return f"does not honour {name}{shown}: {seen}"
        return None

    def describe(self) -> str:
        """What is not honoured, in a line."""
        missing = [f"{name} ({seen})" for name, seen in asdict(self).items() if seen]
        return "does not honour " + "; ".join(missing) if missing else "honours every knob"


def probe(ask: Ask) -> Abilities:
    """Find out what the server behind ``ask`` honours.

    Raises:
        EngineError: if it does not even complete a text greedily, up to a number of tokens.
    """
    seen: dict[str, str | None] = dict.fromkeys(_NEEDS, "")
    for prompt, repetitive in PROMPTS:
        if not (unseen := [name for name, why in seen.items() if why is not None]):
            break
        texts = _draw(ask, prompt, repetitive, unseen)
        seen |= {name: _judge(ask, prompt, name, texts) for name in unseen}
    return Abilities(**seen)


def _turned(s: Sampling) -> Iterator[tuple[str, object]]:
    """Knobs that are not neutral; a greedy draw needs no seed and has nothing to cut."""
    if s.temperature == 0:
        yield "greedy", s.temperature
    else:
        yield "temperature", s.temperature
        yield "seed", None
        neutral = Sampling(s.temperature, s.max_new_tokens)
        for name in _TIGHT:
            if getattr(s, name) != getattr(neutral, name):
                yield name, getattr(s, name)
    if s.repetition_penalty != 1:
        yield "repetition_penalty", s.repetition_penalty
    if s.stop:
        yield "stop", list(s.stop)


def _draw(ask: Ask, prompt: str, repetitive: str, knobs: Sequence[str]) -> _Texts:
    """What the probes of ``knobs`` give, all sent at once."""
    kinds = list(dict.fromkeys(["greedy", *(kind for knob in knobs for kind in _NEEDS[knob])]))
    requests, places = [], []
    for kind in kinds:
        sampling, seeds = _PLAN[kind]
        text = repetitive if kind in _NEEDS["repetition_penalty"] else prompt
        requests += [GenRequest("", text, sampling, seed) for seed in seeds]
        places += [kind] * len(seeds)
    texts: dict[str, list[str | EngineError]] = {kind: [] for kind in kinds}
    for kind, found in zip(places, ask(requests), strict=True):
        texts[kind].append(found.text if isinstance(found, Completion) else found)
    return texts


def _judge(ask: Ask, prompt: str, knob: str, texts: _Texts) -> str | None:
    """What a prompt shows of a knob: None when it is honoured, else what was seen."""
    greedy, again = texts["greedy"]
    if isinstance(greedy, EngineError):
        raise greedy
    unsteady = None if greedy == again else "two texts at temperature 0 differ"
    if knob == "greedy":
        return unsteady
    drawn = [text for kind in _NEEDS[knob] for text in texts[kind]]
    if refused := next((text for text in drawn if isinstance(text, EngineError)), None):
        return str(refused)
    match knob:
        case "temperature":
            return _temperature(greedy, texts)
        case "seed":
            return _seed(ask, prompt)
        case _ if unsteady:
            return f"it cannot be told, since {unsteady}"
        case "repetition_penalty":
            same = texts["plain"] == texts["penalised"]
            return "at 2 the token after a repetitive prompt is the same" if same else None
        case "stop":
            return _stop(ask, prompt, greedy)
        case _:
            return _tight(knob, greedy, texts)


def _temperature(greedy: str, texts: _Texts) -> str | None:
    if texts["cold"][0] != greedy:
        return "the text at temperature 0.01 is not the greedy one"
    return "texts at temperature 2 are the greedy one" if greedy in texts["hot"] else None


def _seed(ask: Ask, prompt: str) -> str | None:
    """One request after another: beside others, sums may round otherwise and move a draw."""
    found = [ask([GenRequest("", prompt, _HOT, seed)])[0] for seed in (1, 1, 2, 2)]
    if refused := next((text for text in found if isinstance(text, EngineError)), None):
        return str(refused)
    first, second = found[::2]
    if found != [first, first, second, second]:
        return "one seed gave two texts at temperature 2"
    return None if first != second else "two seeds gave one text at temperature 2"


def _tight(knob: str, greedy: str, texts: _Texts) -> str | None:
    """A text is greedy because of a knob only where without it none is."""
    if greedy in texts["hot"]:
        return "it cannot be told, since texts at temperature 2 are the greedy one"
    if set(texts[knob]) != {greedy}:
        value = getattr(_TIGHT[knob], knob)
        return f"texts at temperature 2 with {knob} = {value:g} are not the greedy one"
    return None


def _stop(ask: Ask, prompt: str, greedy: str) -> str | None:
    """Cut three characters from the middle, across a border of words where there is one."""
    middle = len(greedy) // 2
    start = max(1, greedy.find(" ", middle) - 1) if " " in greedy[middle:] else max(1, middle)
    string = greedy[start : start + 3]
    end = greedy.find(string)
    if not string.strip() or end < 1:
        return f"it cannot be told, since the greedy text {greedy!r:.60} has no middle"
    (found,) = ask([GenRequest("", prompt, replace(_GREEDY, stop=(string,)), 1)])
    if isinstance(found, EngineError):
        return str(found)
    if (found.text, found.stop) != (greedy[:end], string):
        return f"{found.text!r:.60} came where {greedy!r:.60} was to end before {string!r}"
    return None
