"""What contenders share: one model on one device, and how much each of them has to do."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.engine.base import DType, EngineSpec


@dataclass(frozen=True, slots=True)
class Setup:
    """The model, where it runs, and the size of the work."""

    model: str
    """embedded, or a folder."""
    folder: Path
    """The model as transformers loads it."""
    device: str
    """cpu or cuda:N."""
    dtype: DType
    """float32, bfloat16 or float16."""
    threads: int
    """CPU threads of every contender."""
    rows: int
    """Rows in each phase of a round."""
    sequential_rows: int
    """Rows that the contender without batches does; its seconds are scaled to all."""
    peer_scores: bool
    """Whether a server that scores token by token is asked to."""
    batch_size: int | None = None
    """Rows in one forward pass of this engine; None is what it measures itself."""

    @property
    def spec(self) -> EngineSpec:
        """The model as the in-process engine opens it."""
        return EngineSpec(
            model=self.model,
            device=self.device,
            dtype=self.dtype,
            threads=self.threads,
            batch_size=self.batch_size,
        )

    @property
    def on_cuda(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.startswith("cuda")
