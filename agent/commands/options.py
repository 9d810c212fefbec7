"""What the commands share: their arguments and options, the run that is meant, and printing."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

Run = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or `last`.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Config = Annotated[Path, typer.Option("--config", metavar="FILE", help="The configuration.")]
Root = Annotated[Path, typer.Option("--reports", metavar="DIR", help="Where runs are kept.")]
Shortfall = Annotated[
    bool, typer.Option("--accept-shortfall", help="Approve a plan that promises fewer rows.")
]
AcceptNeed = Annotated[
    bool,
    typer.Option("--accept-need", help="Approve although it is not shown that the data is needed."),
]
Examples = Annotated[
    int | None,
    typer.Option(
        "--examples", min=1, max=10_000_000, help="Rows wanted; left out, as budget.yaml says."
    ),
]

CONFIG, REPORTS = Path("budget.yaml"), Path("reports")


def resolve(reports: Path, run: str) -> str:
    """The id of the run that is meant."""
    from agent.store import latest_run

    return latest_run(reports) if run == "last" else run


def put(screen: Any, *, as_json: bool) -> None:
    """Print an :class:`~agent.screens.Screen`: its text, or its facts as one JSON object."""
    print(json.dumps(screen.data, ensure_ascii=False) if as_json else screen.text)
