"""Preflight: everything that can be known to be wrong before rows are bought.

Sentinels first: a model that is not a base model, or a prompt that holds template tokens, stops
the run. Then the open probe and the controls: critics are certified by what they say of people's
texts, good and spoilt, and their margins are set from the probe's rows; detectors get their own.
"""

import os
import shutil
import time
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

from agent.archive import Bought
from agent.engines import engine_spec
from agent.errors import SentinelError, StorageError
from agent.policy import Decision, Step
from agent.session import Session, Show
from agent.stages.judges import CALIBRATION_OP, PROBE_OP
from agent.stages.judges import calibration as calibration
from agent.stages.judges import probe as probe
from agent.stages.need import NEED_OP, check_need
from agent.stages.pilot import keep_params
from pipeline.critics.calibrate import Calibration
from pipeline.critics.kept import kept_scores
from pipeline.critics.own_controls import score_own
from pipeline.detection.certify import certify_detectors
from pipeline.engine.base import Engine
from pipeline.engine.local.models import cache_folder
from pipeline.errors import EngineError
from pipeline.params import GenParams
from pipeline.probe import Probe, run_probe
from pipeline.prompting import choose_examples, instruction_prompts, response_prompts
from pipeline.sentinels import SentinelResult, check_behaviour, check_prompts
from pipeline.types import Certificate
from prompts.library import fewshot_set, rubric

SENTINELS_OP = "preflight"
"""What the journal calls the look at the model and the sentinels."""
PREFLIGHT_OPS = (SENTINELS_OP, PROBE_OP, CALIBRATION_OP, NEED_OP)
"""All that is bought before the first round, in order."""
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
    found = session.buy(SENTINELS_OP, lambda e: _examine(session, e), show, stage="preflight")
    session.note("running", "preflight is done", engine=found["engine"])
    _stop_if_contaminated(found["sentinels"])
    show({"kind": "phase", "text": "preflight: open probe"})
    session.buy(PROBE_OP, lambda e: _probe(session, e), show, stage="preflight")
    show({"kind": "phase", "text": "preflight: critics on controls"})
    session.buy(CALIBRATION_OP, lambda e: _calibrate(session, e), show, stage="preflight")
    critics = calibration(session)
    params = critics.apply(session.config.parameters)
    check_need(session, params, show)
    session.note("running", "preflight is done", replans=replans(session))
    show({"kind": "phase", "text": f"preflight done: {critics.describe(params.critic)}"})
    return Decision(Step.CONTINUE, "preflight passed"), keep_params(session, params)


def certificates(
    session: Bought, params: GenParams, *, before: int | None = None
) -> dict[str, Certificate]:
    """Certificates of detectors and critics by metric name, for one setting.

    What an audit withdrew is uncertified from then on: it passes, fails and steers nothing. For a
    round only audits ``before`` it count, whatever was stored later by a run that is done again.
    """
    critics = calibration(session).certificates(params.critic)
    found = _detectors(params.response.stop, session.config.certificates.minimum) | critics
    withdrawn = {
        name: replace(found[name], certified=False, reason=why)
        for name, why in _withdrawn(session, before).items()
    }
    return found | withdrawn


def _withdrawn(session: Bought, before: int | None) -> dict[str, str]:
    """Metrics that an audit withdrew, each with when and why."""
    rounds = session.store.load_rounds()
    return {
        audit.metric: f"withdrawn by the audit after round {record.round}: {audit.found}"
        for record in (rounds if before is None else rounds[: before - 1])
        for audit in (record.review.audits if record.review is not None else ())
        if audit.outcome == "withdrawn"
    }


@cache
def _detectors(stop: tuple[str, ...], minimum: float) -> dict[str, Certificate]:
    return certify_detectors(stop, minimum=minimum)


def _examine(session: Session, engine: Engine) -> dict[str, Any]:
    began, parameters = time.monotonic(), session.config.parameters
    sentinels = [*check_prompts(_prompts(parameters), engine.info), check_behaviour(engine)]
    # Thousands of unused tokens would stand in every record; the digest covers them.
    facts = asdict(engine.info) | {"special_tokens": ()}
    return {
        "sentinels": [asdict(s) for s in sentinels],
        "engine": facts,
        "seconds": round(time.monotonic() - began, 3),
    }


def _probe(session: Session, engine: Engine) -> dict[str, Any]:
    began = time.monotonic()
    made = run_probe(engine, session.config.parameters, seed=session.config.pilot.seed)
    artifact = session.store.put_artifact([made.to_json()])
    seconds = round(time.monotonic() - began, 3)
    return {"artifact": artifact, "tokens": made.tokens, "seconds": seconds}


def _calibrate(session: Session, engine: Engine) -> dict[str, Any]:
    """Certificates, from the cache where they are known, and scores of the probe."""
    began = time.monotonic()
    controls, kept = kept_scores(engine, _cache(session))
    bought = session.store.get_artifact(session.paid(PROBE_OP)["artifact"])
    made = Probe.from_json(bought[0])
    samples, own = score_own(engine, controls.panel(), made)
    found = Calibration(controls, session.config.critic.max_false_accept, own)
    return {
        "calibration": found.to_json(),
        "probe": session.store.put_artifact([replace(made, samples=samples).to_json()]),
        "kept": kept,
        "seconds": round(time.monotonic() - began, 3),
    }


def replans(session: Bought) -> tuple[dict[str, Any], ...]:
    """Batches that were made smaller when memory ran out, before the first round."""
    bought = [session.paid(op) for op in PREFLIGHT_OPS if session.has(op)]
    return tuple(replan for found in bought for replan in found.get("replans", ()))


def _cache(session: Session) -> Path | None:
    """The engine's cache folder; without a home nothing is kept."""
    with suppress(EngineError):
        return cache_folder(engine_spec(session.config.engine, os.environ))
    return None


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
