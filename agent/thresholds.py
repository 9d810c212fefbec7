"""Thresholds as the pipeline takes them."""

from agent.config import RunConfig
from pipeline.metrics import Bound


def bounds(config: RunConfig) -> dict[str, Bound]:
    """Every gate's threshold by metric name."""
    section = config.thresholds
    names = [name for name in type(section).model_fields if name != "alpha"]
    return {n: Bound(max=getattr(section, n).max, min=getattr(section, n).min) for n in names}
