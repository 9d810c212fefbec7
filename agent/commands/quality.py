"""Commands that measure: files of rows, without a run."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from agent.commands.options import Json, put
from agent.errors import ConfigError


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
    critics: Annotated[
        bool, typer.Option("--critics", help="Have the base model judge every row, too.")
    ] = False,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The model that judges, with --critics.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Leave out the table on standard error.")
    ] = False,
) -> None:
    """The same QC on any file of rows: JSON on standard output, a table on standard error.

    Optional columns: raw (the text before cleaning) and finish_reason (eos, stop or length).
    """
    from agent.quality import check, settings

    if model is not None and not critics:
        raise ConfigError("--model names the model that judges: add --critics")
    screen, passed = check(
        file, settings(config, model=model), rows=rows, require=require or [], critics=critics
    )
    if not as_json:
        print(screen.text, file=sys.stderr)
    print(json.dumps(screen.data, ensure_ascii=False))
    raise typer.Exit(0 if passed else 1)


def forecast(
    file: Annotated[Path, typer.Argument(help="JSONL or Parquet in draw order: instruction.")],
    attempts: Annotated[
        int, typer.Option(min=1, max=1_000_000_000, metavar="N", help="Instructions drawn in all.")
    ],
    as_json: Json = False,
) -> None:
    """How many distinct instructions N draws will hold, from the draws in a file."""
    from agent.quality import foresee

    put(foresee(file, attempts), as_json=as_json)
