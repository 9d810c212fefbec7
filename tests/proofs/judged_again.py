"""Rounds of a stored run judged again while the words of their reviews are others.

``tests/proofs/forked.py`` calls :func:`judge` in a process of its own, on a copy of a run that
waits for approval. What is asked of the program there is what it did when the run was made.
"""

import random
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

from hostile_runs import MEMORY, said

RUN: Final = "r"


def judge(waiting: Path, asked: dict[str, Any]) -> list[dict[str, Any]]:
    """Judge ``pairs`` rounds again, seeded from ``first``; each answer says what differs."""
    from agent.session import open_session

    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        shutil.copytree(waiting, folder, dirs_exist_ok=True)
        with open_session(Path(folder), RUN) as session:
            rounds = session.store.load_rounds()
            numbers = range(asked["first"], asked["first"] + asked["pairs"])
            return [_pair(session, rounds, number) for number in numbers]


def _pair(session: Any, rounds: Any, number: int) -> dict[str, Any]:
    """One round judged under other words, and under those that it was judged under."""
    from agent.stages import measuring, pilot

    rng = random.Random(f"pair/{number}")
    chosen = rng.randrange(len(rounds))
    place = pilot.Place(
        rounds[chosen].round,
        pilot.keep_params(session, rounds[chosen].params),
        rounds[chosen].micro_batches,
    )
    for record in rounds:
        session.store.save_round(_in_other_words(record, rng.randrange(10**9)))
    decision = measuring.judge(session, place, lambda event: None)
    again = session.store.load_rounds()[chosen]
    mine = [again.metrics, again.certificates, again.step, again.reason, again.forecast]
    was = rounds[chosen]
    theirs = [was.metrics, was.certificates, was.step, was.reason, was.forecast]
    return {
        "differ": mine != theirs or (decision.step, decision.reason) != (was.step, was.reason),
        "step": decision.step.value,
        "verdicts": sum(m["verdict"] is not None for m in again.metrics),
    }


def _in_other_words(record: Any, words: int) -> Any:
    if record.review is None:
        return record
    changes = {c.parameter: c.value for c in record.review.review.changes}
    review = said(changes, words, record.round)
    return record.model_copy(
        update={"review": record.review.model_copy(update={"review": review, "reviewer": "x"})}
    )
