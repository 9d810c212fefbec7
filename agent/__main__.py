"""The command line: parses, calls one function, prints, and turns errors into exit codes.

The only place that catches errors. Results go to standard output, progress and errors to standard
error, so that ``--json`` can be piped. Everything heavy is imported by the command that needs it,
so that ``--help`` answers at once.
"""

import io
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from agent.errors import AgentError, ConfigError, StorageError
from prompts.render import plain

HELP = """Finds, proves and prices the settings with which a base language model writes
instruction-tuning data, asks once, then writes it.

Exit codes: 0 done; 1 done, but short of rows or QC over the union failed (qc: a metric fails or is
insufficient); 2 bad input; 3 waiting for approval; 4 budget used up; 5 rounds used up; 6 the
reviewer says stop; 7 nothing left to change; 8 rejected; 9 the run holds, the reviewer gave no
usable answer; 10 the engine failed; 11 another process works on the run; 12 disk full; 130
interrupted."""

app = typer.Typer(
    name="agent",
    help=HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Run = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or `last`.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Config = Annotated[Path, typer.Option("--config", metavar="FILE", help="The configuration.")]
Root = Annotated[Path, typer.Option("--reports", metavar="DIR", help="Where runs are kept.")]
Shortfall = Annotated[
    bool, typer.Option("--accept-shortfall", help="Approve a plan that promises fewer rows.")
]
Examples = Annotated[
    int | None,
    typer.Option(
        "--examples", min=1, max=10_000_000, help="Rows wanted; left out, as budget.yaml says."
    ),
]

CONFIG, REPORTS = Path("budget.yaml"), Path("reports")
INTERRUPTED = 130


@app.command()
def run(
    budget: Annotated[
        float | None, typer.Option("--budget", metavar="USD", help="The cap on everything.")
    ] = None,
    config: Config = CONFIG,
    run_id: Annotated[str | None, typer.Option(help="A name for the run.")] = None,
    as_json: Json = False,
    reports: Root = REPORTS,
) -> None:
    """Pilot, measure, review, repeat; stop at the approval of a plan."""
    from agent import runner
    from agent.config_file import load_config
    from agent.display import open_display

    settings = load_config(config, limit_usd=budget)
    name = run_id or runner.make_run_id()
    with open_display() as display:
        ending = runner.start(reports, settings, name, display.show)
    _end(ending, reports, as_json=as_json)


@app.command()
def resume(run: Run, as_json: Json = False, reports: Root = REPORTS) -> None:
    """Go on with a run that was interrupted, holds, or was killed."""
    from agent import runner
    from agent.display import open_display

    name = _run_id(reports, run)
    with open_display() as display:
        ending = runner.resume(reports, name, display.show)
    _end(ending, reports, as_json=as_json)


@app.command()
def status(run: Run, as_json: Json = False, reports: Root = REPORTS) -> None:
    """What a run does now, what it decided, and what it cost."""
    from agent import screens

    _print(screens.status(reports, _run_id(reports, run)), as_json=as_json)


@app.command()
def plan(
    run: Run, examples: Examples = None, as_json: Json = False, reports: Root = REPORTS
) -> None:
    """Offer the plan for a number of rows: its yield, time, maximum cost and hash."""
    from agent import runner, screens

    name = _run_id(reports, run)
    _print(screens.plan(reports, name, runner.offer(reports, name, examples)), as_json=as_json)


@app.command()
def approve(
    run: Run,
    plan: Annotated[str | None, typer.Option(metavar="HASH", help="The plan's hash.")] = None,
    examples: Annotated[
        int | None,
        typer.Option(min=1, max=10_000_000, help="Show the plan for so many rows, and ask."),
    ] = None,
    accept_shortfall: Shortfall = False,
    as_json: Json = False,
    reports: Root = REPORTS,
) -> None:
    """Say yes to exactly one plan, and let the run go on."""
    from agent import runner
    from agent.display import open_display

    name = _run_id(reports, run)
    if (plan is None) == (examples is None):
        raise ConfigError("approve takes exactly one of --plan HASH and --examples N")
    if plan is None:
        _ask(reports, name, examples)
        return
    with open_display() as display:
        ending = runner.approve(
            reports, name, plan, display.show, accept_shortfall=accept_shortfall
        )
    _end(ending, reports, as_json=as_json)


@app.command()
def reject(
    run: Run,
    reason: Annotated[str, typer.Option("--reason", help="Why; it is kept.")],
    as_json: Json = False,
    reports: Root = REPORTS,
) -> None:
    """Say no to the plan; the run ends, everything bought is kept."""
    from agent import runner
    from agent.display import open_display

    name = _run_id(reports, run)
    with open_display() as display:
        ending = runner.reject(reports, name, reason, display.show)
    _end(ending, reports, as_json=as_json)


@app.command()
def report(run: Run, as_json: Json = False, reports: Root = REPORTS) -> None:
    """Render a run's reports again from its records, and say where they are."""
    from agent import screens

    _print(screens.report(reports, _run_id(reports, run)), as_json=as_json)


@app.command()
def ledger(run: Run, as_json: Json = False, reports: Root = REPORTS) -> None:
    """What was spent, by stage and round: confirmed, possible, remaining."""
    from agent import screens

    _print(screens.ledger(reports, _run_id(reports, run)), as_json=as_json)


@app.command()
def doctor(config: Config = CONFIG, as_json: Json = False, reports: Root = REPORTS) -> None:
    """Check configuration, model, device, price, reviewer and disk, without spending."""
    from agent.doctor import examine

    findings = examine(config, reports)
    _print(findings, as_json=as_json)
    raise typer.Exit(0 if all(f["ok"] for f in findings.data["checks"]) else 2)


@app.command()
def qc(
    file: Annotated[Path, typer.Argument(help="JSONL or Parquet: instruction, response.")],
    rows: Annotated[
        Path | None, typer.Option(metavar="OUT", help="Write every row with its flags.")
    ] = None,
    require: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A metric that must be measured.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="Take thresholds from here.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Leave out the table on standard error.")
    ] = False,
) -> None:
    """The same QC on any file of rows: JSON on standard output, a table on standard error.

    Optional columns: raw (the text before cleaning) and finish_reason (eos, stop or length).
    """
    from agent import screens

    screen, passed = screens.quality(file, rows=rows, require=require or [], config=config)
    if not as_json:
        print(screen.text, file=sys.stderr)
    print(json.dumps(screen.data, ensure_ascii=False))
    raise typer.Exit(0 if passed else 1)


