"""Templates found by name and rendered strictly; text of a model made safe to stand in them.

Templates are package data (``prompts/templates/*.j2``) and are only ever ours: values are
substituted, never compiled. An undefined name is an error, not an empty string. The one idea: a
model's text is data, so it enters through :func:`fence` or :func:`inline` and cannot end the
block that it stands in, hide characters, or grow without limit.
"""

import hashlib
import re
import unicodedata
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from jinja2 import Environment

_NAME: Final = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)*\.j2")
_HIDDEN_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cn", "Cs", "Zl", "Zp"})
_DRAWN_AS_NOTHING: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0d\uffa0\U000e0100-\U000e01ef]"
)
"""Letters and marks without a shape: a text can be hidden in them. Emoji need the last two
variation selectors."""


def render(name: str, **values: Any) -> str:
    """The text of template ``name`` (such as ``learnings.md.j2``) with ``values`` in it.

    Raises:
        jinja2.UndefinedError: if the template uses a name that is not given.
        LookupError: if there is no such template.
    """
    return _environment().get_template(name).render(**values)


def render_blocks(name: str, **values: Any) -> dict[str, str]:
    """The text of each top-level block of template ``name``, in order, with ``values`` in it.

    Raises:
        jinja2.UndefinedError: if a block uses a name that is not given.
        LookupError: if there is no such template.
    """
    template = _environment().get_template(name)
    return {
        block: "".join(draw(template.new_context(values)))
        for block, draw in template.blocks.items()
    }


def digest(name: str) -> str:
    """SHA-256 of the source of template ``name``."""
    return hashlib.sha256(_source(name).encode()).hexdigest()


def plain(text: str, limit: int = 2000) -> str:
    """``text`` cut to ``limit`` characters, hidden and control characters shown as code points."""
    shown = "".join(map(_visible, text[:limit]))
    if len(text) > limit:
        shown += f" ⟨{len(text) - limit:,} of {len(text):,} characters cut⟩"
    return shown


def fence(text: str, limit: int = 2000, info: str = "text") -> str:
    """``text`` in a Markdown code fence that nothing inside it can close."""
    shown = plain(text, limit)
    runs = [len(run) for run in re.findall("`+", shown)]
    ticks = "`" * max([3, *(run + 1 for run in runs)])
    return f"{ticks}{info}\n{shown}\n{ticks}"


def inline(text: str, limit: int = 200) -> str:
    r"""``text`` on one line, line breaks shown as ``\n``; for lists and headings of ours."""
    return plain(text, limit).replace("\n", "\\n").replace("\t", "\\t")


def cell(text: str, limit: int = 200) -> str:
    """``text`` for a cell of a Markdown table: on one line, and inert between its pipes."""
    return re.sub(r"([\\|`<>*_\[\]])", r"\\\1", inline(text, limit))


def _visible(char: str) -> str:
    hidden = unicodedata.category(char) in _HIDDEN_CATEGORIES or _DRAWN_AS_NOTHING.match(char)
    if char in "\n\t" or not hidden:
        return char
    return f"⟨U+{ord(char):04X}⟩"


def _source(name: str) -> str:
    file = resources.files("prompts") / "templates" / name
    if not _NAME.fullmatch(name) or not file.is_file():
        raise LookupError(f"no template named {name!r} in prompts/templates")
    return file.read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _environment() -> "Environment":
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(_source),
        undefined=StrictUndefined,
        autoescape=False,  # output is Markdown and prompts; model text goes through the filters
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(cell=cell, fence=fence, inline=inline, plain=plain)
    return environment
