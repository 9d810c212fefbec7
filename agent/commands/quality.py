"""Commands that measure: files of rows, without a run."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer


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
    from agent.quality import check

    screen, passed = check(file, rows=rows, require=require or [], config=config)
    if not as_json:
        print(screen.text, file=sys.stderr)
    print(json.dumps(screen.data, ensure_ascii=False))
    raise typer.Exit(0 if passed else 1)
