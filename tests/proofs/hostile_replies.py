"""Replies that no reviewer should give: seeded, without end, each with the worst it may do.

A reply is the body of an HTTP answer with status 200. Kinds are functions of a random generator,
so that any reply can be made again from its number. The one idea: it is not enough that nothing
breaks; each kind says how much of it may pass, and most of them nothing.
"""

import json
import math
import random
from collections.abc import Callable, Iterator
from typing import Any, Final, Literal

from pipeline.params import TUNABLE, GenParams

Worst = Literal["no review", "no change", "some changes", "within bounds"]
"""The most that may come of a reply: to the default setting, or within bounds to any setting."""
Kind = Callable[[random.Random], str]
NUMBERS: Final = tuple(name for name, t in TUNABLE.items() if t.kind in {"float", "int"})
_UNKNOWN: Final = (
    "model", "engine.model", "engine.base_url", "reviewer.base_url", "reviewer.model",
    "budget.limit_usd", "limit_usd", "prices.reviewers", "thresholds.runaway", "thresholds.alpha",
    "critic.max_false_accept", "critic.instruction", "critic.pair", "certificates.minimum",
    "pilot.max_rounds", "pilot.seed", "scale.examples", "instruction.stop", "response.top_k",
    "response", "", ".", "__class__", "response.__class__", "response.stop.0", "response..stop",
    "../../budget.yaml", "/etc/passwd", "response.temperature ", " topics", "TOPICS", "detectors",
)  # fmt: skip
_ALIKE: Final = {"o": "\u043e", "e": "\u0435", "a": "\u0430", "p": "\u0440", "c": "\u0441"}
_HIDDEN: Final = ("\u200b", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u202e", "\U000e0061")
_NO_NUMBERS: Final = ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 5000, "1" + "0" * 40)
_WRONG: Final[tuple[Any, ...]] = (
    None, True, False, "1", "0.5", "", [], {}, [1], [[]], {"value": 1}, "nan", 10**31, -(10**31),
    -0.0, 5e-324, 1.7e308, "\u0661", [None], ["a", 1], "x" * 10_000, [["\nInstruction"]],
)  # fmt: skip
_BAD_STOPS: Final[tuple[Any, ...]] = (
    [f"\n#{n}" for n in range(9)], ["#" * 33], [""], ["a"], [" "], ["\n"], ["#", "##"], [".\n"],
    ["\n\x00#"], ["\x1b[31m#"], ["\u202e###"], ["###\u200b"], ["\ufeff###"], ["###\u2028"], ["1."],
    ["the"], ["and so on"], ["```"], ["- "], ["\n###", "\n###"], "\n###", {"0": "\n###"}, [["\n#"]],
    ["\n###", None], ["\n###", 3], [True], ["\ue000\u0007#"], ["#\t#" * 4], [chr(0x85) + "##"],
)  # fmt: skip


def good(rng: random.Random | None = None) -> dict[str, Any]:
    """A review that nobody could object to."""
    value = "hints" if rng is None or rng.random() < 0.5 else "off"
    return {
        "diagnosis": "responses run on",
        "changes": [
            {"parameter": "response.stop", "value": ["\nInstruction"], "reason": "ends them"},
            {"parameter": "topics", "value": value, "reason": "variety"},
        ],
        "predictions": [{"metric": "runaway", "low": 0, "high": 0.03, "probability": 0.8}],
        "distrusted_metrics": [],
        "confidence": 0.7,
        "stop": False,
    }


def change(parameter: str, value: Any) -> dict[str, Any]:
    """The good review with one change only."""
    return good() | {"changes": [{"parameter": parameter, "value": value, "reason": "why"}]}


def body(content: Any, **choice: Any) -> str:
    """A chat completion that says ``content``."""
    message = {"role": "assistant", "content": content, **choice.pop("message", {})}
    tree = {"choices": [{"message": message, "finish_reason": "stop", **choice}]}
    return json.dumps(tree | {"usage": {"prompt_tokens": 9, "completion_tokens": 9}})


def said(review: Any) -> str:
    """A chat completion that says a review."""
    return body(json.dumps(review))


