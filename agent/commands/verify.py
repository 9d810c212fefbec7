"""The command that checks a run offline, from its rows and its books."""

from typing import Annotated

import typer

from agent.commands.options import REPORTS, Json, Root, Run, put, resolve


def verify(
    run: Run,
    detectors: Annotated[
        bool,
        typer.Option("--detectors", help="Also clean every response and look for its flags again."),
    ] = False,
    as_json: Json = False,
    reports: Root = REPORTS,
) -> None:
    """Check every figure of a run from its raw rows and its ledger, and say what differs.

    Offline, without lock, model, network or key, also in a copied or read-only folder; nothing is
    changed. Artifacts and ledger carry hashes; records, plan, data set, reports and pictures are
    made again from them in memory and compared byte for byte. What cannot be compared, such as a
    picture that another matplotlib drew, is counted as left out. Exit code 0: nothing differs; 1:
    something differs; 2: there is no such run.
    """
    from agent.verify import screen as screens
    from agent.verify.check import verify as check

    found = check(reports, resolve(reports, run), detectors=detectors)
    put(screens.screen(found), as_json=as_json)
    raise typer.Exit(1 if found.differing else 0)
