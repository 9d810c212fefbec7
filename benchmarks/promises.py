"""The table of promises in docs/RELIABILITY.md: ``python -m benchmarks.promises`` writes it anew.

What is promised stands here, what was measured last comes from ``results/promises.json``, which
``make proofs`` and ``make soak`` write. The one idea: a figure in the table was printed by a test
that passed, never typed.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "benchmarks" / "results" / "promises.json"
PAGE = ROOT / "docs" / "RELIABILITY.md"
BEGIN, END = "<!-- promises: written by python -m benchmarks.promises -->", "<!-- end -->"
SIZES = {"proof": "make proofs", "soak": "make soak"}
"""What measures each size."""


@dataclass(frozen=True, slots=True)
class Promise:
    """One thing that the program promises."""

    id: str
    """Its name in tests and figures."""
    words: str
    """What is promised."""
    proof: str
    """How it is put to the test; the count of ``make soak`` in parentheses."""


PROMISES = (
    Promise(
        "P1",
        "Possible spend (posted and pending) never exceeds the cap, nor a stage's own cap.",
        "8 processes x 1,000 (10,000) reservations, postings, voids and repeats with 40 SIGKILLs; "
        "an auditor replays every entry",
    ),
    Promise(
        "P2",
        "The ledger is what a model of a few lines says it is.",
        "500 (5,000) random histories of 50 steps, with crashes and reopening",
    ),
    Promise(
        "P3",
        "Spend is never under-counted.",
        "1,000 (10,000) requests to a provider that keeps its own bill and plays every kind of "
        "fault",
    ),
    Promise(
        "P4",
        "One retry layer: every request on the wire is one reservation, at most 4 a review.",
        "every fault of the provider, counted on both sides",
    ),
    Promise(
        "P5",
        "What is not known is refused or charged in full: model, price, usage.",
        "30 cases",
    ),
    Promise(
        "ledger",
        "The ledger costs little: 300 reserve-post pairs a second, under 1 % of a run's time.",
        "pairs on this machine's disk; the calls of a run, timed",
    ),
    Promise(
        "P6",
        "kill -9 anywhere; resume ends with the same rows and pays nothing twice.",
        "before and after every durable step that a run takes, 60 (500) random instants, 50 double "
        "crashes; the embedded model once",
    ),
    Promise(
        "P7",
        "What was acknowledged survives a power cut.",
        "the folder as a disk would hold it if whatever was not fsynced were lost, at every write; "
        "24 of them (all) resumed",
    ),
    Promise(
        "P8",
        "A full or failing disk corrupts nothing; the run goes on when there is space again.",
        "the k-th write, fsync, rename, open or commit fails, with three errors, for 50 k spread "
        "over a run (every k); file systems that are really full",
    ),
    Promise(
        "P9",
        "Little is done again: one micro-batch at most; a long run resumes at once.",
        "the kills of P6; a run of 15,000 rows",
    ),
    Promise(
        "P10",
        "One process works on a run; one that was taken for dead cannot write.",
        "2 and 8 processes resume at once, 200 times; a stopped one wakes up",
    ),
    Promise(
        "P11",
        "Checkpoints stay small and hold no samples.",
        "a run of 50 rounds; 64 KB each, 20 MB in all",
    ),
    Promise(
        "P12",
        "Damaged or hostile checkpoints never run code or mislead a run.",
        "hostile payloads; (1,000 bit flips)",
    ),
    Promise(
        "P13",
        "No reply of a reviewer crashes the loop or leaves the bounds.",
        "10,000 (100,000) malformed and hostile replies of every kind, cut at every byte, any JSON "
        "as any value; over HTTP; whole runs reviewed by nonsense",
    ),
    Promise(
        "P14",
        "Any fault of a network or server ends in 180 s at most, with a review or a hold.",
        "every fault at every place of a review, on real sockets, a drip feed and a gigabyte among "
        "them; the deadline scaled down, and at full length on a clock of our own",
    ),
    Promise(
        "P15",
        "Text in samples cannot widen what a review may do, even if the reviewer obeys it.",
        "300 (3,000) reports full of payloads, and whole runs on a model that writes them, with a "
        "reviewer that carries out every order it finds",
    ),
    Promise(
        "P16",
        "Pass or fail is code's alone. Words make nothing pass; naming a metric has it audited, "
        "and controls that refute it take its passes away.",
        "1,000 (10,000) judgements and 20 (200) whole runs, each beside one with the same changes "
        "and the reviewer's words swapped",
    ),
    Promise(
        "P17",
        "An approval covers exactly what was shown, once.",
        "every field of the plan changed; 200 double submits; expiry; 100 kills between yes and "
        "start",
    ),
    Promise(
        "P20",
        "Secrets stay out of files and output.",
        "a canary key through every fault; folder, databases and output searched",
    ),
    Promise(
        "P21",
        "Nothing is written outside the run's folder.",
        "1,000 hostile ids and paths",
    ),
    Promise(
        "P23",
        "SIGTERM leaves a durable state within 10 seconds.",
        "50 at random moments, engines that hang among them",
    ),
    Promise(
        "P25",
        "Anyone can check a run offline.",
        "1,000 (5,000) single-byte changes to files and ledger fields; a run of 15,000 rows, which "
        "should take 3 seconds",
    ),
    Promise(
        "P26",
        "The suite can see.",
        "15 rules broken on purpose, one after the other",
    ),
)


def figures() -> dict[str, dict[str, Any]]:
    """What was measured last, by test and promise."""
    found: dict[str, dict[str, Any]] = json.loads(FIGURES.read_text(encoding="utf-8"))
    return found


def table(measured: dict[str, dict[str, Any]]) -> str:
    """The promises as a Markdown table."""
    lines = [
        "| | promise | how it is proved | last measured | by |",
        "| --- | --- | --- | --- | --- |",
    ]
    for promise in PROMISES:
        mine = {name: found for name, found in measured.items() if found["promise"] == promise.id}
        said = "<br>".join(_cell(found["figure"]) for found in mine.values())
        by = "<br>".join(sorted({f"`{SIZES[f['effort']]}`, {f['on']}" for f in mine.values()}))
        lines.append(
            f"| {promise.id} | {promise.words} | {promise.proof} | {said or 'not measured'} | "
            f"{by or '-'} |"
        )
    return "\n".join(lines)


def page(text: str, measured: dict[str, dict[str, Any]]) -> str:
    """``text`` with the table between its marks written anew."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{table(measured)}\n\n{END}{after}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), figures()), encoding="utf-8")
