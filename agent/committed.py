"""What scale has bought so far, in draw order, held in memory for one process.

The journal says which micro-batches there are and the artifacts hold their rows; this is only a
view of them, read forward, so that no wave reads again what an earlier one has read.
"""

from dataclasses import dataclass, field

from agent.money.journal import Journal
from agent.store import RunStore
from pipeline.novelty import NoveltyIndex
from pipeline.types import Sample
from prompts.library import Example


def op_id(batch: int) -> str:
    """What the journal calls a micro-batch of scale."""
    return f"scale/b{batch:05d}"


@dataclass(slots=True)
class Committed:
    """Samples of every micro-batch that was bought, and what follows from them."""

    batches: int = 0
    """Micro-batches read."""
    samples: list[Sample] = field(default_factory=list)
    """Every sample, dropped ones too."""
    pool: list[Example] = field(default_factory=list)
    """Kept rows as examples."""
    seen: NoveltyIndex = field(default_factory=NoveltyIndex)
    """Every instruction."""
    shard_start: int = 0
    """Place in ``samples`` where the shard under way begins."""

    @property
    def kept(self) -> int:
        """Rows of the data set so far."""
        return len(self.pool)

    def read(self, journal: Journal, store: RunStore, *, shard_rows: int) -> None:
        """Take in every micro-batch that was bought since the last time."""
        while (bought := journal.find(op_id(self.batches))) is not None:
            for row in store.get_artifact(bought.result["artifact"]):
                self._take(Sample.from_json(row), shard_rows)
            self.batches += 1

    def _take(self, sample: Sample, shard_rows: int) -> None:
        self.samples.append(sample)
        self.seen.add(sample.instruction)
        if sample.kept:
            self.pool.append(Example("", sample.instruction, sample.clean or ""))
            if self.kept % shard_rows == 0:
                self.shard_start = len(self.samples)
