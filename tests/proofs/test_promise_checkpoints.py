"""P11 and P12: checkpoints stay small, hold no samples, and can be damaged or hostile."""

import hashlib
import json
import pickle
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from bookkeeping import in_memory
from fake_server import chat, serving
from forked import RUN, Outcome, Trial, forks, without_pictures

from agent import runner
from agent.checkpoints import KIND, is_sound
from agent.config_file import check_config
from agent.store import RunStore

Effort = Callable[..., int]
Figure = Callable[[str, str], None]
memory = pytest.fixture(in_memory)

MOST_BYTES, MOST_IN_ALL = 64 * 1024, 20 * 2**20


def test_checkpoints_of_many_rounds_stay_small(
    memory: Path, monkeypatch: pytest.MonkeyPatch, effort: Effort, figure: Figure
) -> None:
    without_pictures(monkeypatch.setattr)
    rounds = effort(sample=3, proof=50, soak=50)
    config = {
        "engine": {"kind": "scripted"},
        "pilot": {"max_rounds": rounds, "smoke_rows": 24, "micro_batch": 32, "max_rows": 48},
        "thresholds": {"alpha": 1e-6},  # no row is enough: every round ends undecided
        "prices": {"reviewers": {"fake": {"input_usd_per_million": 0.1,
                                          "output_usd_per_million": 0.1}}},
    }  # fmt: skip
    replies = [chat(json.dumps(_review(number)), usage=(1000, 100)) for number in range(rounds)]
    with serving(replies) as server:
        llm = {"kind": "llm", "model": "fake", "base_url": server.url}
        settings = check_config(config | {"reviewer": llm}, source="here")
        ending = runner.start(memory, settings, RUN, lambda event: None)
    assert ending.status == "stop_rounds", ending
    path = memory / RUN / "checkpoints.sqlite"
    with closing(sqlite3.connect(path)) as checkpoints:
        found = checkpoints.execute("SELECT checkpoint, metadata FROM checkpoints").fetchall()
        writes = checkpoints.execute("SELECT value FROM writes").fetchall()
    sizes = [sum(map(len, row)) for row in found]
    texts = _texts(memory)
    everything = path.read_bytes() + b"".join(b"".join(row) for row in [*found, *writes])
    assert max(sizes) <= MOST_BYTES and path.stat().st_size <= MOST_IN_ALL
    assert len(texts) > 20 * rounds
    assert [text for text in texts if text.encode() in everything] == []
    figure(
        "P11",
        f"{rounds} rounds: {len(sizes)} checkpoints of at most {max(sizes) / 1024:.1f} KB, "
        f"{path.stat().st_size / 2**20:.2f} MB in all, none of {len(texts):,} sample texts in them",
    )


def _review(number: int) -> dict[str, Any]:
    """Another setting each time, none of them better."""
    value = round(0.41 + 0.005 * number, 3)
    change = {"parameter": "response.temperature", "value": value, "reason": "to see"}
    expected = {"metric": "runaway", "low": 0.0, "high": 0.4, "probability": 0.5}
    return {"diagnosis": "unclear", "changes": [change], "predictions": [expected],
            "distrusted_metrics": [], "confidence": 0.5, "stop": False}  # fmt: skip


def _texts(reports: Path) -> list[str]:
    """Every instruction and response that was generated."""
    store = RunStore.open(reports, RUN)
    texts = set()
    for path in (store.path / "artifacts").glob("*.jsonl"):
        for row in store.get_artifact(path.stem):
            texts |= {str(row.get(name) or "") for name in ("instruction", "raw", "clean")}
    return sorted(text for text in texts if len(text) >= 16)


@pytest.fixture(scope="module")
def undisturbed() -> Outcome:
    (found,) = forks().carry_out([Trial((), waiting=True)])
    return found


def _sealed(body: bytes) -> bytes:
    """As a writer would who knows how: seals are no secret."""
    return hashlib.sha256(body).hexdigest().encode() + body


