"""What a cell's figures depend on beside its start, tuner and seed: machine and sources."""

import hashlib
import os
import platform
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
_PACKAGES = ("agent", "pipeline", "prompts", "benchmarks/tuning")


@cache
def sources_digest() -> str:
    """Twelve characters of the SHA-256 over every source and template."""
    digest = hashlib.sha256()
    for path in sorted(p for name in _PACKAGES for p in (ROOT / name).rglob("*") if p.is_file()):
        if "__pycache__" not in path.parts:
            content = path.read_bytes()
            digest.update(f"{path.relative_to(ROOT)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:12]


@cache
def machine() -> str:
    """The processor's name and how many cores there are."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text(encoding="utf-8").splitlines() if known.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(named, platform.machine())}, {_cores()} cores"


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
