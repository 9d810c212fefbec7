"""Preflight: everything that can be known to be wrong before rows are bought.

Sentinels first: a model that is not a base model, or a prompt that holds template tokens, stops
the run. Then the controls: the critics' margins are set from what they say of planted good and
bad rows, and both critics and detectors get their certificates.
"""

import shutil
import time
from dataclasses import asdict
from functools import cache
from typing import Any

from agent.errors import SentinelError, StorageError
from agent.policy import Decision, Step
from agent.session import Session, Show
from agent.stages.pilot import keep_params
from pipeline.critics.calibrate import Calibration, calibrate
from pipeline.detection.certify import certify_detectors
from pipeline.engine.base import Engine
from pipeline.params import GenParams
from pipeline.prompting import choose_examples, instruction_prompts, response_prompts
from pipeline.sentinels import SentinelResult, check_behaviour, check_prompts
from pipeline.types import Certificate
from prompts.library import fewshot_set, rubric

FREE_BYTES = 200 * 2**20
"""Disk space that a run needs for its folder at least."""


def check(session: Session, show: Show) -> tuple[Decision, str]:
    """Check disk, model, sentinels and critics; name the first round's setting by its hash.

    Raises:
        EngineError: if the model cannot be found or loaded.
        SentinelError: if a contamination sentinel fails.
        StorageError: if the disk is nearly full.
    """
    free = shutil.disk_usage(session.store.path).free
    if free < FREE_BYTES:
        raise StorageError(
            f"{free / 2**20:.0f} MB are free at {session.store.path}, a run needs at least "
            f"{FREE_BYTES / 2**20:.0f} MB: make room, then resume"
        )
    show({"kind": "phase", "text": f"reviewer: {session.reviewer_reason}"})
    show({"kind": "phase", "text": "preflight: model, sentinels, controls"})
    found = session.buy("preflight", lambda e: _examine(session, e), show, stage="preflight")
    session.note("running", "preflight is done", engine=found["engine"])
    _stop_if_contaminated(found["sentinels"])
    critics = calibration(session)
    params = critics.apply(session.config.parameters)
    show({"kind": "phase", "text": f"preflight done: {critics.describe()}"})
    return Decision(Step.CONTINUE, "preflight passed"), keep_params(session, params)


def certificates(session: Session, params: GenParams) -> dict[str, Certificate]:
    """Certificates of detectors and critics by metric name, for one setting."""
    critics = calibration(session).certificates(params.critic)
    return _detectors(params.response.stop) | critics


@cache
def _detectors(stop: tuple[str, ...]) -> dict[str, Certificate]:
    return certify_detectors(stop)


def calibration(session: Session) -> Calibration:
    """What the critics said of the controls in this run's preflight."""
    return Calibration.from_json(session.paid("preflight")["calibration"])


def _examine(session: Session, engine: Engine) -> dict[str, Any]:
    began, parameters = time.monotonic(), session.config.parameters
    sentinels = [*check_prompts(_prompts(parameters), engine.info), check_behaviour(engine)]
    result: dict[str, Any] = {"sentinels": [asdict(s) for s in sentinels]}
    if all(s.passed for s in sentinels):
        limit = session.config.critic.max_false_accept
        result["calibration"] = calibrate(engine, max_false_accept=limit).to_json()
    # Thousands of unused tokens would stand in every record; the digest covers them.
    facts = asdict(engine.info) | {"special_tokens": ()}
    return result | {"engine": facts, "seconds": round(time.monotonic() - began, 3)}


def _prompts(parameters: GenParams) -> list[str]:
    """One of every kind of prompt, with every shipped example in it."""
    shipped = [e for name in ("core", "wide") for e in fewshot_set(name)]
    chosen = choose_examples(parameters.fewshot, seed=0, place=("preflight",))
    return [
        instruction_prompts(shipped, hints=["topic"])[0].text,
        instruction_prompts(chosen, hints=[None])[0].text,
        response_prompts(shipped, ["an instruction"])[0].text,
        rubric("instruction"),
        rubric("pair"),
    ]


def _stop_if_contaminated(results: list[dict[str, Any]]) -> None:
    failed = [SentinelResult(**r) for r in results if not r["passed"]]
    if failed:
        found = "; ".join(f"{s.name}: {s.found}" for s in failed)
        raise SentinelError(
            f"contamination sentinel failed: {found}. What this model writes would not be a base "
            "model's own text: choose a base model, or prompts without template tokens"
        )
