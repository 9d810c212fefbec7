"""On-policy controls: what the model itself wrote in the run's open probe, and the same spoilt.

A model's own responses have a high lift almost by construction, so margins set from people's texts
would be too low. Bad pairs are the run's own responses to other instructions of its own, cut ones,
and ones drawn far too hot. The one idea: with fewer than :data:`FEWEST` own rows there are none.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Protocol

from pipeline.critics.control_scores import Scores, scored
from pipeline.critics.controls import CUTTABLE, Controls, cut_text
from pipeline.critics.panel import Panel
from pipeline.critics.scores import Pair, Subject
from pipeline.engine.base import Engine
from pipeline.types import Sample

FEWEST: Final = 30
"""Own rows from which a margin can be set."""
_ALIKE: Final = 0.5
"""Share of words in common from which two instructions ask for the same."""
_SUBJECT: Final = 5
"""Letters from which a word names what is asked about."""
_ASKING: Final = frozenset(
    "about below between correct define describe difference example explain following given makes"
    " people please program sentence short should their there think these things using where which"
    " would write words your".split()
)


class OwnRows(Protocol):
    """What the open probe made."""

    @property
    def samples(self) -> tuple[Sample, ...]:
        """Every instruction drawn, in draw order; every parsed one is answered."""

    @property
    def hot(self) -> tuple[Sample, ...]:
        """The same instructions with answers drawn far too hot."""


def own_samples(samples: Sequence[Sample]) -> list[Sample]:
    """Answered samples of distinct instructions, in draw order, whose cleaned text may be good.

    The probe has no stop strings: most responses run on, and the cleaner cuts what follows.
    """
    found: dict[str, Sample] = {}
    for sample in samples:
        if sample.clean and not _spoilt(sample):
            found.setdefault(sample.instruction.strip().lower(), sample)
    return list(found.values())


def _spoilt(sample: Sample) -> bool:
    flags = set(sample.flags) - {"runaway", "near_duplicate"}
    return bool(flags - {"token_limit"} if "runaway" in sample.flags else flags)


def own_pairs(samples: Sequence[Sample], hot: Sequence[Sample]) -> Controls[Pair]:
    """Own pairs, and own pairs shuffled, cut and drawn too hot."""
    own = own_samples(samples)
    good = tuple((s.instruction, s.clean or "") for s in own)
    return Controls(
        good,
        {
            "shuffled": tuple(_shuffled(good)),
            "cut": tuple((i, cut_text(r)) for i, r in good if len(r.split()) >= CUTTABLE),
            "hot": tuple((s.instruction, s.clean) for s in hot if s.clean),
        },
    )


def _shuffled(pairs: Sequence[Pair]) -> list[Pair]:
    """Each instruction with the answer to another that asks for something else."""
    found = []
    for place, (instruction, response) in enumerate(pairs):
        half = len(pairs) // 2
        others = (pairs[(place + half + turn) % len(pairs)] for turn in range(len(pairs)))
        other = next((r for i, r in others if not alike(i, instruction) and r != response), None)
        if other is not None:
            found.append((instruction, other))
    return found


def alike(one: str, other: str) -> bool:
    """Whether one answer may fit both of two instructions.

    They share half of the words of the shorter one, or a longer word that is no word for asking.
    """
    a, b = (frozenset(re.findall(r"\w+", text.lower())) for text in (one, other))
    subjects = {word for word in (a & b) - _ASKING if len(word) >= _SUBJECT}
    return bool(subjects) or len(a & b) >= _ALIKE * max(1, min(len(a), len(b)))


def score_own(
    engine: Engine, panel: Panel, probe: OwnRows
) -> tuple[tuple[Sample, ...], dict[Subject, dict[str, Scores]]]:
    """Every critic's scores of a probe: its samples with them, and controls made of them.

    Every parsed instruction and every response with text is scored, so that replay can judge them
    by any critic; shuffled, cut and hot pairs are scored beside them.

    Raises:
        EngineError: if the engine cannot score.
    """
    parsed = [s for s in probe.samples if s.parsed]
    of_instruction = panel.score_instructions(engine, [s.instruction for s in parsed])
    answered = [s for s in parsed if s.clean]
    controls = own_pairs(probe.samples, probe.hot)
    texts = [(s.instruction, s.clean or "") for s in answered]
    wanted = list(dict.fromkeys([*texts, *controls.items]))
    known = dict(zip(wanted, panel.score_pairs(engine, wanted), strict=True))
    by_instruction = {s.instruction: found for s, found in zip(parsed, of_instruction, strict=True)}
    samples = tuple(
        replace(
            s,
            instruction_scores=by_instruction.get(s.instruction, {}),
            pair_scores=known.get((s.instruction, s.clean or ""), {}),
        )
        for s in probe.samples
    )
    own = Controls(tuple(by_instruction), {})
    return samples, {
        "instruction": scored(own, lambda items: [by_instruction[i] for i in items]),
        "pair": scored(controls, lambda items: [known[i] for i in items]),
    }
