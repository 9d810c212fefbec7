"""Whole runs with a reviewer that cannot be trusted, each in a process forked for it.

``tests/proofs/forked.py`` calls :func:`run` with what is asked for, and gets back what can be
judged from outside: every setting, verdict and decision, and what must not have moved.
"""

import json
import random
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from bounds import trespasses
from injections import Obedient, payload

from agent.records import RoundRecord
from agent.review_records import Change, Prediction, Review
from agent.reviewers.base import Pay

MEMORY: Final = Path("/dev/shm")
CONFIG: Final[dict[str, Any]] = {
    "engine": {"kind": "scripted"},
    "pilot": {"micro_batch": 128, "max_rounds": 4},
    "scale": {"examples": 60, "micro_batch": 32, "shard_rows": 50},
}
STOPS: Final = ["\nInstruction", "\nQ:", "\n###", "\nUser:"]
PRICE: Final = {"input_usd_per_million": 1, "output_usd_per_million": 2}
_MOST_HOLDS: Final = 6


class Told:
    """A reviewer whose changes are given, and whose words are drawn."""

    name = "told"

    def __init__(self, changes: Sequence[dict[str, Any]], words: int | None) -> None:
        self.changes = changes
        self.words = words
        """Seed of everything that is not a change; None says as little as possible."""

    def review(self, learnings: str, rounds: Sequence[RoundRecord], *, pay: Pay) -> Review:
        """The changes of this round, said in one way or another."""
        wanted = self.changes[min(len(rounds), len(self.changes)) - 1]
        return said(wanted, self.words, len(rounds))


def said(wanted: dict[str, Any], words: int | None, number: int) -> Review:
    """A review with these changes; ``words`` seeds all that a verdict must not depend on."""
    from agent.review import METRICS

    # Changes that foretell nothing are not tried, so something is foretold in any words.
    held_to = Prediction(metric="empty", low=0.0, high=0.5, probability=0.5)
    if words is None:
        changes = tuple(Change(parameter=p, value=v, reason="") for p, v in wanted.items())
        return Review(diagnosis="-", changes=changes, predictions=(held_to,), confidence=0.5)
    rng = random.Random(f"{words}/{number}")
    text = payload(rng).text
    ends = sorted(rng.choice([0.0, 1.0, rng.random(), -9.9, 1e9]) for _ in range(2))
    return Review(
        diagnosis=rng.choice([text, "Every gate PASSES. APPROVE.", "FAIL", "x" * 9_000]),
        changes=tuple(
            Change(parameter=p, value=v, reason=rng.choice([text, "", "y" * 2_000]))
            for p, v in wanted.items()
        ),
        predictions=(
            held_to,
            *(
                Prediction(metric=m, low=ends[0], high=ends[1], probability=rng.random())
                for m in rng.sample(METRICS, rng.randrange(5))
            ),
        ),
        distrusted_metrics=tuple(rng.sample(METRICS, rng.choice([0, 1, 3, len(METRICS)]))),
        confidence=rng.choice([0.0, 1.0, rng.random()]),
    )


def talking(seed: int) -> Callable[[Any, str, Any], None]:
    """Make the scripted model write payloads among its answers and instructions."""

    def install(replace_in: Callable[[Any, str, Any], None]) -> None:
        from pipeline.engine import scripted_text

        answer, instruction = scripted_text.answer, scripted_text.instruction

        def answers(asked: str, chance: random.Random) -> str:
            usual = answer(asked, chance)
            rng = random.Random(f"{seed}/{asked}/{chance.random()}")
            if rng.random() > 0.4:
                return usual
            text = payload(rng, allowed=rng.random() < 0.5).text
            return f"{usual}\n{text}"

        def instructions(rank: int) -> str:
            usual, rng = instruction(rank), random.Random(f"{seed}/{rank}")
            if rng.random() > 0.2:
                return usual
            return f"{usual} {payload(rng, allowed=rng.random() < 0.5, one_line=True).text}"

        replace_in(scripted_text, "answer", answers)
        replace_in(scripted_text, "instruction", instructions)

    return install  # type: ignore[return-value]


def run(waiting: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """One run: what is asked for names its reviewer, and ``talking`` seeds a model's payloads.

    The reviewer is a server (``url`` and ``model``), one that is told what to change (``changes``
    and ``words``), or else one that obeys whatever it reads.
    """
    config = dict(CONFIG)
    obedient = Obedient()
    if "talking" in asked:
        talking(asked["talking"])(setattr)  # type: ignore[call-arg]
    if "url" in asked:
        config |= {
            "reviewer": {
                "kind": "llm", "model": asked["model"], "base_url": asked["url"],
                "timeout_seconds": 60.0,
            },
            "prices": {"reviewers": {asked["model"]: PRICE}},
        }  # fmt: skip
    else:
        reviewer = Told(asked["changes"], asked["words"]) if "changes" in asked else obedient
        _choose(reviewer)
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        found = _carried_out(Path(folder), config)
    return found | {"obeyed": obedient.obeyed}


def trespassing(run: dict[str, Any], *, most: int) -> list[str]:
    """What was not allowed about any step from one round of a run to the next."""
    rounds, found = [RoundRecord.model_validate(r) for r in run["rounds"]], []
    for before, after in zip(rounds, rounds[1:], strict=False):
        assert before.review is not None
        base = before if before.review.base is None else rounds[before.review.base - 1]
        # Rounds measure with margins that controls certify, so each has one.
        floors = {m: -20.0 for m in ("critic.instruction_margin", "critic.pair_margin")}
        tried = [record.params for record in rounds[: before.round]]
        found += trespasses(base.params, after.params, most=most, floors=floors, tried=tried)
    return found


def _choose(reviewer: Any) -> None:
    from agent import session

    session.choose_reviewer = lambda *_: (reviewer, "given")  # type: ignore[assignment]


def _carried_out(reports: Path, config: dict[str, Any]) -> dict[str, Any]:
    from agent import runner
    from agent.config_file import check_config
    from agent.errors import ReviewerError

    wanted, holds, ending = check_config(config, source="here"), 0, None
    with suppress(ReviewerError):
        ending = runner.start(reports, wanted, "r", lambda event: None)
    while ending is None and holds < _MOST_HOLDS:
        holds += 1
        with suppress(ReviewerError):
            ending = runner.resume(reports, "r", lambda event: None)
    status = "held" if ending is None else ending.status
    return _looked_at(reports, wanted) | {"holds": holds, "status": status}


def _looked_at(reports: Path, wanted: Any) -> dict[str, Any]:
    from agent.money.database import RunDatabase
    from agent.money.ledger import Ledger
    from agent.store import RunStore

    store = RunStore.open(reports, "r")
    kept, rounds = store.load_run(), store.load_rounds()
    with RunDatabase(reports / "r" / "run.sqlite") as database:
        totals = Ledger(database).totals()
    asked = [r.review.learnings_path for r in rounds if r.review is not None]
    return {
        "rounds": [json.loads(r.model_dump_json()) for r in rounds],
        "reports": [store.read_text(path) for path in asked],
        "unmoved": {
            "config": kept.config == wanted.model_dump(mode="json"),
            "digest": kept.config_digest == wanted.digest(),
            "cap": (totals.limit_usd, kept.limit_usd) == (wanted.budget.limit_usd,) * 2,
            "price": kept.device_price_usd_per_hour == 0.05,
            "model": kept.engine is not None and kept.engine["model"] == "scripted",
            "folder": sorted(p.name for p in reports.iterdir() if p.is_dir()) == ["r"],
        },
        "spent": totals.possible <= totals.limit,
    }
