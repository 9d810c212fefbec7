"""A deterministic stand-in for a small base model, for tests of everything around an engine.

It writes from seeds alone (row seed, prompt, sampling), so a row never depends on its neighbours,
and it fails as a small base model fails: without stop strings four answers in five run on into
another task, a low cap cuts, a low temperature repeats itself, a high one writes nonsense, and
without examples half of its answers miss the point. It looks at the end of a prompt only. Stop
strings follow the text rule of ``stops.py``. Its token is a word with the white space before it,
or a piece of six characters of a longer one.
"""

import hashlib
import random
import re
import time
import zlib
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from itertools import accumulate
from typing import Final

from pipeline.engine import scripted_text as script
from pipeline.engine.checks import check_requests, check_scores
from pipeline.engine.stops import settle
from pipeline.errors import EngineError
from pipeline.good_pairs import good_pairs
from pipeline.types import Completion, EngineInfo, GenRequest, Score, ScoreRequest

_TOKEN: Final = re.compile(r"\s*\S{1,6}|\s+$")
_RUN_ON: Final = (
    ("\n\nInstruction: {}\nResponse: {}", 0.86),
    ("\nQ: {}\nA: {}", 0.08),
    ("\n### {}\n{}", 0.04),
    ("\nUser: {}\nAssistant: {}", 0.02),
)
INFO: Final = EngineInfo(
    kind="scripted",
    model="scripted",
    digest=hashlib.sha256(b"scripted base model, 1").hexdigest(),
    device="cpu",
    dtype="none",
    tokenizer="scripted",
    context=32_768,
    special_tokens=("<bos>", "<eos>"),
    bos="<bos>",
)


class ScriptedEngine:
    """The scripted base model; 10,000 rows a second."""

    def __init__(self, *, fail_after: int | None = None, delay_seconds: float = 0.0) -> None:
        """A model that may be told to fail, or to be slow.

        Args:
            fail_after: rows that it completes or scores before it raises EngineError.
            delay_seconds: how long every call sleeps.
        """
        self._rows_left = fail_after
        self._delay_seconds = delay_seconds
        self._closed = False

    @property
    def info(self) -> EngineInfo:
        """What the engine is."""
        return INFO

    def generate(self, requests: Sequence[GenRequest]) -> list[Completion]:
        """One completion for each request, in order."""
        self._check_open()
        check_requests(requests, count=_count, context=INFO.context)
        self._work(len(requests))
        return [_complete(request) for request in requests]

    def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[Score, ...]]:
        """Log-probabilities that prefer sense to nonsense, and pairs that share words."""
        self._check_open()
        check_scores(requests, count=_count, context=INFO.context)
        self._work(len(requests))
        return [tuple(_score(r, c) for c in r.continuations) for r in requests]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text."""
        return [_count(text) for text in texts]

    def close(self) -> None:
        """Nothing is held, but nothing is generated or scored afterwards."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError("the engine is closed; open it again")

    def _work(self, rows: int) -> None:
        if self._delay_seconds:
            time.sleep(self._delay_seconds)
        if self._rows_left is not None:
            self._rows_left -= rows
            if self._rows_left < 0:
                raise EngineError("the scripted engine was told to fail here")


def _pieces(text: str) -> list[str]:
    return _TOKEN.findall(text)


@lru_cache(maxsize=256)
def _count(text: str) -> int:
    return len(_pieces(text))


def _chance(request: GenRequest) -> random.Random:
    """A row's own randomness; cap and stop strings do not move it, as in a real engine."""
    s = request.sampling
    knobs = (s.temperature, s.top_p, s.top_k, s.min_p, s.repetition_penalty)
    seed = request.seed if s.temperature else 0
    text = f"{seed}|{knobs}|{zlib.crc32(request.prefix.encode())}|{request.suffix}"
    return random.Random(hashlib.blake2b(text.encode(), digest_size=8).digest())


def _complete(request: GenRequest) -> Completion:
    sampling = request.sampling
    pieces: list[str] = []
    eos = False
    for part in _stream(request):
        if part is None:
            eos = True
            break
        pieces += _pieces(part)
        if len(pieces) >= sampling.max_new_tokens:
            break
    ends = [0, *accumulate(map(len, pieces))]
    text = "".join(pieces)
    end = settle(
        lambda k: text[: ends[k]],
        len(pieces),
        stops=sampling.stop,
        cap=sampling.max_new_tokens,
        eos=eos,
    )
    ids = tuple(zlib.crc32(piece.encode()) >> 12 for piece in pieces[: end.tokens])
    made = tuple(ends[1 : end.tokens + 1])
    return Completion(end.text, ids, end.finish_reason, end.stop, end.trimmed, made)


