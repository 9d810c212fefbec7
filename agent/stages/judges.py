"""Who judges the rows of a run: what its preflight found about critics, read from the journal.

Preflight buys it; every later stage reads it here.
"""

from agent.archive import Bought
from pipeline.critics.calibrate import Calibration
from pipeline.probe import Probe

PROBE_OP = "probe"
"""What the journal calls the open probe."""
CALIBRATION_OP = "calibration"
"""What the journal calls the critics' scores of controls."""


def calibration(session: Bought) -> Calibration:
    """What the critics said of the controls in this run's preflight."""
    return Calibration.from_json(session.paid(CALIBRATION_OP)["calibration"])


def probe(session: Bought) -> Probe:
    """The run's open probe, with every critic's scores."""
    artifact = session.paid(CALIBRATION_OP)["probe"]
    return Probe.from_json(session.store.get_artifact(artifact)[0])
