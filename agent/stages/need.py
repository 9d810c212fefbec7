"""The check of the need: bought in the preflight, shown in reports, acknowledged at approval.

What it measures is ``pipeline/need.py``'s; when a yes must name it is ``runner.py``'s.
"""

import time
from typing import Any

from agent.session import Session, Show
from agent.stages.judges import calibration
from pipeline.engine.base import Engine
from pipeline.need import Need, measure_need, unmeasured_need
from pipeline.params import GenParams

NEED_OP = "need"
"""What the journal calls it."""


def check_need(session: Session, params: GenParams, show: Show) -> None:
    """Measure the need with the baseline's setting, and bring it into the run's record.

    Without a critic that may be believed nothing is bought: the need is unmeasured.

    Raises:
        EngineError: if the engine fails.
    """
    certificate = calibration(session).certificates(params.critic)["pair_acceptance"]
    if not certificate.certified:
        found = unmeasured_need(params.critic.pair, f"uncertified: {certificate.reason}")
    else:
        show({"kind": "phase", "text": "preflight: need"})
        bought = session.buy(
            NEED_OP, lambda e: _measure(session, e, params), show, stage="preflight"
        )
        found = Need.from_json(bought["need"])
    warning = found.warning(session.config.need.min_gap)
    session.note("running", "the need is checked", need=found.to_json() | {"warning": warning})
    show({"kind": "phase", "text": f"preflight: {warning or found.describe()}"})


def need_warning(session: Session) -> str:
    """What a person must acknowledge before scale; empty if there is nothing."""
    return str((session.store.load_run().need or {}).get("warning", ""))


def _measure(session: Session, engine: Engine, params: GenParams) -> dict[str, Any]:
    began = time.monotonic()
    critics = calibration(session).deciding(params.critic)
    found = measure_need(engine, params, critics, seed=session.config.pilot.seed)
    return {"need": found.to_json(), "seconds": round(time.monotonic() - began, 3)}
