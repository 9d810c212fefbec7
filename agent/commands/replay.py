"""The command that asks stored rows about another setting."""

from typing import Annotated

import typer

from agent.commands.options import REPORTS, Json, Root, Run, put, resolve


def whatif(
    run: Run,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A parameter and its value as JSON, or a bare word; may be given several times.",
        ),
    ] = None,
    score: Annotated[
        bool,
        typer.Option(
            "--score", help="Score changed texts again, with the run's engine and budget."
        ),
    ] = False,
    as_json: Json = False,
    reports: Root = REPORTS,
) -> None:
    r"""Metrics of another setting from a run's stored rows, for $0: nothing is generated.

    Stop strings, a lower token cap, cleaning, detectors, critics and margins are applied exactly to
    the rows as they were drawn; what needs generation is refused by name. In bfloat16 a model that
    draws again writes some rows otherwise, at the same rates. Works while the run works, waits, or
    has ended. Exit code 1: no stored rows can answer.

    Example: whatif last --set response.stop='["\nInstruction"]' --set response.max_new_tokens=60
    """
    from agent import whatif_screen as screens

    name = resolve(reports, run)
    screen, answered = screens.whatif(reports, name, settings or [], score=score)
    put(screen, as_json=as_json)
    raise typer.Exit(0 if answered else 1)
