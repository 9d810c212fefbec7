"""A process that reserves, posts, voids, repeats itself and opens envelopes, until it is killed.

Run as ``racer.py FOLDER NAME GENERATION TURNS LARGEST_POST``. What it was told was done it writes
down, line by line and outside the ledger, so that the proof can hold the ledger to it.
"""

import os
import random
import sys
from collections.abc import Callable
from pathlib import Path

from agent.errors import BudgetError, LedgerError
from agent.money.database import RunDatabase
from agent.money.ledger import Ledger

STAGES = ("preflight", "pilot", "review", "scale")
MOST_HELD = 4
LARGEST = 20_000
"""Micro-dollars of a reservation."""


class Racer:
    """One process at a ledger that others work at too."""

    def __init__(self, folder: Path, name: str, generation: int, largest_post: int) -> None:
        self.name = f"{name}-{generation}"
        self.largest_post = largest_post
        self.chance = random.Random(self.name)
        self.log = os.open(folder / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.ledger = Ledger(RunDatabase(folder / "run.sqlite"))
        mine = [row for row in self.ledger.rows() if row.op_id.startswith(f"{name}-")]
        # What a killed one of the same name left is taken over.
        self.held = [(r.op_id, r.worst_case) for r in mine if r.state == "pending"]
        opened = self.ledger.database.query(
            "SELECT id FROM envelopes WHERE state = 'open' AND id LIKE ?", (f"{name}-%",)
        )
        self.envelope: str | None = opened[0]["id"] if opened else None
        self.repeat: Callable[[], None] = lambda: None
        self.say("start", generation)

    def say(self, *words: object) -> None:
        os.write(self.log, (" ".join(map(str, words)) + "\n").encode("ascii"))

    def turn(self, number: int) -> None:
        self.say("turn", number)
        acts = (self.reserve, self.post, self.void, self.duplicate, self.contradict, self.set_aside)
        self.chance.choices(acts, (40, 22, 12, 12, 4, 10))[0](number)
        totals = self.ledger.totals()
        assert totals.possible <= totals.limit, totals

    def reserve(self, number: int) -> None:
        if len(self.held) >= MOST_HELD:
            return self.post(number)
        op_id, worst = f"{self.name}.{number}", self.chance.randint(1, LARGEST)
        stage, envelope = self.chance.choice(STAGES), None
        if self.envelope is not None and self.chance.random() < 0.6:
            stage, envelope = "scale", self.envelope

        def act() -> None:
            self.ledger.reserve(op_id, worst, stage=stage, round=1, envelope=envelope)

        try:
            act()
        except BudgetError:
            self.say("refused")
            return
        self.say("reserve", op_id, worst)
        self.held.append((op_id, worst))
        self.repeat = act

    def post(self, number: int) -> None:
        if not self.held:
            return
        op_id, worst = self.held.pop(self.chance.randrange(len(self.held)))
        actual = self.chance.randint(0, min(worst, self.largest_post))
        self.repeat = lambda: self.ledger.post(op_id, actual, engine_seconds=0.5)
        self.repeat()
        self.say("post", op_id, actual)

    def void(self, number: int) -> None:
        if not self.held:
            return
        op_id, _ = self.held.pop()
        self.repeat = lambda: self.ledger.void(op_id)
        self.repeat()
        self.say("void", op_id)

    def duplicate(self, number: int) -> None:
        """The same again, as after an answer that was lost."""
        self.repeat()

    def contradict(self, number: int) -> None:
        for act in (
            lambda: self.ledger.post("nobody", 1),
            lambda: self.ledger.void("nobody"),
            lambda: self.ledger.reserve(f"{self.name}.x", 1, stage="scale", envelope="none"),
        ):
            try:
                act()
            except LedgerError:
                continue
            raise AssertionError("a contradiction was booked")

    def set_aside(self, number: int) -> None:
        """Open an envelope, or settle what is left in the open one and close it."""
        if self.envelope is None:
            name = f"{self.name}.plan{number}"
            try:
                self.ledger.reserve_envelope(name, self.chance.randint(1, 2 * LARGEST))
            except BudgetError:
                self.say("refused")
            else:
                self.envelope = name
            return
        while self.held:
            self.post(number)
        self.ledger.close_envelope(self.envelope)
        self.envelope = None


def main() -> None:
    folder, name, generation, turns, largest_post = sys.argv[1:]
    racer = Racer(Path(folder), name, int(generation), int(largest_post))
    for number in range(int(turns)):
        racer.turn(number)


if __name__ == "__main__":
    main()
