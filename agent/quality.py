"""QC of files that no run made: thresholds from a configuration, a screen for people."""

from collections.abc import Sequence
from pathlib import Path

from agent.config import RunConfig
from agent.config_file import load_config
from agent.files import storage_errors
from agent.screens import Screen, metric_table
from agent.thresholds import bounds
from pipeline.qc import qc


def check(
    file: Path, *, rows: Path | None, require: Sequence[str], config: Path | None
) -> tuple[Screen, bool]:
    """QC of a file of rows, and whether it passes."""
    settings = load_config(config) if config else RunConfig()
    found = qc(
        file,
        thresholds=bounds(settings),
        alpha=settings.thresholds.alpha,
        require=require,
        stop=settings.parameters.response.stop,
    )
    if rows is not None:
        with storage_errors(rows):
            found.write_rows(rows)
    text = "\n".join([f"{file}: {found.rows} rows", *metric_table(found.metrics)])
    return Screen(text, found.to_json()), found.exit_status == 0
