"""Critics on a file of rows: what the base model makes of each, and what that is worth.

The same critics, certificates and margins as in a run, but for the run's own rows, which a file
does not have: margins come from the shipped controls. Opening the engine is the caller's. The one
idea: every critic's score of every row is given, so whoever distrusts a margin can set another.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

from pipeline.critics.calibrate import Calibration
from pipeline.critics.kept import kept_scores
from pipeline.critics.panel import Panel
from pipeline.critics.scores import SUBJECTS, Subject
from pipeline.engine.base import Engine
from pipeline.metrics import Rules, rate_metric, unmeasured
from pipeline.params import CriticParams, GenParams
from pipeline.qc import QcResult
from pipeline.rows import Row, read_rows
from pipeline.types import Metric

LONGEST: Final = 2048
"""Tokens of a text that is scored; no setting generates more than half as many."""
_CHUNK: Final = 256
"""Rows that are scored together."""
_CHARACTERS: Final = 64
"""A text with more characters for each token allowed is not even counted."""

Scores = Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class RowScores:
    """What the critics make of one row; None where there is nothing to score."""

    pair: Scores
    """By critic."""
    instruction: Scores
    """By critic."""

    def to_json(self) -> dict[str, Any]:
        """Pair critics by name, those of the instruction within ``instruction``."""
        return {**self.pair, "instruction": dict(self.instruction)}


@dataclass(frozen=True, slots=True)
class Criticised:
    """A file judged by detectors and critics."""

    found: QcResult
    """With both acceptances measured where a critic is certified, and scores beside the flags."""
    certificate: dict[str, Any]
    """What each critic shows on each kind of fault, and which one decides at which margin."""
    scored: int
    """Rows whose pair was scored."""
    seconds: float
    """That it took, the engine being open."""

    def to_json(self) -> dict[str, Any]:
        """QC as without critics, with the certificate."""
        taken = {"scored": self.scored, "seconds": round(self.seconds, 1)}
        return self.found.to_json() | {"certificate": self.certificate, "critics": taken}


def criticise(
    engine: Engine, found: QcResult, *, rules: Rules, calibration: Calibration, critic: CriticParams
) -> Criticised:
    """Score every row of a file that has been judged by detectors.

    Args:
        engine: The base model.
        found: What the detectors found.
        rules: Thresholds and alpha; certificates come from ``calibration``.
        calibration: What the critics make of controls.
        critic: Which of them decide, and at which margins.

    Raises:
        DataError: if the file changed since it was judged.
        EngineError: if the engine cannot score.
    """
    began = time.monotonic()
    decided = calibration.apply(GenParams(critic=critic)).critic
    scores = tuple(score_rows(engine, found.path, calibration.panel()))
    certified = calibration.certificates(decided)
    rules = replace(rules, certificates={**rules.certificates, **certified})
    measured = {
        f"{subject}_acceptance": _acceptance(subject, scores, rules, decided)
        for subject in SUBJECTS
    }
    return Criticised(
        replace(
            found,
            metrics=tuple(measured.get(m.name, m) for m in found.metrics),
            scores=tuple(s.to_json() for s in scores),
        ),
        calibration.report(decided),
        sum(any(v is not None for v in s.pair.values()) for s in scores),
        time.monotonic() - began,
    )


def calibrated(engine: Engine, cache: Path | None, *, max_false_accept: float) -> Calibration:
    """What the critics make of the shipped controls, from ``cache`` where it is kept.

    Raises:
        EngineError: if the engine cannot score.
    """
    return Calibration(kept_scores(engine, cache)[0], max_false_accept)


def score_rows(engine: Engine, path: Path, critics: Panel) -> Iterator[RowScores]:
    """Every critic's scores of each row of a file, in its order.

    Raises:
        DataError: if the file cannot be read as rows.
        EngineError: if the engine cannot score.
    """
    rows = read_rows(path)
    while chunk := list(islice(rows, _CHUNK)):
        yield from _score(engine, chunk, critics)


def _score(engine: Engine, rows: Sequence[Row], critics: Panel) -> list[RowScores]:
    asked = _scorable(engine, [row.instruction for row in rows])
    answered = _scorable(engine, [row.response for row in rows])
    whole = [i for i in sorted(answered) if i in asked]
    pairs = critics.score_pairs(engine, [(rows[i].instruction, rows[i].response) for i in whole])
    texts = critics.score_instructions(engine, [rows[i].instruction for i in sorted(asked)])
    by_pair = dict(zip(whole, pairs, strict=True))
    by_text = dict(zip(sorted(asked), texts, strict=True))
    return [
        RowScores(
            by_pair.get(i, dict.fromkeys(critics.pair)),
            by_text.get(i, dict.fromkeys(critics.instruction)),
        )
        for i in range(len(rows))
    ]


def _scorable(engine: Engine, texts: Sequence[str]) -> set[int]:
    """Which texts have something to score, and no more of it than the engine should be given."""
    short = [i for i, t in enumerate(texts) if t.strip() and len(t) <= LONGEST * _CHARACTERS]
    counts = engine.count_tokens([texts[i] for i in short])
    return {i for i, count in zip(short, counts, strict=True) if count <= LONGEST}


def _acceptance(
    subject: Subject, scores: Sequence[RowScores], rules: Rules, critic: CriticParams
) -> Metric:
    """Accepted rows of all; a text that cannot be scored is not accepted."""
    name = f"{subject}_acceptance"
    certificate = rules.certificates[name]
    if not certificate.certified:
        bound = rules.thresholds.get(name)
        why = f"not measured: uncertified: {certificate.reason}"
        return unmeasured(name, why, threshold=None if bound is None else str(bound))
    deciding, margin = getattr(critic, subject), getattr(critic, f"{subject}_margin")
    values = [getattr(s, subject)[deciding] for s in scores]
    accepted = sum(value is not None and value > margin for value in values)
    return rate_metric(name, accepted, len(values), rules)
