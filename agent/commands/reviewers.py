"""The command that holds reviewers to what they foretold, over all runs."""

from typing import Annotated

import typer

from agent.commands.options import REPORTS, Json, Root, put


def reviewers(
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Read the records of every run again.")
    ] = False,
    as_json: Json = False,
    reports: Root = REPORTS,
) -> None:
    """What every reviewer's predictions were worth, over all runs, and what it cost.

    A prediction is registered before its trial and scored after it: held or not, and by its Brier
    score (0 is best, 0.25 is a coin's, 1 is worst). Undone: reviews after which a round was
    significantly worse, so that their changes were taken back. A reviewer is judged in words only
    after 20 measured predictions. Works while runs work, and changes no run; what was read is kept
    in DIR/index.sqlite, which may be deleted at any time.
    """
    from agent import reviewers_screen as screens

    put(screens.reviewers(reports, rebuild=rebuild), as_json=as_json)
