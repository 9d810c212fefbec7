"""Calibration: margins from controls, certificates for margins that somebody chose."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from pipeline.critics.calibrate import UNSCORED, Calibration, Scores, calibrate
from pipeline.critics.scores import LABELS
from pipeline.engine.scripted import ScriptedEngine
from pipeline.errors import EngineError
from pipeline.params import GenParams
from pipeline.types import EngineInfo, Score, ScoreRequest

PARTED = Scores(tuple(1 + i / 100 for i in range(60)), tuple(-1 - i / 100 for i in range(60)))
BAD = tuple(i / 10 for i in range(-20, 40))
MIXED = Scores(tuple(i / 30 for i in range(60)), tuple(i / 30 for i in range(60)))


def made(instruction: Scores = PARTED, lift: Scores = PARTED) -> Calibration:
    return Calibration(instruction, {"lift": lift, "label": MIXED}, 0.2)


def test_margins_left_open_are_filled_in_and_certified() -> None:
    params = made().apply(GenParams())
    assert params.critic.instruction_margin == pytest.approx(0.0)
    assert params.critic.pair_margin == pytest.approx(0.0)
    found = made().certificates(params.critic)
    assert found["pair_acceptance"].certified and found["instruction_acceptance"].certified


def test_a_critic_that_cannot_tell_is_not_certified() -> None:
    params = made(lift=MIXED).apply(GenParams())
    assert not made(lift=MIXED).certificates(params.critic)["pair_acceptance"].certified


def test_a_margin_that_somebody_chose_is_kept_and_judged() -> None:
    params = GenParams().replace({"critic.pair_margin": -5.0})
    assert made().apply(params).critic.pair_margin == -5.0
    certificate = made().certificates(made().apply(params).critic)["pair_acceptance"]
    assert not certificate.certified and certificate.specificity == 0.0


def test_floors_are_of_certified_critics_only() -> None:
    assert set(made().floors(GenParams().critic)) == {
        "critic.instruction_margin", "critic.pair_margin",
    }  # fmt: skip
    assert set(made(lift=MIXED).floors(GenParams().critic)) == {"critic.instruction_margin"}


def test_a_floor_is_the_loosest_margin_that_controls_allow() -> None:
    calibration = made(lift=Scores(tuple(i / 10 for i in range(38, 98)), BAD))
    floor = calibration.floors(GenParams().critic)["critic.pair_margin"]
    chosen = calibration.pair_margin("lift", None).margin
    assert chosen is not None and floor < chosen
    assert calibration.pair_margin("lift", floor).margin == floor
    assert calibration.pair_margin("lift", floor - 0.2).margin is None


def test_it_survives_json() -> None:
    assert Calibration.from_json(made().to_json()) == made()


def test_the_scripted_model_can_be_calibrated() -> None:
    found = calibrate(ScriptedEngine(), max_false_accept=0.2)
    certificates = found.certificates(found.apply(GenParams()).critic)
    assert all(c.certified for c in certificates.values())
    assert "pair lift" in found.describe()


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
    assert set(found.pairs) == {"label"} and UNSCORED in found.describe()
    assert Calibration.from_json(found.to_json()) == found
    lift = found.certificates(GenParams().critic)["pair_acceptance"]
    assert not lift.certified and lift.reason == UNSCORED
    assert set(found.floors(GenParams().critic)) == {"critic.instruction_margin"}


def test_a_critic_that_cannot_be_scored_gives_way_to_the_label_critic_and_its_margin_with_it() -> (
    None
):
    chosen = GenParams().replace({"critic.pair": "lift", "critic.pair_margin": 3.25})
    parted = Calibration(PARTED, {"label": PARTED}, 0.2)
    params = parted.apply(chosen)
    assert (params.critic.pair, params.critic.pair_margin) == ("label", pytest.approx(0.0))
    assert parted.certificates(params.critic)["pair_acceptance"].certified
    mixed = Calibration(PARTED, {"label": MIXED}, 0.2)
    params = mixed.apply(chosen)
    assert params.critic.pair == "label"
    assert not mixed.certificates(params.critic)["pair_acceptance"].certified
    assert made().apply(chosen) == chosen.replace({"critic.instruction_margin": 0.0})
