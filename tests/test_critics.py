"""Critics: what is asked of a model, areas with intervals, combinations, own rows, kept results."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.critics.areas import area, auc
from pipeline.critics.combine import fit
from pipeline.critics.control_scores import score_controls
from pipeline.critics.kept import fingerprint, kept_scores
from pipeline.critics.own_controls import alike, own_pairs, own_samples, score_own
from pipeline.critics.panel import COMBINED, Combination, Panel
from pipeline.critics.scores import instruction_scores, pair_scores
from pipeline.engine.scripted import ScriptedEngine
from pipeline.types import EngineInfo, Sample, Score, ScoreRequest

SCORES = st.lists(st.floats(-10, 10), min_size=1, max_size=60)


class Opinion(ScriptedEngine):
    """Known label probabilities: a bias to A where a text is read, a liking of ``good``."""

    def __init__(self, *, bias: float = 0.0) -> None:
        super().__init__()
        self.bias = bias
        self.asked: list[ScoreRequest] = []

    def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[Score, ...]]:
        self.asked += requests
        return [tuple(self._score(r, c) for c in r.continuations) for r in requests]

    def _score(self, request: ScoreRequest, continuation: str) -> Score:
        if continuation.strip() not in {"A", "B"}:
            liked = "Instruction: asked" in request.suffix
            return Score(-6.0 + 2.0 * liked, 2)
        means_yes = ("A" if "A means yes" in request.prefix else "B") == continuation.strip()
        likes = 1.5 * ("good" in request.suffix) * means_yes
        rare = 0.0 if continuation.startswith(" ") else -3.0
        read = "N/A" not in request.suffix and "..." not in request.suffix
        return Score(-2.0 + rare + likes + self.bias * read * (continuation.strip() == "A"), 1)


@pytest.mark.parametrize("bias", [0.0, 4.0, -4.0])
def test_a_liking_for_a_letter_does_not_move_the_label_score(bias: float) -> None:
    """Both orders of the labels are averaged: texts without content do not tell of the liking."""
    scores = instruction_scores(Opinion(bias=bias), ["a good text", "another"])
    assert scores == pytest.approx([1.5, 0.0])


def test_what_a_text_without_content_gets_is_taken_off() -> None:
    class LikesAll(Opinion):
        def _score(self, request: ScoreRequest, continuation: str) -> Score:
            found = super()._score(request, continuation)
            yes = "A" if "A means yes" in request.prefix else "B"
            return Score(found.logprob + 0.7 * (continuation.strip() == yes), 1)

    assert pair_scores(LikesAll(), [("i", "a good r")], "label") == pytest.approx([1.5])


def test_labels_are_asked_with_and_without_a_space_where_the_server_can_tell() -> None:
    class LabelsOnly(Opinion):
        @property
        def info(self) -> EngineInfo:
            return replace(super().info, scores="labels")

    whole, short = Opinion(), LabelsOnly()
    instruction_scores(whole, ["x"])
    instruction_scores(short, ["x"])
    assert {r.continuations for r in whole.asked} == {(" A", " B", "A", "B")}
    assert {r.continuations for r in short.asked} == {(" A", " B")}
    assert len({r.prefix for r in whole.asked}) == 2


def test_lift_is_a_difference_of_means_for_pairs_and_each_text_is_scored_once() -> None:
    engine = Opinion()
    found = pair_scores(engine, [("asked", "r"), ("other", "r"), ("asked", "r")], "lift")
    assert found == pytest.approx([1.0, 0.0, 1.0])
    assert len(engine.asked) == 3  # two instructions, and "..." once


def test_nothing_to_score_asks_nothing() -> None:
    engine = Opinion()
    assert Panel.of(engine.info).score_pairs(engine, []) == []
    assert Panel.of(engine.info).score_instructions(engine, []) == [] and not engine.asked


def test_a_panel_names_every_score_and_only_the_deciding_ones_are_asked_for() -> None:
    combination = Combination({"label": 2.0, "lift": 3.0}, 0.5)
    panel = Panel(("label",), ("label", "lift", COMBINED), {"pair": combination})
    (found,) = panel.score_pairs(Opinion(), [("asked", "a good r")])
    assert found == pytest.approx({"label": 1.5, "lift": 1.0, COMBINED: 0.5 + 3.0 + 3.0})
    engine = Opinion()
    only = panel.only(instruction="label", pair="lift")
    assert list(only.score_pairs(engine, [("asked", "r")])[0]) == ["lift"]
    assert all(r.continuations == (" r",) for r in engine.asked)


@given(SCORES, SCORES)
def test_an_area_lies_within_its_interval(good: list[float], bad: list[float]) -> None:
    found = area(good, bad)
    assert found is not None and 0 <= found.low <= found.value <= found.high <= 1
    assert found.value == auc(good, bad)
    turned = area([-x for x in good], [-x for x in bad])
    assert turned is not None and turned.low == pytest.approx(1 - found.high, abs=1e-9)


def test_no_controls_have_no_area() -> None:
    assert area([], [1.0]) is None and area([1.0], []) is None


def test_perfect_parting_of_few_controls_is_not_certain() -> None:
    few, many = area([1.0] * 5, [0.0] * 5), area([1.0] * 60, [0.0] * 60)
    assert few is not None and many is not None and few.value == many.value == 1.0
    assert few.low < 0.75 < 0.95 < many.low < 1.0


@pytest.mark.parametrize(("true", "good", "bad"), [(0.75, 72, 36), (0.9, 40, 40), (0.97, 36, 18)])
def test_the_lower_limit_is_above_the_truth_in_one_case_of_twenty(
    true: float, good: int, bad: int
) -> None:
    from scipy.stats import norm

    chance, shift = np.random.default_rng(1), np.sqrt(2) * norm.ppf(true)
    misses = 0
    for _ in range(600):
        found = area(chance.normal(shift, 1, good).tolist(), chance.normal(0, 1, bad).tolist())
        assert found is not None
        misses += found.low > true
    assert misses / 600 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 600)


def test_a_combination_uses_what_each_critic_knows() -> None:
    chance = np.random.default_rng(2)
    good = {"a": chance.normal(1, 1, 80).tolist(), "b": chance.normal(1, 1, 80).tolist()}
    bad = {
        "first": {"a": chance.normal(-1, 1, 80).tolist(), "b": chance.normal(1, 1, 80).tolist()},
        "second": {"a": chance.normal(1, 1, 80).tolist(), "b": chance.normal(-1, 1, 80).tolist()},
    }
    found = fit(good, bad)
    assert found.weights["a"] > 0.5 and found.weights["b"] > 0.5

    def scored(rows: dict[str, list[float]]) -> list[float]:
        pairs = zip(rows["a"], rows["b"], strict=True)
        return [found.score({"a": a, "b": b}) for a, b in pairs]

    every = [x for rows in bad.values() for x in scored(rows)]
    alone = auc(good["a"], [x for rows in bad.values() for x in rows["a"]])
    together = auc(scored(good), every)
    assert together is not None and alone is not None and together > alone + 0.05


def test_a_critic_without_variance_gets_no_weight_and_a_perfect_one_a_finite_weight() -> None:
    found = fit({"a": [1.0] * 9, "b": [0.0] * 9}, {"f": {"a": [-1.0] * 9, "b": [0.0] * 9}})
    assert found.weights["b"] == 0.0 and 0 < found.weights["a"] < 100
    assert found.score({"a": 1, "b": 0}) > 0 > found.score({"a": -1, "b": 0})


def own(index: int, instruction: str, clean: str | None, flags: tuple[str, ...] = ()) -> Sample:
    dropped = None if instruction else "parser"
    return Sample(index, f" {instruction}", instruction, raw=clean, clean=clean, flags=flags,
                  dropped=dropped)  # fmt: skip


THINGS = ("harbour", "violin", "glacier", "market", "compass", "library", "orchestra", "volcano")
PROBE = (
    *(own(i, f"Explain what a {t} is for.", f"It is the {t}, nothing else.", ())
      for i, t in enumerate(THINGS)),
    *(own(20 + i, f"Who looks after the {t}?", f"One {t} keeper.", ("runaway",
      "token_limit")) for i, t in enumerate(THINGS)),
)  # fmt: skip


def test_own_rows_are_distinct_and_their_cleaned_text_may_be_good() -> None:
    rows = (
        own(0, "Name a fruit.", "A pear.", ("runaway", "token_limit")),
        own(1, "name a fruit. ", "A fig."),
        own(2, "Name a tree.", "", ("empty",)),
        own(3, "Name a bird.", "A robin is", ("truncated",)),
        own(4, "Name a fish.", "It is a fish which swims", ("token_limit",)),
        own(5, "", None),
        own(6, "Name a town.", "Turin."),
    )
    assert [s.index for s in own_samples(rows)] == [0, 6]


def test_an_answer_is_never_shuffled_to_an_instruction_that_it_may_fit() -> None:
    found = own_pairs(PROBE, ()).bad["shuffled"]
    assert len(found) == len(PROBE)
    answers = {s.clean: s.instruction for s in PROBE}
    assert not any(alike(answers[response], instruction) for instruction, response in found)
    same = tuple(own(i, f"Name fruit {i}, please.", f"Fruit {i}.") for i in range(40))
    assert own_pairs(same, ()).bad["shuffled"] == ()


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [("What is the capital of France?", "What is the capital of Spain?", True),
     ("Name a fruit.", "Explain how magnets work.", False),
     ("Why do magnets stick?", "Who made the first magnets?", True),
     ("Describe a fig.", "Describe your town.", False), ("?", "!", False)],
)  # fmt: skip
def test_alike(one: str, other: str, expected: bool) -> None:
    assert alike(one, other) is expected and alike(other, one) is expected


@dataclass(frozen=True)
class Rows:
    samples: tuple[Sample, ...]
    hot: tuple[Sample, ...]


def test_every_parsed_instruction_and_every_response_of_a_probe_is_scored() -> None:
    hot = tuple(replace(s, clean="vorxel quint strab") for s in PROBE)
    rows = Rows((*PROBE, own(40, "", None), own(41, "Name a tree.", "", ("empty",))), hot)
    engine = ScriptedEngine()
    samples, found = score_own(engine, score_controls(engine).panel(), rows)
    every = {"label", "lift", COMBINED}
    assert [s.index for s in samples] == [s.index for s in rows.samples]
    assert all(set(s.instruction_scores) == every for s in samples if s.parsed)
    assert all(set(s.pair_scores) == every for s in samples if s.clean)
    assert samples[-1].pair_scores == {} and samples[-2].instruction_scores == {}
    lift = found["pair"]["lift"]
    assert len(lift.good) == len(PROBE) and set(lift.bad) == {"shuffled", "cut", "hot"}
    assert auc(lift.good, lift.bad["shuffled"]) == pytest.approx(1.0, abs=0.05)
    assert lift.good[0] == pytest.approx(samples[0].pair_scores["lift"], abs=1e-5)
    assert len(found["instruction"]["label"].good) == len(PROBE) + 1


class Counted(ScriptedEngine):
    """An engine that is no script, as far as it says, and counts what it scores."""

    def __init__(self, digest: str = "a", kind: str = "hf") -> None:
        super().__init__()
        self.calls = 0
        self.digest, self.kind = digest, kind

    @property
    def info(self) -> EngineInfo:
        return replace(super().info, kind=self.kind, digest=self.digest)

    def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[Score, ...]]:
        self.calls += 1
        return super().score(requests)


def test_kept_certificates_cost_no_engine_time(tmp_path: Path) -> None:
    first, again, other = Counted(), Counted(), Counted(digest="b")
    made = kept_scores(first, tmp_path)
    assert made[1] is False and first.calls
    assert kept_scores(again, tmp_path) == (made[0], True) and again.calls == 0
    assert kept_scores(other, tmp_path)[1] is False and other.calls


@pytest.mark.parametrize(
    "damage",
    [b"", b"{}", b"[1]", b'{"sha256": "0", "scores": {}}', b"[" * 100_000, None],
    ids=["empty", "nothing", "a list", "another hash", "deep", "another score"],
)
def test_a_damaged_certificate_is_made_again(tmp_path: Path, damage: bytes | None) -> None:
    made, _ = kept_scores(Counted(), tmp_path)
    (file,) = (tmp_path / "certificates").iterdir()
    if damage is None:  # one score is another
        body = json.loads(file.read_bytes())
        body["scores"]["scores"]["pair"]["lift"]["good"][0] += 1
        damage = json.dumps(body).encode()
    file.write_bytes(damage)
    engine = Counted()
    assert kept_scores(engine, tmp_path) == (made, False) and engine.calls
    assert kept_scores(Counted(), tmp_path)[1] is True


def test_a_kept_score_that_is_no_number_is_made_again(tmp_path: Path) -> None:
    made, _ = kept_scores(Counted(), tmp_path)
    (file,) = (tmp_path / "certificates").iterdir()
    scores = json.loads(file.read_bytes())["scores"]
    scores["scores"]["pair"]["lift"]["good"][0] = float("inf")
    digest = sha256(json.dumps(scores, sort_keys=True).encode()).hexdigest()
    file.write_text(json.dumps({"sha256": digest, "scores": scores}), encoding="utf-8")
    assert kept_scores(Counted(), tmp_path) == (made, False)


def test_nothing_is_kept_of_a_server_whose_weights_are_not_known(tmp_path: Path) -> None:
    served = Counted(kind="server")
    assert kept_scores(served, tmp_path)[1] is kept_scores(served, tmp_path)[1] is False
    assert not list(tmp_path.iterdir())


def test_nothing_is_kept_of_a_script_or_without_a_folder(tmp_path: Path) -> None:
    kept_scores(ScriptedEngine(), tmp_path)
    kept_scores(Counted(), None)
    assert not list(tmp_path.iterdir())
    (tmp_path / "certificates").write_text("a file where the folder would be", encoding="utf-8")
    assert kept_scores(Counted(), tmp_path)[1] is False


def test_the_fingerprint_covers_model_format_controls_and_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from pipeline.critics import kept

    info = Counted().info
    before = fingerprint(info)
    for changed in (replace(info, digest="b"), replace(info, dtype="float32"),
                    replace(info, scores="labels")):  # fmt: skip
        assert fingerprint(changed) != before
    assert fingerprint(replace(info, batch_size=7)) == before
    for package, name in (*kept._FOLDERS, *kept._FILES):
        for path, source in kept._sources(name, kept.files(package) / name):
            copy = tmp_path / path
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(source.read_bytes())
        monkeypatch.setattr(kept, "_FOLDERS", ((package, name),))
        monkeypatch.setattr(kept, "_FILES", ())
        whole = fingerprint(info)
        with monkeypatch.context() as patch:
            patch.setattr(kept, "files", lambda _: tmp_path)
            assert fingerprint(info) == whole
            some = max(p for p in (tmp_path / name, *(tmp_path / name).rglob("*")) if p.is_file())
            some.write_bytes(some.read_bytes()[:-1] + b"#")
            assert fingerprint(info) != whole
        monkeypatch.undo()
    monkeypatch.setattr(kept, "version", lambda package: "0.0")
    assert fingerprint(info) != before