def _stream(request: GenRequest) -> Iterator[str | None]:
    """Text without end, in parts; None is the end token."""
    chance, prompt = _chance(request), request.suffix
    if prompt.endswith("Instruction:"):
        yield " " + _instruction(request, chance)
        yield "\nResponse: " + script.answer("garden", chance)
    elif prompt.endswith("Response:"):
        yield from _response(request, chance)
    else:
        yield f" {script.instruction(chance.randrange(script.POOL))}"
    while True:
        asked = script.instruction(chance.randrange(script.POOL))
        form = chance.choices([f for f, _ in _RUN_ON], [w for _, w in _RUN_ON])[0]
        yield form.format(asked, script.answer(asked, chance))


def _instruction(request: GenRequest, chance: random.Random) -> str:
    """Low temperatures draw from the head of the pool; each prompt has a head of its own."""
    heat = request.sampling.temperature * request.sampling.top_p
    if chance.random() < 0.08 + 0.6 * max(0.0, heat - 1.0):
        return script.statement(chance) if chance.random() < 0.7 else script.junk(chance, 6)
    reach = 4 + script.POOL * min(1.0, 0.35 * heat) ** 4
    rank = int(reach * chance.random() ** 2)
    offset = zlib.crc32((request.prefix + request.suffix).encode())
    return script.instruction((rank + offset) % script.POOL)


def _response(request: GenRequest, chance: random.Random) -> Iterator[str | None]:
    sampling = request.sampling
    asked = request.suffix.rpartition("Instruction:")[2].removesuffix("Response:").strip()
    heat, fate = sampling.temperature * sampling.top_p, chance.random()
    loops = 0.004 + max(0.0, 0.3 - sampling.temperature) * (1.6 - sampling.repetition_penalty)
    yield " "
    if fate < loops:
        yield script.answer(asked, chance) + " and so on" * 400
    elif fate < loops + 0.004:
        yield script.essay(asked, chance)
    elif fate < loops + 0.004 + max(0.0, heat - 0.9):
        yield script.junk(chance, 60)
    elif fate > 0.997:
        yield "\n"
    elif not request.prefix and fate < 0.5:
        yield script.answer("garden", chance)
    else:
        yield script.answer(asked, chance)
    if chance.random() < 0.15:
        yield None


def _noise(*texts: str) -> float:
    """A number in [-1, 1) that depends on the texts alone."""
    return zlib.crc32("\0".join(texts).encode()) / 2**31 - 1


def _score(request: ScoreRequest, continuation: str) -> Score:
    suffix, tokens = request.suffix, max(1, _count(continuation))
    if continuation.strip() in {"A", "B"}:
        good = "B" if "B means yes" in request.prefix else "A"
        sign = 1 if continuation.strip() == good else -1
        rare = 0.0 if continuation.startswith(" ") else 7.0
        return Score(-1.0 - rare + sign * _preference(suffix), 1)
    shared = script.stems(_asked(suffix)) & script.stems(continuation)
    nonsense = 2.0 * ("vor" in continuation or "xel" in continuation)
    about = 0.4 * bool(shared & _SUBJECTS)
    known = 0.6 * (_answers().get(_asked(suffix).strip()) == continuation.strip())
    mean = -3.0 - nonsense + min(1.2, 0.8 * len(shared)) + about + known
    return Score((mean + 0.05 * _noise(suffix, continuation)) * tokens, tokens)


_SUBJECTS: Final = frozenset(thing[:5] for thing in script.THINGS)
"""What its own instructions are about; a pair that shares one of these surely belongs together."""


@cache
def _answers() -> dict[str, str]:
    """What it has read, as real models have read the like: the shipped good pairs."""
    return {pair.instruction: pair.response for pair in good_pairs()}


def _asked(suffix: str) -> str:
    return suffix.rpartition("Instruction:")[2].partition("Response:")[0]


def _preference(suffix: str) -> float:
    """Half the log-odds of A over B: sense for a text, next to nothing for a pair."""
    text = suffix.rpartition("Text:")[2].removesuffix("Answer:").strip()
    if "Text:" not in suffix:
        return 0.1 + 0.2 * _noise(suffix)
    asks = text.startswith(_QUESTIONS) and text[-1:] in {"?", "."} and len(text.split()) > 3
    return (0.45 if asks else -0.45) + 0.1 * _noise(text)


_QUESTIONS: Final = tuple({phrase.split()[0] + " " for phrase in script.OPENINGS}) + (
    "Which ", "Can ", "Is ", "Are ", "Do ", "Does ", "Suggest ", "Create ", "Find ", "State ",
    "Calculate ", "Translate ", "Convert ", "Rewrite ", "Identify ", "Choose ", "Complete ",
)  # fmt: skip
