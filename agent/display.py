"""What a person sees while a run works: a live panel on a terminal, plain lines elsewhere.

Both are drawn from the same small events that the graph's nodes send; neither asks the run for
anything, so a display can never hold a run up or change it. Text of a model is never shown here.
"""

import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol, Self

from agent.money.amounts import cap_to_micro, show_usd
from pipeline.types import Metric
from prompts.render import inline

Event = Mapping[str, Any]
"""What a node says: ``kind`` and figures. Kinds: phase, batch, decision, review,
replan, wave."""


class Display(Protocol):
    """Shows events; a context manager, so that a terminal is always given back clean."""

    def show(self, event: Event) -> None:
        """Take in one event."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def open_display() -> Display:
    """The live panel when standard error is a terminal, plain lines otherwise."""
    at_terminal = sys.stderr is not None and sys.stderr.isatty()
    return LiveDisplay() if at_terminal else PlainDisplay()


def one_line(event: Event) -> str:
    """An event in one line of plain text, whatever a reviewer or a person wrote into it."""
    return inline(_words(event), limit=2000)


def _words(event: Event) -> str:
    match event["kind"]:
        case "batch":
            speed = event["tokens"] / event["seconds"] if event["seconds"] else 0.0
            return (
                f"round {event['round']}  micro-batch {event['number'] + 1}  "
                f"{event['rows']} rows  {event['kept']} kept  {speed:.0f} tokens/s  "
                f"{_money(event)}  {_verdicts(event['metrics'])}  {_left(event)}"
            ).rstrip()
        case "wave":
            return (
                f"scale  wave {event['number'] + 1}  {_kept(event)}  "
                f"{event['attempts']} attempts  {_money(event)}  {_left(event)}"
            )
        case "review":
            return f"review by {event['reviewer']}: {event['diagnosis']}"
        case "decision":
            return f"{event['step'].lower().replace('_', ' ')}: {event['reason']}"
        case _:
            return str(event["text"])


def _kept(event: Event) -> str:
    kept, target = event["kept"], event["target"]
    spare = f", {kept - target} spare" if kept > target else ""
    return f"{min(kept, target)}/{target} rows kept{spare}"


def _money(event: Event) -> str:
    limit = event["limit_usd"]
    places = 4 if limit >= 0.01 else 6
    return f"${event['confirmed_usd']:.{places}f} of {show_usd(cap_to_micro(limit))}"


def _left(event: Event) -> str:
    seconds = event.get("seconds_left")
    return "" if seconds is None else f"about {duration(seconds)} left"


def _verdicts(metrics: list[Mapping[str, Any]]) -> str:
    counts = {v: sum(m["verdict"] == v for m in metrics) for v in ("PASS", "FAIL", "INSUFFICIENT")}
    return f"pass {counts['PASS']}  fail {counts['FAIL']}  open {counts['INSUFFICIENT']}"


def duration(seconds: float) -> str:
    """Seconds as people say them: 45 s, 12 min, 3.4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class PlainDisplay:
    """One line an event on standard error."""

    def show(self, event: Event) -> None:
        """Print the event; nobody may be there to read it any more, and the run goes on."""
        with suppress(OSError, RuntimeError):
            print(one_line(event), file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class LiveDisplay:
    """A panel that keeps the last figures in view, and prints what was decided above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(stderr=True)
        self._last: Event = {"kind": "phase", "text": "starting"}
        self._figures: Event | None = None
        self._since = time.monotonic()
        self._live = Live(self, console=self._console, refresh_per_second=4, transient=True)

    def show(self, event: Event) -> None:
        """Take in the event; decisions, reviews and re-plans stay on the screen."""
        if event["kind"] in ("decision", "review", "replan"):
            if event.get("step") != "CONTINUE":
                with suppress(OSError):  # the terminal may be gone, and the run goes on
                    self._console.print(one_line(event), markup=False, highlight=False)
        elif event["kind"] in ("batch", "wave"):
            self._figures = event
        self._last, self._since = event, time.monotonic()

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        waiting = duration(time.monotonic() - self._since)
        lines: list[Any] = [Text(f"{_doing(self._last)}  ({waiting})", style="bold")]
        if self._figures is not None:
            lines.append(Text(one_line(self._figures)))
            if self._figures["kind"] == "batch":
                lines.append(_metric_table(self._figures["metrics"]))
        lines.append(Text("Ctrl-C stops at the next border; the run can be resumed", style="dim"))
        return Group(*lines)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        with suppress(OSError):
            self._live.__exit__(*error)


def _doing(event: Event) -> str:
    match event["kind"]:
        case "batch":
            return f"round {event['round']}: next micro-batch"
        case "wave":
            return f"scale: wave {event['number'] + 2}"
        case "review":
            return "applying the review"
        case _:
            return one_line(event)


def _metric_table(metrics: list[Mapping[str, Any]]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    from agent.report.text import interval_of, threshold_of, value_of

    colours = {"PASS": "green", "FAIL": "red", "INSUFFICIENT": "yellow"}
    table = Table(box=None, padding=(0, 2))
    for heading in ("metric", "value", "interval", "wanted", "verdict"):
        table.add_column(heading, justify="left" if heading in ("metric", "verdict") else "right")
    for m in (Metric.from_json(m) for m in metrics):
        if m.verdict is None:
            continue
        verdict = f"[{colours[m.verdict]}]{m.verdict}[/]"
        interval = escape(interval_of(m))
        table.add_row(m.name, value_of(m), interval, threshold_of(m), verdict)
    return table
