"""``python -m benchmarks.engine``: run the comparison, print it, and write both files."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.engine import linear, random_model, report
from benchmarks.engine.child import Report, Round, Worker
from benchmarks.engine.contenders import NAMES, OURS, Absent
from benchmarks.engine.host import ROOT, Wish, prepare_host
from benchmarks.engine.results import Entry, figures, floors
from benchmarks.engine.setup import Setup
from pipeline.engine.local.threads import wait_politely
from pipeline.errors import AgentError

_QUICK_ROWS = 8


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print, write; the exit code."""
    options = _options(arguments)
    wait_politely()
    try:
        found = _compare(options)
    except (AgentError, Absent) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    page, data = report.write(found, options.out)
    print(page.read_text(encoding="utf-8"))
    print(f"written: {page} and {data}")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__)
    add = parser.add_argument
    add("--model", default="embedded", help="embedded, or a folder with safetensors")
    add("--random-weights", choices=random_model.SIZES, help="make a model of this size instead")
    add("--device", default="auto", help="auto, cpu or cuda:N")
    add("--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"])
    add("--threads", type=int, help="CPU threads of every contender; torch chooses")
    add("--contenders", default=",".join(NAMES), type=_letters,
        help="; ".join(f"{key}: {name}" for key, name in NAMES.items()))  # fmt: skip
    add("--rounds", type=int, default=3, help="0 measures nothing but --linear")
    add("--rows", type=int, default=96, help="rows in each phase")
    add("--sequential-rows", type=int, default=8, help="rows that contender a does")
    add("--peer-scores", action="store_true", help="let llama.cpp score, token by token")
    add("--linear", action="store_true", help="also measure ten times the rows")
    add("--quick", action="store_true", help="one round of 8 rows on a tiny model: does it run?")
    add("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder for the files")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rows, options.rounds = _QUICK_ROWS, min(options.rounds, 1)
        if options.model == "embedded" and options.random_weights is None:
            options.random_weights = "tiny"
    return options


def _letters(text: str) -> list[str]:
    found = [letter for letter in text.split(",") if letter]
    if unknown := [letter for letter in found if letter not in NAMES]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r}; expected some of {','.join(NAMES)}")
    return found


def _compare(options: argparse.Namespace) -> report.Comparison:
    wish = Wish(
        options.model, options.random_weights, options.device, options.dtype, options.threads,
        options.rows, options.sequential_rows, options.peer_scores, options.quick,
    )  # fmt: skip
    setup, host = prepare_host(wish)
    _say(f"{host.name}, {host.model} in {host.dtype}, {host.threads} threads")
    entries = _rounds(options.contenders, setup, options.rounds) if options.rounds else ()
    ours = next((entry for entry in entries if entry.key == OURS), None)
    return report.Comparison(
        host=host,
        rows=setup.rows,
        rounds=options.rounds,
        entries=entries,
        figures=tuple(figures(entry, ours) for entry in entries),
        floors=tuple(floors(ours, host.weights, host.rates) if ours else ()),
        linear=linear.measure(setup) if options.linear else None,
    )


def _rounds(keys: Sequence[str], setup: Setup, count: int) -> tuple[Entry, ...]:
    """Load every contender, then let them work in turn.

    A processor's memory is for all: they load side by side. On a GPU each waits for the one before.
    """
    workers = {key: Worker(key, setup) for key in keys if not setup.on_cuda}
    reports: dict[str, list[Report]] = {key: [] for key in keys}
    absent: dict[str, str] = {}
    try:
        for number in range(-1, count):
            for key in [key for key in keys if key not in absent]:
                if key not in workers:
                    workers[key] = Worker(key, setup)
                try:
                    _turn(workers[key], key, number, reports[key])
                except Absent as reason:
                    absent[key] = str(reason)
                    _say(f"{key} is absent: {reason}")
    finally:
        for worker in workers.values():
            worker.close()
    return tuple(Entry(key, absent.get(key), tuple(reports[key])) for key in keys)


def _turn(worker: Worker, key: str, number: int, reports: list[Report]) -> None:
    """One turn of one contender; turn -1 is its loading."""
    if number < 0:
        worker.answer()
        return _say(f"{key} is ready: {NAMES[key]}")
    reports.append(worker.ask(Round(number)))
    phases = ", ".join(f"{p.name} {p.seconds:.2f} s" for p in reports[-1].phases)
    _say(f"round {number + 1}, {key}: {phases}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
