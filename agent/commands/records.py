"""Commands that show what is known of a run, or of this machine, and change nothing."""

from typing import Annotated

import typer

from agent.commands.options import CONFIG, REPORTS, Config, Json, Root, Run, put, resolve

Csv = Annotated[bool, typer.Option("--csv", help="Print every attempt as a line of CSV.")]


def status(run: Run, as_json: Json = False, reports: Root = REPORTS) -> None:
    """What a run does now, what it decided, and what it cost."""
    from agent import screens

    put(screens.status(reports, resolve(reports, run)), as_json=as_json)


def report(run: Run, as_json: Json = False, reports: Root = REPORTS) -> None:
    """Render a run's reports again from its records, and say where they are."""
    from agent import screens

    put(screens.report(reports, resolve(reports, run)), as_json=as_json)


def ledger(run: Run, as_json: Json = False, as_csv: Csv = False, reports: Root = REPORTS) -> None:
    """What was spent and what may be, by stage and round, under each cap, and for each row."""
    from agent import ledger_screen
    from agent.errors import ConfigError

    if as_json and as_csv:
        raise ConfigError("--json and --csv exclude each other: choose one")
    name = resolve(reports, run)
    if as_csv:
        print(ledger_screen.attempts_csv(reports, name), end="")
    else:
        put(ledger_screen.ledger(reports, name), as_json=as_json)


def doctor(config: Config = CONFIG, as_json: Json = False, reports: Root = REPORTS) -> None:
    """Check configuration, model, device, price, reviewer and disk, without spending."""
    from agent.doctor import examine

    findings = examine(config, reports)
    put(findings, as_json=as_json)
    raise typer.Exit(0 if all(f["ok"] for f in findings.data["checks"]) else 2)
