"""local/hf.py against transformers and against itself: the same tokens in every way.

Greedy tokens are those of ``generate``, however long the prompts; drawn tokens are the same in
another process, in another order and in other batches.
"""

import json
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.engine.base import EngineSpec
from pipeline.engine.local.cache import RowCache
from pipeline.engine.local.hf import HFEngine
from pipeline.engine.local.models import prepare
from pipeline.types import Completion, GenRequest, Sampling
from prompts.library import fewshot_set
from tests import tiny_models

ROOT = Path(__file__).parents[1]
WARM = Sampling(0.8, 16, top_p=0.95, repetition_penalty=1.1)


def qwen2() -> Any:
    """Biases in its projections, and two layers."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(2)
    return tiny_models.sharpen(Qwen2ForCausalLM(Qwen2Config(**SMALL)))


def mistral() -> Any:
    """A window of 16 tokens in both of its layers."""
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(3)
    return tiny_models.sharpen(MistralForCausalLM(MistralConfig(**SMALL, sliding_window=16)))


SMALL: dict[str, Any] = {
    "vocab_size": tiny_models.BYTES + 3, "hidden_size": 32, "intermediate_size": 48,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 256, "eos_token_id": 1, "bos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
MAKERS: list[Callable[[], Any]] = [tiny_models.gemma3, tiny_models.llama, qwen2, mistral]


@pytest.fixture(scope="module", params=MAKERS, ids=lambda make: make.__name__)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that takes 8,192 tokens."""
    return widened(tiny_models.save(request.param(), tmp_path_factory.mktemp("tiny")))


def widened(folder: Path) -> Path:
    """The same model with room for 8,192 tokens; rotary positions have no other limit."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"max_position_embeddings": 8192}
    path.write_text(json.dumps(config), encoding="utf-8")
    return folder


def opened(folder: Path, **options: Any) -> HFEngine:
    spec = EngineSpec(model=str(folder), device="cpu", dtype="float32")
    return HFEngine.open(spec, **options)


def reference(folder: Path, attention: str = "eager") -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=attention, local_files_only=True
    )


def by_generate(model: Any, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[Any]:
    """Greedy tokens of prompts of one length, each with what ended it."""
    made = model.generate(
        torch.tensor(prompts),
        attention_mask=torch.ones(len(prompts), len(prompts[0]), dtype=torch.long),
        max_new_tokens=sampling.max_new_tokens,
        do_sample=False,
        repetition_penalty=sampling.repetition_penalty,
    )[:, len(prompts[0]) :].tolist()
    ends = model.generation_config.eos_token_id
    ends = {ends} if isinstance(ends, int) else set(ends)
    stops = [next((i for i, t in enumerate(row) if t in ends), len(row)) for row in made]
    return [
        (tuple(row[:stop]), "eos" if stop < len(row) else "length")
        for row, stop in zip(made, stops, strict=True)
    ]


def check_greedy(engine: HFEngine, model: Any, asked: Sequence[GenRequest]) -> None:
    """Every token of every row is the one of ``generate``; rows of one length share a call."""
    loaded = engine._open()
    begin = [] if loaded.bos is None else [loaded.bos]
    ids = [[*begin, *loaded.encode(r.prefix), *loaded.encode(r.suffix)] for r in asked]
    expected: dict[int, Any] = {}
    for length in sorted({len(row) for row in ids}):
        places = [place for place, row in enumerate(ids) if len(row) == length]
        found = by_generate(model, [ids[place] for place in places], asked[0].sampling)
        expected |= dict(zip(places, found, strict=True))
    rows = engine.generate(asked)
    assert len(rows) == len(asked) == len(expected)
    for place, row in enumerate(rows):
        assert (row.token_ids, row.finish_reason) == expected[place], f"row {place}"


@pytest.mark.parametrize("penalty", [1.0, 1.2])
def test_greedy_tokens_of_64_prompts_are_those_of_generate(folder: Path, penalty: float) -> None:
    """Shorter and longer than the windows, with and without a shared prefix."""
    chance = random.Random(7)
    lengths = [1, 2, 9, 15, 16, 17, 40, 90]
    texts = ["".join(chance.choices("abc def\nIR:.é", k=n)) for n in lengths for _ in range(8)]
    greedy = Sampling(0.0, 24, repetition_penalty=penalty)
    asked = [GenRequest("Shots: a\n" * (i % 2), text, greedy, i) for i, text in enumerate(texts)]
    chance.shuffle(asked)
    check_greedy(opened(folder, batch_size=24), reference(folder), asked)


def test_prompts_of_1_to_2000_tokens_share_a_batch(folder: Path) -> None:
    """The longest are read in parts, beside rows that are padding there."""
    text = "".join(random.Random(8).choices("abc def\nIR:.", k=2000))
    greedy = Sampling(0.0, 12, repetition_penalty=1.1)
    lengths = [1, 2000, 2, 1000, 16, 17, 1999, 300, 171, 513]
    asked = [GenRequest("", text[2000 - n :], greedy, n) for n in lengths]
    check_greedy(opened(folder, batch_size=16), reference(folder), asked)


def test_a_prefix_of_thousands_of_tokens_is_read_in_parts(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "".join(random.Random(9).choices("abc def\nIR:.", k=4000))
    greedy = Sampling(0.0, 8)
    asked = [GenRequest(text[:3500], text[4000 - n :], greedy, n) for n in (0, 500, 3)]
    engine = opened(folder)
    widths = widths_of(engine, monkeypatch)
    check_greedy(engine, reference(folder, "sdpa"), asked)
    assert max(rows * slots for rows, slots in widths) <= 2048


def widths_of(engine: HFEngine, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Rows and slots of every forward pass from now on."""
    seen: list[tuple[int, int]] = []
    loaded = engine._open()

    def counted(ids: torch.Tensor, cache: RowCache, *, keep: int = 1) -> torch.Tensor:
        seen.append((ids.shape[0], ids.shape[1]))
        return loaded.run(ids, cache, keep=keep)

    monkeypatch.setattr(engine, "_loaded", replace(loaded, run=counted))
    return seen