class _Executed:
    """What runs when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.canary,)


def hostile(canary: Path) -> list[tuple[str, bytes]]:
    """Types and contents of a value that tries to be called, or to be what no run writes."""
    import ormsgpack

    command = f"touch {canary}"
    pickled = pickle.dumps(_Executed(canary))
    calls: list[tuple[int, tuple[Any, ...]]] = [
        (0, ("os", "system", command)),
        (1, ("os", "system", [command])),
        (2, ("subprocess", "Popen", {"args": command, "shell": True})),
        (3, ("builtins", "exec", f"open({str(canary)!r}, 'w')", "__call__")),
        (3, ("pathlib", "Path", str(canary), "touch")),
        (4, ("pathlib", "Path", {"args": str(canary)})),
        (5, ("pathlib", "Path", {"args": str(canary)}, "touch")),
    ]
    named = [ormsgpack.packb(ormsgpack.Ext(code, ormsgpack.packb(t))) for code, t in calls]
    constructors: list[dict[str, Any]] = [
        {"lc": 2, "type": "constructor", "id": ["os", "system"], "args": [command]},
        {"lc": 2, "type": "constructor", "id": ["pathlib", "Path"], "method": "touch",
         "args": [str(canary)]},
        {"lc": 1, "type": "constructor", "id": ["langchain_core", "prompts", "PromptTemplate"],
         "kwargs": {"template": "{{ x }}", "template_format": "jinja2"}},
        {"lc": 1, "type": "secret", "id": ["PATH"]},
    ]  # fmt: skip
    texts = [json.dumps(found).encode() for found in constructors]
    state = {"v": 4, "ts": "", "id": "x", "channel_values": {}, "channel_versions": {},
             "versions_seen": {}}  # fmt: skip
    wrong: list[Any] = [
        None, 1, [], {}, "text", True, state, state | {"channel_values": None},
        state | {"channel_values": {"round": "1"}}, state | {"channel_values": {"step": "RUN"}},
        state | {"channel_values": {"round": -1}}, state | {"channel_values": {"round": True}},
        state | {"channel_versions": {"round": "os.system"}},
        {"interrupt": {"plan": "x"}, "id": "y"},
    ]  # fmt: skip
    bodies = [json.dumps(w).encode() for w in wrong]
    bodies += [b"[" * 100_000, b"[" * 30_000 + b"]" * 30_000, b'{"a":' * 10_000, b"NaN", b"\xff"]
    return [
        ("pickle", pickled), (KIND, pickled), (KIND, _sealed(pickled)), ("msgpack", pickled),
        *(("msgpack", content) for content in named), *((KIND, _sealed(n)) for n in named),
        *(("json", text) for text in texts), *((KIND, _sealed(text)) for text in texts),
        *((KIND, _sealed(body)) for body in bodies), *((kind, b"") for kind in ("null", "bytes")),
        (KIND, b""), (KIND, b"0" * 64 + b"{}"), (KIND, _sealed(b'"' + b"a" * 2**20 + b'"')),
    ]  # fmt: skip


def test_hostile_checkpoints_are_set_aside_and_nothing_is_called(
    memory: Path, undisturbed: Outcome, effort: Effort, figure: Figure
) -> None:
    canary = memory / "canary"
    payloads = hostile(canary)
    pickle.loads(payloads[0][1])
    assert canary.exists(), "the payload does not work"
    canary.unlink()
    asked = [
        {"kind": kind, "content": content.hex(), "write": write}
        for kind, content in payloads
        for write in (False, True)
    ]
    asked = random.Random(12).sample(asked, effort(sample=2, proof=len(asked), soak=len(asked)))
    found = forks().call("contests:tampered", asked)
    assert not canary.exists()
    for where, outcome in zip(asked, found, strict=True):
        assert outcome["status"] == 0, (where["kind"], where["content"][:200], outcome)
        assert outcome["result"] == undisturbed.result, where
        assert outcome["faults"] == [] and outcome["attempts"] == 0, where
    aside = sum(outcome["aside"] for outcome in found)
    figure("P12", f"{len(asked)} hostile checkpoints: 0 executed, {aside} set aside, all equal")


def test_a_flipped_bit_never_makes_another_result(
    undisturbed: Outcome, effort: Effort, figure: Figure
) -> None:
    many = effort(sample=2, proof=60, soak=1000)
    chance = random.Random(1212)
    asked = [
        {"flip": number,
         "border": [chance.randint(1, len(undisturbed.passed)), chance.choice(("before", "after"))]}
        for number in range(many)
    ]  # fmt: skip
    found = forks().call("contests:tampered", asked)
    for where, outcome in zip(asked, found, strict=True):
        assert outcome["status"] == 0, (where, outcome)
        assert outcome["result"] == undisturbed.result, where
        assert outcome["faults"] == [] and outcome["attempts"] <= 1, (where, outcome)
    aside = sum(outcome["aside"] for outcome in found)
    figure("P12", f"{many} bits flipped: {aside} files set aside, {many} of {many} runs equal")


def test_no_bit_of_the_header_is_taken_for_the_disk(tmp_path: Path) -> None:
    """A damaged file must be set aside, and not be said to be a fault of the disk for ever."""
    content = (forks().waiting / RUN / "checkpoints.sqlite").read_bytes()
    path = tmp_path / "checkpoints.sqlite"
    judged = []
    for bit in range(0, 100 * 8):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        for left in tmp_path.iterdir():
            left.unlink()
        path.write_bytes(flipped)
        judged.append(is_sound(path, lambda c: c.execute("CREATE TABLE IF NOT EXISTS x (a)")))
    assert 0 < judged.count(False) < len(judged)
