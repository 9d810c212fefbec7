"""The rows that a run has stored, and what they would have been under another setting.

Judging them is left to whoever asks: the loop before it buys (``replaying.py``), the candidates of
a report (``candidates.py``), a person (``agent/whatif.py``). The one idea: an instruction counts
once, in the earliest rows that can answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from agent.archive import Bought
from agent.records import RoundRecord
from agent.stages import pilot
from agent.stages.judges import CALIBRATION_OP, probe
from agent.stages.pilot import Place
from pipeline.novelty import NoveltyIndex, normalise
from pipeline.params import GenParams
from pipeline.probe import probe_params
from pipeline.replay import Refusal, Replayed, replay
from pipeline.types import Sample

PROBE = "open probe"
"""What people call the probe's rows."""


@dataclass(frozen=True, slots=True)
class Source:
    """Stored rows, and what made them."""

    name: str
    """What people call them."""
    samples: tuple[Sample, ...]
    """Every instruction drawn."""
    made_with: GenParams
    """The setting."""


@dataclass(frozen=True, slots=True)
class Found:
    """What stored rows say of a setting."""

    used: tuple[str, ...]
    """Names of the rows that were used."""
    refused: dict[str, tuple[Refusal, ...]]
    """What the others cannot answer for."""
    rows: Replayed
    """All rows used, numbered anew."""

    @property
    def answered(self) -> int:
        """Rows with a response."""
        return sum(s.answered for s in self.rows.samples)


def sources(bought: Bought, *, before: int) -> tuple[Source, ...]:
    """The rows that a run has stored: its open probe, and those of rounds before ``before``."""
    if not bought.has(CALIBRATION_OP):
        return ()
    opened = Source(PROBE, probe(bought).samples, probe_params(bought.config.parameters))
    rounds = [r for r in bought.store.load_rounds()[: before - 1] if not r.replayed]
    return (opened, *(_of_round(bought, r) for r in rounds))


def ask(stored: Sequence[Source], wanted: GenParams) -> Found:
    """What ``stored`` rows would have been under ``wanted``, put together.

    An instruction that an earlier source has is left out of later ones: its rows are no new trial.
    """
    asked: dict[str, Replayed] = {}
    had = NoveltyIndex()
    for source in stored:
        fresh = [s for s in source.samples if not s.parsed or normalise(s.instruction) not in had]
        found = replay(fresh, made_with=source.made_with, wanted=wanted)
        asked[source.name] = found
        for sample in () if found.refused else fresh:
            had.add(sample.instruction)
    used = {name: found for name, found in asked.items() if not found.refused}
    every = [s for found in used.values() for s in found.samples]
    return Found(
        used=tuple(used),
        refused={name: found.refused for name, found in asked.items() if found.refused},
        rows=Replayed(
            samples=tuple(replace(s, index=i) for i, s in enumerate(every)),
            refused=(),
            changed=sum(found.changed for found in used.values()),
            unscored=sum(found.unscored for found in used.values()),
        ),
    )


def _of_round(bought: Bought, record: RoundRecord) -> Source:
    rows = pilot.samples(bought, Place(record.round, "", record.micro_batches))
    return Source(f"round {record.round}", tuple(rows), record.params)
