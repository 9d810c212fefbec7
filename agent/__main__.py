"""The command line: parses, calls one function, prints, and turns errors into exit codes.

The only place that catches errors. Results go to standard output, progress and errors to standard
error, so that ``--json`` can be piped. Everything heavy is imported by the command that needs it,
so that ``--help`` answers at once.
"""

import io
import sys
from contextlib import suppress

from agent import signals

if __name__ == "__main__":
    signals.catch()

import typer

from agent.commands import quality, records, replay, reviewers, runs, verify
from agent.errors import AgentError, StorageError
from prompts.render import plain

HELP = """Finds, proves and prices the settings with which a base language model writes
instruction-tuning data, asks once, then writes it.

Exit codes: 0 done; 1 done, but short of rows or QC over the union failed (qc: a metric fails or is
insufficient; verify: something differs); 2 bad input; 3 waiting for approval; 4 budget used up;
5 rounds used up; 6 the reviewer says stop; 7 nothing left to change; 8 rejected; 9 the run holds,
the reviewer gave no usable answer; 10 the engine failed; 11 another process works on the run; 12
disk full; 130 interrupted."""

app = typer.Typer(
    name="agent",
    help=HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

INTERRUPTED = 130

for command in (
    runs.run, runs.resume, records.status, runs.plan, runs.approve, runs.reject,
    records.report, records.ledger, verify.verify, quality.qc, quality.forecast, replay.whatif,
    reviewers.reviewers, records.doctor,
):  # fmt: skip
    app.command()(command)


def main() -> None:
    """Run one command; an :class:`AgentError` becomes its message and its exit code."""
    signals.catch(at_prompts=True)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app()
    except AgentError as error:
        _say(f"error: {plain(str(error))}")
        sys.exit(error.exit_code)
    except SystemExit as stopped:
        if stopped.code == INTERRUPTED:
            _say("interrupted; what was paid for is kept: resume the run")
        raise
    except OSError as error:
        _say(f"error: cannot write the output: {error.strerror or error}")
        sys.exit(INTERRUPTED if signals.hung_up.is_set() else StorageError.exit_code)
    finally:
        if signals.hung_up.is_set():
            signals.let_go_of_output()


def _say(text: str) -> None:
    """Tell the person; whoever has left is not told, and that changes nothing."""
    with suppress(OSError):
        print(text, file=sys.stderr)


if __name__ == "__main__":
    main()