def test_500_requests_are_cut_into_batches(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(10)
    short = replace(WARM, max_new_tokens=4)
    asked = [
        GenRequest("Shots\n" * (i % 3), "ab c" * chance.randrange(1, 6), short, i)
        for i in range(500)
    ]
    engine = opened(folder, batch_size=32)
    widths = widths_of(engine, monkeypatch)
    rows = engine.generate(asked)
    assert max(rows for rows, _ in widths) == 32
    assert len(rows) == 500
    assert rows[::50] == [engine.generate([request])[0] for request in asked[::50]]


WRITE = """
import json, sys
from pipeline.engine.local.threads import wait_politely
wait_politely()
from pipeline.engine.base import EngineSpec
from pipeline.engine.local.hf import HFEngine
from tests.test_engine_parity import drawn_rows
engine = HFEngine.open(EngineSpec(model=sys.argv[1], device="cpu"))
rows = engine.generate(drawn_rows(int(sys.argv[2]), int(sys.argv[3])))
print(json.dumps([engine.info.dtype, [[r.text, *r.token_ids] for r in rows]]))
"""


def drawn_rows(count: int, shots: int = 12) -> list[GenRequest]:
    """A micro-batch as a run would ask for it: real instructions after real examples."""
    examples = fewshot_set("core")
    prefix = "".join(
        f"Instruction: {e.instruction}\nResponse: {e.response}\n\n" for e in examples[:shots]
    )
    topics = ("a river", "the number 7", "bread", "Kyoto", "a lie", "rust", "tides", "owls")
    suffixes = [f"Instruction: Tell me about {topics[i % 8]}." for i in range(count)]
    stop = ("\nInstruction:", "\n\n")
    setting = Sampling(0.8, 40, top_p=0.95, repetition_penalty=1.1, stop=stop)
    return [GenRequest(prefix, f"{s}\nResponse:", setting, i) for i, s in enumerate(suffixes)]


def check_processes(model: str, rows: int, shots: int) -> None:
    """Draw here and in a process of its own, in the number format that the processor has."""
    run = subprocess.run(
        [sys.executable, "-c", WRITE, model, str(rows), str(shots)],
        capture_output=True, text=True, check=True, cwd=ROOT, timeout=200,
    )  # fmt: skip
    dtype, there = json.loads(run.stdout)
    engine = HFEngine.open(EngineSpec(model=model, device="cpu"))
    here = [[row.text, *row.token_ids] for row in engine.generate(drawn_rows(rows, shots))]
    assert (dtype, there) == (engine.info.dtype, here)
    assert len({row[0] for row in here}) > rows / 2
    engine.close()


def test_two_processes_draw_the_same_tokens(tmp_path: Path) -> None:
    check_processes(str(widened(tiny_models.save(tiny_models.gemma3(), tmp_path / "tiny"))), 12, 1)


@pytest.mark.slow
@pytest.mark.model
def test_two_processes_draw_the_same_tokens_from_the_embedded_model() -> None:
    check_processes("embedded", 64, 12)


def real_requests(engine: HFEngine, sampling: Sampling) -> list[GenRequest]:
    """64 real prompts of 10 to 700 tokens, many of equal length within each of four blocks."""
    lines = (ROOT / "tests" / "real_responses.jsonl").read_text(encoding="utf-8").splitlines()
    real = [json.loads(line) for line in lines]
    shots = [f"Instruction: {r['instruction']}\nResponse: {r['clean']}\n\n" for r in real]
    asked = list(dict.fromkeys(r["instruction"] for r in real))[:64]
    asked.sort(key=lambda text: engine.count_tokens([text])[0])
    blocks = [(0, 0), (12, 0), (3, 9), (15, 6)]  # examples in the prefix, and in the suffix
    found = []
    for i, text in enumerate(asked):
        shared, own = blocks[i // 16]
        suffix = "".join(shots[40 : 40 + own]) + f"Instruction: {text}\nResponse:"
        found.append(GenRequest("".join(shots[:shared]), suffix, sampling, i))
    return found


@pytest.fixture(scope="module")
def embedded() -> tuple[HFEngine, Any]:
    """The embedded model in float32, and transformers' own."""
    spec = EngineSpec(device="cpu", dtype="float32")
    return HFEngine.open(spec), reference(prepare(spec).folder)


@pytest.mark.model
@pytest.mark.parametrize("penalty", [1.0, 1.2])
def test_the_embedded_model_writes_what_generate_writes(
    embedded: tuple[HFEngine, Any], penalty: float
) -> None:
    sampling = Sampling(0.0, 8, repetition_penalty=penalty)
    check_greedy(*embedded, real_requests(embedded[0], sampling)[::21])


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.parametrize("penalty", [1.0, 1.2])
def test_the_embedded_model_writes_what_generate_writes_on_64_prompts(
    embedded: tuple[HFEngine, Any], penalty: float
) -> None:
    asked = real_requests(embedded[0], Sampling(0.0, 12, repetition_penalty=penalty))
    lengths = embedded[0].count_tokens([r.prefix + r.suffix for r in asked])
    assert min(lengths) < 32 and sum(length > 512 for length in lengths) >= 16
    check_greedy(*embedded, asked)


@pytest.mark.slow
@pytest.mark.model
def test_the_order_of_rows_does_not_matter(embedded: tuple[HFEngine, Any]) -> None:
    """In float32 sums of other batches differ in their last bits, and a draw hardly ever."""
    engine, asked = embedded[0], drawn_rows(96)
    expected = engine.generate(asked)
    order = random.Random(11).sample(range(96), 96)
    shuffled: dict[int, Completion] = dict(
        zip(order, engine.generate([asked[i] for i in order]), strict=True)
    )
    apart = [i for i in range(96) if shuffled[i] != expected[i]]
    print(f"{len(apart)} of 96 rows depend on the order of rows: {apart}")
    assert len(apart) <= 0.01 * 96
