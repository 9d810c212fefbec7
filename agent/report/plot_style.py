"""How the pictures look: figure, colours, axes, and the way to PNG bytes.

What is drawn is decided in ``plots.py``. The one idea: matplotlib draws with Agg alone, without the
state of pyplot and the settings of the user, so that the same records give the same bytes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH: Final = 7.2
"""Inches; 1,440 pixels, which a page shows at about 700."""
INK: Final = "#24292f"
GREY: Final = "#8c959f"
LINES: Final = "#d8dee4"
BLUE: Final = "#0072b2"
ORANGE: Final = "#d55e00"
YELLOW: Final = "#e69f00"
DASHES: Final = (0, (4, 2))
HATCHED: Final[dict[str, Any]] = {"hatch": "///", "edgecolor": "white", "linewidth": 0}
"""A bar that differs from its neighbour without colour."""
MARKER: Final[dict[str, Any]] = {"markersize": 6, "linestyle": "none"}
"""A point that stands alone."""
BEHIND: Final[Any] = {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.6}
"""What keeps words legible on top of a line."""
STYLE: Final[Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 8,
    "axes.titleweight": "bold",
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "hatch.linewidth": 1.0,
}


@contextmanager
def figure(height: float) -> Iterator["Figure"]:
    """A figure of ``height`` inches in this style, whatever the user's own matplotlibrc says."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        drawn = Figure(figsize=(WIDTH, height), dpi=200, layout="constrained")
        FigureCanvasAgg(drawn)
        yield drawn


def png(drawn: "Figure") -> bytes:
    """The picture as bytes, without a date, and with what drew it: others draw other bytes."""
    import matplotlib

    buffer = BytesIO()
    software = f"matplotlib {matplotlib.__version__}"
    drawn.savefig(buffer, format="png", metadata={"Software": software})
    return buffer.getvalue()


def titled(axes: "Axes", left: str, right: str = "") -> None:
    """A bold title at the left, plain words at the right, and a quiet horizontal grid."""
    axes.set_title(left, loc="left")
    axes.set_title(right, loc="right", fontweight="normal")
    axes.grid(axis="y", color=LINES, linewidth=0.6)


def nothing(axes: "Axes", words: str) -> None:
    """An empty picture that says why it is empty."""
    axes.annotate(words, (0.5, 0.5), xycoords="axes fraction", ha="center", color=GREY)
    axes.set(xticks=[], yticks=[])


def note(axes: "Axes", x: float, words: str, *, height: float, left_of: bool = False) -> None:
    """Words beside a vertical line, at ``height`` from 0 to 1."""
    axes.annotate(
        f"{words} " if left_of else f" {words}",
        (x, height),
        xycoords=("data", "axes fraction"),
        va="top",
        ha="right" if left_of else "left",
    )


def label(axes: "Axes", point: tuple[float, float], words: str) -> None:
    """Small words at the right of a point, legible on top of a line."""
    drawn = axes.annotate(
        words, point, (7, 0), textcoords="offset points", va="center", fontsize=7.5
    )
    drawn.set_bbox(BEHIND)
    drawn.set_in_layout(False)


def round_axis(axes: "Axes", numbers: Sequence[int], *, room: float = 0.5) -> None:
    """Round numbers along the x axis, at most ten of them; ``room`` is left at the right."""
    from matplotlib.ticker import FixedLocator, FuncFormatter

    axes.xaxis.set_major_locator(FixedLocator(numbers[:: -(-len(numbers) // 10)]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0f}"))
    axes.set_xlim(numbers[0] - 0.5, numbers[-1] + room)


def value_axis(axes: "Axes", look: Callable[[float], str], *, whole: bool = False) -> None:
    """A few ticks along the y axis, worded by ``look``."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.yaxis.set_major_locator(MaxNLocator(4, min_n_ticks=2, integer=whole))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: look(v)))
