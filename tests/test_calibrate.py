"""Calibration: which critic is used, margins from controls, certificates for chosen margins."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from pipeline.critics.calibrate import UNSCORED, Calibration, calibrate
from pipeline.critics.choice import choose
from pipeline.critics.control_scores import ControlScores, Scores, score_controls, with_combinations
from pipeline.critics.scores import LABELS, Subject
from pipeline.engine.scripted import ScriptedEngine
from pipeline.errors import EngineError
from pipeline.params import CriticParams, GenParams
from pipeline.types import EngineInfo, Score, ScoreRequest

HIGH = tuple(1 + i / 100 for i in range(60))
LOW = tuple(-1 - i / 100 for i in range(60))
SPREAD = tuple(i / 30 for i in range(60))
BAD = tuple(i / 10 for i in range(-20, 40))
NEEDED: dict[Subject, str] = {"instruction": "statement", "pair": "shuffled"}
EVERY = 60


def scores(subject: Subject, good: Sequence[float], bad: Sequence[float]) -> Scores:
    return Scores(tuple(good), {NEEDED[subject]: tuple(bad), "cut": SPREAD})


def parted(subject: Subject) -> Scores:
    return scores(subject, HIGH, LOW)


def mixed(subject: Subject) -> Scores:
    return scores(subject, SPREAD, SPREAD)


def made(
    pair: Scores | None = None, own: Mapping[Subject, Mapping[str, Scores]] | None = None
) -> Calibration:
    """An instruction label and a pair lift that tell good from bad, a pair label that does not."""
    by_critic: dict[Subject, dict[str, Scores]] = {
        "instruction": {"label": parted("instruction")},
        "pair": {"label": mixed("pair"), "lift": pair or parted("pair")},
    }
    return Calibration(ControlScores(by_critic, {}), 0.2, own or {})


CRITIC = CriticParams(instruction="label", pair="lift")


def test_what_is_left_open_is_filled_in_and_certified() -> None:
    params = made().apply(GenParams())
    assert (params.critic.instruction, params.critic.pair) == ("label", "lift")
    assert params.critic.instruction_margin == pytest.approx(0.0)
    assert params.critic.pair_margin == pytest.approx(0.0)
    found = made().certificates(params.critic)
    assert found["pair_acceptance"].certified and found["instruction_acceptance"].certified


def test_where_no_critic_can_tell_acceptance_is_uncertified() -> None:
    blind = made(pair=mixed("pair"))
    choice = blind.choice("pair")
    assert not choice.certified and "none is certified" in choice.why
    certificate = blind.certificates(blind.apply(GenParams()).critic)["pair_acceptance"]
    assert not certificate.certified and "shuffled" in certificate.reason


def test_a_critic_that_sees_another_fault_only_is_not_certified() -> None:
    """It may part good from cut pairs without a mistake: acceptance needs shuffled ones."""
    sees_cuts = Scores(HIGH, {"shuffled": HIGH, "cut": LOW})
    assert not made(pair=sees_cuts).choice("pair").certified


def test_an_area_that_a_few_controls_show_is_no_certificate() -> None:
    few = Scores(HIGH[:4], {"shuffled": LOW[:4], "cut": ()})
    certificate = few.certificate("pair", "lift", "shuffled")
    assert certificate.area == 1.0 and not certificate.seen
    assert few.certificate("pair", "lift", "cut").area is None
    assert not made(pair=few).choice("pair").certified


def test_a_margin_that_somebody_chose_is_kept_and_judged() -> None:
    params = GenParams().replace({"critic.pair_margin": -5.0})
    assert made().apply(params).critic.pair_margin == -5.0
    certificate = made().certificates(made().apply(params).critic)["pair_acceptance"]
    assert not certificate.certified and certificate.specificity == 0.0


def test_a_critic_that_somebody_names_is_used_and_judged() -> None:
    params = made().apply(GenParams().replace({"critic.pair": "label"}))
    assert params.critic.pair == "label"
    assert not made().certificates(params.critic)["pair_acceptance"].certified


def test_floors_are_of_certified_critics_only() -> None:
    assert set(made().floors(CRITIC)) == {"critic.instruction_margin", "critic.pair_margin"}
    assert set(made(pair=mixed("pair")).floors(CRITIC)) == {"critic.instruction_margin"}


def test_a_floor_is_the_loosest_margin_that_controls_allow() -> None:
    calibration = made(pair=scores("pair", [i / 10 for i in range(38, 98)], BAD))
    floor = calibration.floors(CRITIC)["critic.pair_margin"]
    chosen = calibration.margin("pair", "lift").margin
    assert chosen is not None and floor < chosen
    assert calibration.margin("pair", "lift", floor).margin == floor
    assert calibration.margin("pair", "lift", floor - 0.2).margin is None


OWN_GOOD, OWN_BAD = [5 + i / 100 for i in range(48)], [3 + i / 100 for i in range(48)]


@pytest.mark.parametrize(("rows", "source"), [(48, "own rows"), (29, "shipped controls")])
def test_margins_of_pairs_come_from_own_rows_where_there_are_enough(rows: int, source: str) -> None:
    own: dict[Subject, dict[str, Scores]] = {
        "pair": {"lift": scores("pair", OWN_GOOD[:rows], OWN_BAD[:rows])}
    }
    found = made(own=own)
    margin = found.apply(GenParams()).critic.pair_margin
    assert margin is not None and (margin > 3.0) == (rows == 48)
    assert source in found.margin_source("pair", "lift")
    assert found.certificates(CRITIC)["pair_acceptance"].positives == (48 if rows == 48 else 60)


def test_margins_of_instructions_judge_own_good_ones_by_peoples_bad_ones() -> None:
    own: dict[Subject, dict[str, Scores]] = {"instruction": {"label": Scores((9.0,) * 30, {})}}
    found = made(own=own).margin("instruction", "label")
    assert (found.good, found.bad, found.true_accept) == (30, EVERY, 1.0)
    assert "own rows against" in made(own=own).margin_source("instruction", "label")


def test_own_rows_of_another_critic_say_nothing() -> None:
    own: dict[Subject, dict[str, Scores]] = {"pair": {"label": scores("pair", OWN_GOOD, OWN_BAD)}}
    assert "own" not in made(own=own).margin_source("pair", "lift")


def combined(first: Sequence[float], second: Sequence[float]) -> Calibration:
    """Pair critics with these scores of bad controls; good ones score about 1 by both."""
    wave = [((7 * i) % 60) / 30 for i in range(60)]
    good = [x / 2 for x in wave]
    by_critic = {
        "instruction": {"label": parted("instruction")},
        "pair": {
            "label": Scores(tuple(good), {"shuffled": tuple(first)}),
            "lift": Scores(tuple(reversed(good)), {"shuffled": tuple(second)}),
        },
    }
    return Calibration(with_combinations(by_critic), 0.2)


def test_the_combination_is_used_where_it_beats_both_on_controls_it_was_not_fitted_to() -> None:
    noise = [((11 * i) % 60) / 60 for i in range(60)]
    found = combined([x - 0.55 for x in noise], [0.45 - x for x in noise])
    shown = {c: s.certificate("pair", c, "shuffled") for c, s in
             found.controls.by_critic["pair"].items()}  # fmt: skip
    assert (shown["combined"].good, shown["combined"].bad) == (30, 30)
    choice = found.choice("pair")
    assert choice.critic == "combined" and choice.certified
    assert all(name in choice.why for name in ("label", "lift", "half"))


def test_the_combination_is_not_used_where_one_critic_does_as_well() -> None:
    found = combined([-5 - i / 10 for i in range(60)], [((13 * i) % 60) / 60 for i in range(60)])
    assert found.choice("pair").critic == "label"


def test_critics_are_compared_on_the_same_half_of_the_controls() -> None:
    """On the other half, which the combination was fitted to, the label critic is perfect."""
    turns = [0.0, 1.0] * 30
    lucky = Scores(tuple(1 - t * (i % 8 == 1) for i, t in enumerate(turns)),
                   {"shuffled": tuple(0.5 * t for t in turns)})  # fmt: skip
    steady = Scores((1.0,) * 30, {"shuffled": (0.0,) * 27 + (2.0,) * 3})
    whole, half = (s.certificate("pair", "label", "shuffled").low or 0 for s in
                   (lucky, lucky.every_other(1)))  # fmt: skip
    other = steady.certificate("pair", "combined", "shuffled").low or 0
    assert half < other < whole
    found = choose("pair", {"label": lucky, "combined": steady})
    assert found.critic == "combined" and found.certified


def test_of_two_critics_alike_the_simpler_one_is_used_also_after_json_sorted_its_keys() -> None:
    one = Scores(HIGH[:30], {"shuffled": LOW[:30]})
    alike = ControlScores(
        {
            "instruction": {"label": parted("instruction")},
            "pair": {"combined": one, "label": Scores(HIGH, {"shuffled": LOW})},
        },
        {},
    )
    sorted_keys = json.loads(json.dumps(alike.to_json(), sort_keys=True))
    for scores in (alike, ControlScores.from_json(sorted_keys)):
        assert Calibration(scores, 0.2).choice("pair").critic == "label"


def test_it_survives_json() -> None:
    own: dict[Subject, dict[str, Scores]] = {"pair": {"lift": parted("pair")}}
    assert Calibration.from_json(made(own=own).to_json()) == made(own=own)
    whole = combined(LOW, SPREAD)
    assert Calibration.from_json(whole.to_json()) == whole


def test_the_report_names_every_fault_and_what_is_used() -> None:
    own: dict[Subject, dict[str, Scores]] = {
        "pair": {"lift": scores("pair", OWN_GOOD, OWN_BAD)},
        "instruction": {"label": Scores(HIGH, {})},
    }
    found = made(own=own).report(made(own=own).apply(GenParams()).critic)
    faults = {(f["subject"], f["critic"], f["fault"]): f["seen"] for f in found["faults"]}
    assert faults["pair", "lift", "shuffled"] and not faults["pair", "label", "shuffled"]
    assert faults["pair", "lift", "own shuffled"] and ("pair", "label", "own cut") not in faults
    assert found["used"]["pair"]["critic"] == "lift" and found["used"]["pair"]["source"]


def test_the_scripted_model_can_be_calibrated() -> None:
    found = calibrate(ScriptedEngine(), max_false_accept=0.2)
    params = found.apply(GenParams())
    assert all(c.certified for c in found.certificates(params.critic).values())
    assert "pairs by" in found.describe(params.critic)


class LabelsOnly(ScriptedEngine):
    """A model whose server tells only the likeliest next tokens."""

    @property
    def info(self) -> EngineInfo:
        return replace(super().info, scores="labels")

    def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[Score, ...]]:
        if any(request.continuations != LABELS for request in requests):
            raise EngineError("it gives no log-probabilities of a text")
        return super().score(requests)


def test_a_server_that_scores_labels_only_is_asked_for_nothing_else() -> None:
    found = calibrate(LabelsOnly(), max_false_accept=0.2)
    assert set(found.controls.by_critic["pair"]) == {"label"} and not found.controls.combinations
    assert Calibration.from_json(found.to_json()) == found
    lift = found.certificates(CRITIC)["pair_acceptance"]
    assert not lift.certified and lift.reason == UNSCORED
    assert set(found.floors(CRITIC)) == {"critic.instruction_margin"}
    assert found.panel().pair == ("label",)


@pytest.mark.parametrize("wish", ["lift", "combined"])
def test_a_critic_that_cannot_be_scored_gives_way_to_the_label_critic_and_its_margin_with_it(
    wish: str,
) -> None:
    chosen = GenParams().replace({"critic.pair": wish, "critic.pair_margin": 3.25})
    by_critic: dict[Subject, dict[str, Scores]] = {
        "instruction": {"label": parted("instruction")},
        "pair": {"label": parted("pair")},
    }
    only = Calibration(ControlScores(by_critic, {}), 0.2)
    params = only.apply(chosen)
    assert (params.critic.pair, params.critic.pair_margin) == ("label", pytest.approx(0.0))
    assert only.certificates(params.critic)["pair_acceptance"].certified
    assert "does not give" in only.choice("pair", wish).why


def test_a_margin_that_was_written_for_the_best_critic_is_kept() -> None:
    chosen = GenParams().replace({"critic.pair_margin": 0.25})
    assert made().apply(chosen).critic.pair_margin == 0.25


def test_controls_are_scored_once_and_a_combination_is_made_of_half_of_them() -> None:
    found = score_controls(ScriptedEngine())
    for subject, by_critic in found.by_critic.items():
        assert list(by_critic) == ["label", "lift", "combined"], subject
        whole, half = by_critic["label"], by_critic["combined"]
        assert len(half.good) == len(whole.good) // 2
        weights = found.combinations[subject]
        asked = {c: by_critic[c].every_other(1).good[0] for c in ("label", "lift")}
        assert half.good[0] == pytest.approx(weights.score(asked), abs=1e-5)