def places(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value within ``tree``."""
    yield at
    for key, inner in tree.items() if isinstance(tree, dict) else enumerate(tree):
        if isinstance(inner, dict | list):
            yield from places(inner, (*at, key))
        else:
            yield (*at, key)


def put(tree: Any, at: tuple[Any, ...], value: Any) -> Any:
    """``tree`` with ``value`` in one place."""
    if not at:
        return value
    node = tree
    for key in at[:-1]:
        node = node[key]
    node[at[-1]] = value
    return tree


def _raw(rng: random.Random, literals: tuple[str, ...]) -> str:
    """A review whose JSON holds one of ``literals``, anywhere but inside a string."""
    tree = good(rng)
    at = rng.choice([at for at in places(tree) if at])
    return json.dumps(put(tree, at, "@@")).replace('"@@"', rng.choice(literals))


def _no_number(rng: random.Random) -> str:
    return body(_raw(rng, _NO_NUMBERS))


def _no_number_outside(rng: random.Random) -> str:
    """In the body around it, where only usage and a few fields are looked at."""
    text = said(good(rng))
    return text.replace('"completion_tokens": 9', f'"completion_tokens": {rng.choice(_NO_NUMBERS)}')


def _wrong_type(rng: random.Random) -> str:
    tree = good(rng)
    at = rng.choice([at for at in places(tree) if "value" not in at])
    now: Any = tree
    for key in at:
        now = now[key]
    values = [v for v in _WRONG if type(v) is not type(now) and not _is_number_for(now, v)]
    return said(put(tree, at, rng.choice(values)))


def _is_number_for(now: Any, value: Any) -> bool:
    numbers = (int, float)
    return all(isinstance(x, numbers) and not isinstance(x, bool) for x in (now, value))


def _wrong_value(rng: random.Random) -> str:
    name = rng.choice(list(TUNABLE))
    return said(change(name, rng.choice(_WRONG)))


def _unknown_name(rng: random.Random) -> str:
    return said(change(rng.choice(_UNKNOWN), rng.choice([0.5, 1, "gpt-9", ["\n###"], 10**6])))


def _alike(rng: random.Random) -> str:
    """Names that look like a parameter's and are not."""
    name = rng.choice(list(TUNABLE))
    if rng.random() < 0.5:
        spots = [i for i, char in enumerate(name) if char in _ALIKE]
        i = rng.choice(spots)
        name = name[:i] + _ALIKE[name[i]] + name[i + 1 :]
    else:
        i = rng.randint(0, len(name))
        name = name[:i] + rng.choice(_HIDDEN) + name[i:]
    return said(change(name, rng.choice([0.5, 40, ["\n###"], "rotate"])))


def _unknown_key(rng: random.Random) -> str:
    tree = good(rng)
    where = rng.choice([tree, tree["changes"][0], tree["predictions"][0]])
    where[rng.choice(["model", "base_url", "Confidence", "stop ", "", "limit_usd"])] = 1
    return said(tree)


def _missing_key(rng: random.Random) -> str:
    tree = good(rng)
    where = rng.choice([tree, tree["changes"][0], tree["predictions"][0]])
    needed = [key for key in where if key not in {"distrusted_metrics", "stop"}]
    del where[rng.choice(needed)]
    return said(tree)


def _twice(rng: random.Random) -> str:
    """One key twice, in the review or in the body, sometimes hidden by an escape."""
    key = rng.choice(["confidence", "changes", "parameter", "value", "probability"])
    again = key if rng.random() < 0.5 else f"\\u{ord(key[0]):04x}{key[1:]}"
    text = json.dumps(good(rng)).replace(f'"{key}": ', f'"{again}": 0.5, "{key}": ', 1)
    if rng.random() < 0.2:
        return said(good(rng)).replace('"choices": ', '"choices": [], "choices": ', 1)
    return body(text)


def _deep(rng: random.Random) -> str:
    depth = rng.choice([17, 100, 1_000, 100_000])
    opening = rng.choice(["[", '{"a":', '[{"a":'])
    deep = opening * depth
    if rng.random() < 0.5:
        deep += "1" + "".join({"[": "]", '{"a":': "}", '[{"a":': "}]"}[opening] * depth)
    within = json.dumps(put(good(), ("changes", 0, "value"), "@@")).replace('"@@"', deep)
    return rng.choice([deep, body(deep), body(within)])


def _cut(rng: random.Random) -> str:
    """Cut at any byte, by the model or on the way."""
    text = json.dumps(good(rng))
    if rng.random() < 0.5:
        return body(text[: rng.randrange(len(text))])
    whole = body(text)
    return whole[: rng.randrange(len(whole))]


def _stopped(rng: random.Random) -> str:
    """Not the model's whole answer, by the server's own word."""
    text = json.dumps(good(rng))
    return rng.choice(
        [
            body(text, finish_reason="length"),
            body(text, finish_reason="content_filter"),
            body(text, message={"refusal": "I cannot help with that."}),
            body(None, message={"refusal": text}),
            body(None, message={"reasoning_content": text}),
            body("", message={"tool_calls": [{"function": {"arguments": text}}]}),
        ]
    )


def _wrapped(rng: random.Random) -> str:
    text = json.dumps(good(rng))
    return body(
        rng.choice(
            [
                f"<think>{text}", f"<think>a</think>{text}</think>x", f"{text}<think>b</think>",
                f"Here it is: {text}", f"{text} I hope that helps!", f"{text}{text}", f"[{text}]",
                json.dumps(text), f"```json\n{text}", f"```\n{text}\n```\n```\n{text}\n```",
                f"```\n```json\n{text}\n```\n```", f"\ufeff{text}", f"\u200b{text}", f"\x00{text}",
                f"<|channel|>analysis<|message|>{text}", f"data: {text}", f"{text};", "`" * 60_000,
                "<think>" * 5_000, "```\n" * 5_000, " " * 200_000, f"/* */{text}", f"{text},",
            ]
        )
    )  # fmt: skip


def _thoughts(rng: random.Random) -> str:
    """A good review after thoughts, which is taken."""
    text = json.dumps(good(rng))
    thought = rng.choice(["", "hm {", "<think>in</think>", '{"changes": []}', "x" * 20_000])
    return body(rng.choice([f"<think>{thought}</think>{text}", f"{thought} </think>\n{text}"]))


def _half_characters(rng: random.Random) -> str:
    tree = good(rng)
    at = rng.choice([at for at in places(tree) if at and isinstance(at[-1], str)])
    half = f"\\u{rng.randint(0xD800, 0xDFFF):04x}"
    text = json.dumps(put(tree, at, "@@"))
    return body(text.replace("@@", f"a{half}b"))


def _controls(rng: random.Random) -> str:
    """Control characters as they are, which JSON forbids inside of strings."""
    raw = json.dumps(good(rng)).replace("responses", f"resp{chr(rng.randrange(32))}onses")
    return body(raw)


def _huge(rng: random.Random) -> str:
    size = rng.choice([16_001, 70_000, 900_000])
    many = [{"parameter": "topics", "value": "hints", "reason": "r"}] * 33
    return said(rng.choice([good() | {"diagnosis": "x" * size}, good() | {"changes": many}]))


def _many_keys(rng: random.Random) -> str:
    keys = ",".join(f'"k{i}":{i}' for i in range(rng.choice([1_000, 20_000])))
    return rng.choice([f'{{{keys},"k7":1}}', body(f'{{{keys},"k9":1}}')])


def _not_ours(rng: random.Random) -> str:
    """Bodies that are no chat completion."""
    return rng.choice(
        [
            "", " ", "null", "[]", "{}", "0", '"x"', "<html>502</html>", "data: [DONE]", "\ufeff{}",
            '{"error": {"message": "overloaded"}}', '{"choices": []}', '{"choices": {}}',
            '{"choices": [{}]}', '{"choices": [{"message": null}]}', "undefined", "{'a': 1}",
            '{"choices": [{"message": {"content": 1}}]}', "\x00" * 50, "\ufffd" * 50, "]" * 99,
            '{"choices": [{"message": {"content": [1]}}]}', '{"choices": [[]]}', "nul", "-", "1e",
            f'{{"choices": [{{"message": {{"content": "{"x" * 999_000}"}}}}]}}',
        ]
    )  # fmt: skip


def _out_of_range(rng: random.Random) -> str:
    """By one unit in the last place, or by far."""
    tunable = TUNABLE[rng.choice(NUMBERS)]
    assert tunable.low is not None and tunable.high is not None
    far = rng.choice([1.0, 10.0, 1e9, 1e300])
    if tunable.kind == "int":
        return said(change(tunable.name, rng.choice([tunable.low - 1, tunable.high + 1]).__int__()))
    ends = [math.nextafter(tunable.low, -math.inf), math.nextafter(tunable.high, math.inf)]
    return said(change(tunable.name, rng.choice([*ends, tunable.low - far, tunable.high + far])))


def _too_far(rng: random.Random) -> str:
    """Within the range, but a larger step from the default setting than a round allows."""
    base, steps = GenParams(), []
    for name in NUMBERS:
        tunable, now = TUNABLE[name], base.get(name)
        assert tunable.low is not None and tunable.high is not None
        if not isinstance(now, int | float):
            continue
        if tunable.factor:
            steps += [(name, int(now * tunable.factor) + 1), (name, int(now / tunable.factor) - 1)]
        if tunable.step:
            # Beyond a billionth, which decimal fractions need.
            steps += [(name, now + s * (tunable.step + 2e-9)) for s in (1, -1)]
            steps += [(name, now + s * tunable.step * rng.uniform(1.01, 9)) for s in (1, -1)]
    steps = [(n, int(v) if TUNABLE[n].kind == "int" else v) for n, v in steps]
    inside = [(name, value) for name, value in steps if _is_far(base, name, value)]
    return said(change(*rng.choice(inside)))


def _is_far(base: GenParams, name: str, value: float) -> bool:
    """Whether ``value`` is in range, but out of reach."""
    tunable, now = TUNABLE[name], base.get(name)
    assert isinstance(now, int | float) and tunable.low is not None and tunable.high is not None
    if not tunable.low <= value <= tunable.high:
        return False
    if tunable.factor:
        return not now / tunable.factor <= value <= now * tunable.factor
    assert tunable.step is not None
    return abs(value - now) > tunable.step + 1e-9


def _bad_stops(rng: random.Random) -> str:
    return said(change("response.stop", rng.choice(_BAD_STOPS)))


def _margins(rng: random.Random) -> str:
    """Margins that no control certifies; only where there is a floor may one move at all."""
    name = rng.choice(["critic.instruction_margin", "critic.pair_margin"])
    return said(
        change(name, rng.choice([-20.0, -0.0, 0.5, 20, *(rng.uniform(-3, 3) for _ in range(9))]))
    )


def _contradicting(rng: random.Random) -> str:
    name = rng.choice(NUMBERS)
    tree = change(name, 0.5)
    tree["changes"] *= rng.randint(2, 9)
    return said(tree)


def _many_changes(rng: random.Random) -> str:
    """More than a round allows, all of them plausible."""
    base, changes = GenParams(), []
    for name in rng.sample(NUMBERS, 8):
        tunable, now = TUNABLE[name], base.get(name) or 0.0
        assert isinstance(now, int | float)
        value = now + rng.choice([-1, 1]) * (tunable.step or now * 0.5) * rng.random()
        value = round(value) if tunable.kind == "int" else value
        changes.append({"parameter": name, "value": value, "reason": "why"})
    return said(good() | {"changes": changes})


def _anything(rng: random.Random) -> str:
    """Bytes of a good reply, some of them changed."""
    chars = list(rng.choice([said(good(rng)), body(json.dumps(good(rng), indent=1))]))
    for _ in range(rng.choice([1, 1, 2, 5, 40])):
        spot = rng.randrange(len(chars))
        chars[spot] = rng.choice(["", '"', "\\", "{", "}", "[", "]", ",", ":", "0", "9", "-", "e"])
    return "".join(chars)


def _anywhere(rng: random.Random) -> str:
    """Any value in any place."""
    tree = good(rng)
    for _ in range(rng.choice([1, 1, 2])):
        at = rng.choice([at for at in places(tree) if at])
        tree = put(tree, at, rng.choice([*_WRONG, good(), "response.stop", 0.5, ["\n###"]]))
        if not all(isinstance(tree[k], dict | list) for k in ("changes", "predictions")):
            break
    return said(tree)


KINDS: Final[dict[str, tuple[Kind, Worst]]] = {
    "not a number": (_no_number, "no review"),
    "not a number around it": (_no_number_outside, "no review"),
    "a wrong type": (_wrong_type, "no review"),
    "a wrong value": (_wrong_value, "no change"),
    "an unknown name": (_unknown_name, "no change"),
    "a name that looks alike": (_alike, "no change"),
    "an unknown key": (_unknown_key, "no review"),
    "a missing key": (_missing_key, "no review"),
    "a key twice": (_twice, "no review"),
    "nested": (_deep, "no review"),
    "cut": (_cut, "no review"),
    "refused or stopped": (_stopped, "no review"),
    "wrapped": (_wrapped, "no review"),
    "after thoughts": (_thoughts, "within bounds"),
    "half a character": (_half_characters, "no review"),
    "control characters": (_controls, "no review"),
    "huge": (_huge, "no review"),
    "many keys": (_many_keys, "no review"),
    "no completion": (_not_ours, "no review"),
    "out of range": (_out_of_range, "no change"),
    "too large a step": (_too_far, "no change"),
    "stop strings": (_bad_stops, "no change"),
    "margins": (_margins, "within bounds"),
    "contradicting": (_contradicting, "no change"),
    "too many": (_many_changes, "some changes"),
    "any bytes": (_anything, "within bounds"),
    "anything anywhere": (_anywhere, "within bounds"),
}
"""Every kind of reply, with the most that may come of it."""


def wrong_values() -> Iterator[str]:
    """Every value that is no value, for every parameter."""
    for name in TUNABLE:
        for value in _WRONG:
            yield said(change(name, value))


def replies(count: int, *, seed: int) -> Iterator[tuple[str, Worst, str]]:
    """``count`` replies, every kind in turn: its name, the worst, and the body."""
    names = list(KINDS)
    for number in range(count):
        name = names[number % len(names)]
        make, worst = KINDS[name]
        yield name, worst, make(random.Random(f"{seed}/{number}"))
