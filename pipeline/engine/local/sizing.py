"""How many rows an engine takes in one forward pass: measured once per model and device.

A decode step of one row costs nearly as much as one of thirty, because the weights are read either
way; from some size on, twice the rows take twice as long. The size where that begins is found by
trying, is bounded by free memory, and is kept beside the converted models.
"""

import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from pipeline.engine.local.cache import EMPTY, RowCache
from pipeline.engine.local.loading import Loaded

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST: Final = 16
LARGEST: Final = 1024
_GAIN: Final = 1.15
"""Twice the rows must be at least so much faster by the row."""
_STEPS: Final = 5
"""Steps timed for each size; the median counts."""
_PROMPT: Final = 8
"""Tokens that each row holds before the steps that are timed."""
_ROW_TOKENS: Final = 1024
"""Tokens of a row that memory is kept for."""
_SHARE: Final = 0.5
"""Share of the free memory that rows may take."""


@dataclass(frozen=True, slots=True)
class Sizing:
    """What was measured."""

    batch_size: int
    """Rows in one forward pass from which more are hardly faster by the row, or do not fit."""
    seconds: dict[int, float]
    """Median seconds of a decode step, by rows."""
    row_bytes: int
    """Memory of a row of 1,024 tokens: keys, values and its logits."""
    free_bytes: int
    """Free memory of the device before the first row."""
    bounded: bool = False
    """Whether memory and not speed set the batch size: the next time there may be more of it."""


def measured(loaded: Loaded, cache: Path, *, digest: str) -> Sizing:
    """What was measured for a model on this device, now or before.

    Args:
        loaded: The model on its device.
        cache: Folder in which it is kept.
        digest: SHA-256 of the model's weights.
    """
    facts = [digest, *_device(loaded.device), loaded.dtype]
    name = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    file = cache / "sizes" / f"{name}.json"
    if (found := _recorded(file)) is None:
        found = measure(loaded)
        if not found.bounded:
            _record(file, found, facts)
    most = int(_SHARE * free_bytes(loaded.device) / found.row_bytes)
    if most < found.batch_size:
        return replace(found, batch_size=max(1, most), bounded=True)
    return found


def _device(device: str) -> list[str]:
    """What makes a device as fast as it is."""
    import torch

    if device.startswith("cuda"):
        return [torch.cuda.get_device_name(device), torch.__version__]
    capability = torch.backends.cpu.get_cpu_capability()
    return [device, capability, f"{torch.get_num_threads()} threads", torch.__version__]


def _recorded(file: Path) -> Sizing | None:
    """What was measured before; None where there is nothing, or nothing of use."""
    try:
        found: dict[str, Any] = json.loads(file.read_bytes())
        seconds = {int(rows): float(s) for rows, s in found["seconds"].items()}
        sizing = Sizing(found["batch_size"], seconds, found["row_bytes"], found["free_bytes"])
        counts = (sizing.batch_size, sizing.row_bytes, sizing.free_bytes)
        whole = all(type(count) is int for count in counts)
        return sizing if whole and SMALLEST <= sizing.batch_size <= LARGEST else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _record(file: Path, sizing: Sizing, facts: list[str]) -> None:
    """Keep what was measured; where that cannot be, it is measured again the next time."""
    body = json.dumps({"measured_for": facts, **asdict(sizing)}, indent=1)
    beside = file.with_suffix(f".{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(body, encoding="utf-8")
        beside.replace(file)
    except OSError:
        return


def measure(loaded: Loaded) -> Sizing:
    """Time decode steps of more and more rows, as long as that pays and fits."""
    import torch

    free = free_bytes(loaded.device)
    seconds: dict[int, float] = {}
    rows, row_bytes = SMALLEST, 0
    with torch.inference_mode():
        while True:
            seconds[rows], row_bytes = _step(loaded, rows)
            before = seconds.get(rows // 2)
            if before is not None and 2 * before < _GAIN * seconds[rows]:
                return Sizing(rows // 2, seconds, row_bytes, free)
            full = 2 * rows * row_bytes > _SHARE * free
            if full or 2 * rows > LARGEST:
                return Sizing(rows, seconds, row_bytes, free, bounded=full)
            rows *= 2


def _step(loaded: Loaded, rows: int) -> tuple[float, int]:
    """Median seconds of a decode step, and the bytes that a long row takes."""
    import torch

    device = loaded.device
    slots = _PROMPT + _STEPS + 1
    cache = RowCache(EMPTY, torch.zeros(rows, dtype=torch.long, device=device), capacity=slots)
    ids = torch.arange(rows * _PROMPT, device=device).view(rows, _PROMPT) % loaded.vocabulary
    loaded.forward(ids, cache, keep=0)
    took = []
    for _ in range(_STEPS + 1):
        _wait(device)
        began = time.perf_counter()
        logits = loaded.forward(ids[:, :1], cache)
        _wait(device)
        took.append(time.perf_counter() - began)
    slot = cache.bytes_per_slot()
    return median(took[1:]), slot * _ROW_TOKENS + _logit_bytes(logits)


def _logit_bytes(logits: "Tensor") -> int:
    """Logits of one row, and a float32 copy."""
    width = logits.shape[-1]
    return width * (logits.element_size() + 4)


def _wait(device: str) -> None:
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def free_bytes(device: str) -> int:
    """Free memory of a device; of this machine or container for the processor."""
    import torch

    if device.startswith("cuda"):
        free: int = torch.cuda.mem_get_info(device)[0]
        return free
    found = [_available(), _container()]
    return min(n for n in found if n is not None) if any(n is not None for n in found) else 1 << 32


def _available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    named = dict(line.split(":", 1) for line in lines)
    return int(named["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in named else None


def _container() -> int | None:
    """What a control group leaves; None without a limit."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text(encoding="ascii").strip()
        used = (folder / "memory.current").read_text(encoding="ascii").strip()
    except OSError:
        return None
    return None if limit == "max" else max(0, int(limit) - int(used))
