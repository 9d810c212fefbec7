"""The configuration's engine: what it is to the pipeline, where its model is, what its rent costs.

Nothing is loaded here. An unknown price is a refusal, and a secret is read from the environment
variable that the configuration names, never from a file.
"""

import os
import runpy
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from agent.config import EngineSection, RunConfig
from agent.errors import ConfigError
from pipeline.engine.base import EngineSpec
from pipeline.engine.local.threads import wait_politely
from pipeline.engine.scorer import scorer_spec


def engine_spec(section: EngineSection, environ: Mapping[str, str]) -> EngineSpec:
    """The configuration's engine as the pipeline takes it; the key comes from the environment."""
    return EngineSpec(
        kind=section.kind,
        model=section.model,
        device=section.device,
        dtype=section.dtype,
        quantization=section.quantization,
        device_map=section.device_map,
        threads=section.threads,
        batch_size=section.batch_size,
        base_url=section.base_url,
        api_key=environ.get(section.api_key_env) or None,
        concurrency=section.concurrency,
        scorer=section.scorer,
    )


def device_type(section: EngineSection) -> str:
    """What the engine's rent is looked up by: cuda, cpu, mps, server, or cpu for a script."""
    if section.kind == "server":
        return "server"
    if section.kind == "scripted":
        return "cpu"
    if section.device != "auto":
        return section.device.split(":")[0]
    return "cuda" if _built_for_gpu() and _sees_gpu() else "cpu"


def _built_for_gpu() -> bool:
    """Whether torch could use a GPU, by the file that says how it was built; nothing is imported.

    Importing torch takes seconds and 200 MB, and the engine that needs it is another process.
    """
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    built = runpy.run_path(str(Path(spec.origin).with_name("version.py")))
    return bool(built.get("cuda") or built.get("hip"))


def _sees_gpu() -> bool:
    wait_politely()
    import torch

    return bool(torch.cuda.is_available())


def price_per_hour(config: RunConfig) -> float:
    """Dollars an hour of the engine's device.

    Raises:
        ConfigError: if budget.yaml does not say; an unknown price is a refusal.
    """
    kind = device_type(config.engine)
    price = config.prices.device_usd_per_hour.get(kind)
    if price is None:
        known = ", ".join(sorted(config.prices.device_usd_per_hour)) or "none"
        raise ConfigError(
            f"no price for device {kind!r}; add prices.device_usd_per_hour.{kind} (known: {known})"
        )
    return price


def find_model(config: RunConfig) -> str:
    """Where the engine's model is, in a phrase; nothing is loaded.

    Raises:
        EngineError: if it is not there, with what to do about it.
    """
    section = config.engine
    spec = engine_spec(section, os.environ)
    if section.kind == "hf":
        return _local(spec)
    found = f"{section.kind}: {section.model} at {section.base_url or 'no base_url'}"
    scorer = scorer_spec(spec)
    return found if scorer is None else f"{found}; scorer: {_local(scorer)}"


def _local(spec: EngineSpec) -> str:
    from pipeline.engine.local.models import resolve

    files = resolve(spec)
    return f"{files.name} found" + ("" if files.ready else "; converted at the first run")
