"""Commands that let a run work, and the approval that it stops for.

Everything heavy is imported by the command that needs it, so that ``--help`` answers at once.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from agent.commands.options import (
    CONFIG,
    REPORTS,
    AcceptNeed,
    Config,
    Examples,
    Json,
    Root,
    Run,
    Shortfall,
    put,
    resolve,
)
from agent.errors import ConfigError


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


def resume(run: Run, as_json: Json = False, reports: Root = REPORTS) -> None:
    """Go on with a run that was interrupted, holds, or was killed."""
    from agent import runner
    from agent.display import open_display

    name = resolve(reports, run)
    with open_display() as display:
        ending = runner.resume(reports, name, display.show)
    _end(ending, reports, as_json=as_json)


def plan(
    run: Run, examples: Examples = None, as_json: Json = False, reports: Root = REPORTS
) -> None:
    """Offer the plan for a number of rows: its yield, time, maximum cost and hash."""
    from agent import runner, screens

    name = resolve(reports, run)
    put(screens.plan(reports, name, runner.offer(reports, name, examples)), as_json=as_json)


def approve(
    run: Run,
    plan: Annotated[str | None, typer.Option(metavar="HASH", help="The plan's hash.")] = None,
    examples: Annotated[
        int | None,
        typer.Option(min=1, max=10_000_000, help="Show the plan for so many rows, and ask."),
    ] = None,
    accept_shortfall: Shortfall = False,
    accept_need: AcceptNeed = False,
    as_json: Json = False,
    reports: Root = REPORTS,
) -> None:
    """Say yes to exactly one plan, and let the run go on."""
    from agent import runner
    from agent.display import open_display

    name = resolve(reports, run)
    if (plan is None) == (examples is None):
        raise ConfigError("approve takes exactly one of --plan HASH and --examples N")
    if plan is None:
        _ask(reports, name, examples)
        return
    with open_display() as display:
        ending = runner.approve(
            reports, name, plan, display.show,
            accept_shortfall=accept_shortfall, accept_need=accept_need,
        )  # fmt: skip
    _end(ending, reports, as_json=as_json)


def reject(
    run: Run,
    reason: Annotated[str, typer.Option("--reason", help="Why; it is kept.")],
    as_json: Json = False,
    reports: Root = REPORTS,
) -> None:
    """Say no to the plan; the run ends, everything bought is kept."""
    from agent import runner
    from agent.display import open_display

    name = resolve(reports, run)
    with open_display() as display:
        ending = runner.reject(reports, name, reason, display.show)
    _end(ending, reports, as_json=as_json)


def _end(ending: Any, reports: Path, *, as_json: bool) -> None:
    """Say how an invocation ended; on a terminal, ask for the approval that it waits for."""
    from agent import screens

    if ending.status == "waiting" and _at_terminal() and not as_json:
        _ask(reports, ending.run_id, None)
        return
    put(screens.ending(reports, ending), as_json=as_json)
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
    if not _confirmed(_question(offered)):
        print("not approved; the run goes on waiting")
        raise typer.Exit(3)
    with open_display() as display:
        ending = runner.approve(
            reports, run_id, offered.hash, display.show,
            accept_shortfall=offered.short, accept_need=bool(offered.need),
        )  # fmt: skip
    _end(ending, reports, as_json=False)


def _question(offered: Any) -> str:
    """What a yes would accept, in words."""
    warnings = ["rows short of the target"] if offered.short else []
    warnings += ["the warning about the need"] if offered.need else []
    return f"Approve this plan, {' and '.join(warnings)} included?" if warnings else (
        "Approve this plan?"
    )  # fmt: skip


def _confirmed(question: str) -> bool:
    """A person's yes; Ctrl-C and the end of input are a no."""
    try:
        return typer.confirm(question, default=False)
    except typer.Abort:
        print()
        return False