def _run_id(reports: Path, run: str) -> str:
    from agent.store import latest_run

    return latest_run(reports) if run == "last" else run


def _print(screen: Any, *, as_json: bool) -> None:
    print(json.dumps(screen.data, ensure_ascii=False) if as_json else screen.text)


def _end(ending: Any, reports: Path, *, as_json: bool) -> None:
    """Say how an invocation ended; on a terminal, ask for the approval that it waits for."""
    from agent import screens

    if ending.status == "waiting" and _at_terminal() and not as_json:
        _ask(reports, ending.run_id, None)
        return
    _print(screens.ending(reports, ending), as_json=as_json)
    raise typer.Exit(ending.exit_code)


def _at_terminal() -> bool:
    """Whether somebody can be asked; a stream that is closed is None."""
    return all(s is not None and s.isatty() for s in (sys.stdin, sys.stdout))


def _ask(reports: Path, run_id: str, examples: int | None) -> None:
    """Show a plan and ask for a yes; without a terminal there is nobody to ask."""
    from agent import runner, screens
    from agent.display import open_display

    if not _at_terminal():
        raise ConfigError(
            "there is no terminal to ask on: print the plan with "
            f"`python -m agent plan {run_id} --examples N`, then approve it with --plan HASH"
        )
    offered = runner.offer(reports, run_id, examples)
    print(screens.plan(reports, run_id, offered).text)
    if not _confirmed("Approve this plan, rows short of the target included?"
                      if offered.short else "Approve this plan?"):  # fmt: skip
        print("not approved; the run goes on waiting")
        raise typer.Exit(3)
    with open_display() as display:
        ending = runner.approve(
            reports, run_id, offered.hash, display.show, accept_shortfall=offered.short
        )
    _end(ending, reports, as_json=False)


def _confirmed(question: str) -> bool:
    """A person's yes; Ctrl-C and the end of input are a no."""
    try:
        return typer.confirm(question, default=False)
    except typer.Abort:
        print()
        return False


def main() -> None:
    """Run one command; an :class:`AgentError` becomes its message and its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app()
    except AgentError as error:
        print(f"error: {plain(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except SystemExit as stopped:
        if stopped.code == INTERRUPTED:
            print("interrupted; what was paid for is kept: resume the run", file=sys.stderr)
        raise
    except OSError as error:
        print(f"error: cannot write the output: {error.strerror or error}", file=sys.stderr)
        sys.exit(StorageError.exit_code)


if __name__ == "__main__":
    main()
