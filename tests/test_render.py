"""prompts/render.py: strict templates, and model text that cannot leave its block."""

import re
from importlib import resources

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jinja2 import UndefinedError

from prompts import render as module
from prompts.render import digest, fence, inline, plain, render


@pytest.fixture
def template(monkeypatch: pytest.MonkeyPatch):
    """Let ``render`` see templates given as text."""

    def put(source: str) -> str:
        monkeypatch.setattr(module, "_source", lambda name: source)
        module._environment.cache_clear()
        return "given.j2"

    yield put
    monkeypatch.undo()
    module._environment.cache_clear()


def test_values_are_substituted_and_never_compiled(template):
    name = template("{{ text }}\n")
    assert render(name, text="{{ 7 * 7 }}{% raw %}<b>") == "{{ 7 * 7 }}{% raw %}<b>\n"


def test_an_undefined_name_is_an_error(template):
    name = template("{{ absent }}")
    with pytest.raises(UndefinedError, match="absent"):
        render(name)


def test_blocks_leave_no_blank_lines(template):
    name = template("{% for x in xs %}\n  {% if x %}\n{{ x }}\n  {% endif %}\n{% endfor %}end\n")
    assert render(name, xs=[1, 0, 2]) == "1\n2\nend\n"


@pytest.mark.parametrize("name", ["../render.py", "/etc/passwd", "absent.j2", "", "x/../y.j2"])
def test_only_templates_are_found(name):
    with pytest.raises(LookupError, match="no template named"):
        digest(name)


def test_every_template_compiles_and_has_a_digest():
    for file in (resources.files("prompts") / "templates").iterdir():
        assert module._environment().get_template(file.name)
        assert re.fullmatch("[0-9a-f]{64}", digest(file.name))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", "⟨U+001B⟩[31mred"),
        ("a\r\nb\tc", "a⟨U+000D⟩\nb\tc"),
        ("right\u202eleft", "right⟨U+202E⟩left"),
        ("tag\U000e0041", "tag⟨U+E0041⟩"),
        ("\ud800", "⟨U+D800⟩"),
        ("line\u2028line", "line⟨U+2028⟩line"),
        ("no\u3164thing\ufe01", "no⟨U+3164⟩thing⟨U+FE01⟩"),
        ("heart \u2764\ufe0f", "heart \u2764\ufe0f"),
        ("\U000e0101\U000e0fff\ufffe", "⟨U+E0101⟩⟨U+E0FFF⟩⟨U+FFFE⟩"),
        ("naïve 漢字 🙂", "naïve 漢字 🙂"),
    ],
)
def test_hidden_characters_are_shown(text, shown):
    assert plain(text) == shown


def test_a_cut_is_marked_with_what_is_missing():
    assert plain("x" * 10_000, limit=3) == "xxx ⟨9,997 of 10,000 characters cut⟩"
    assert plain("xxx", limit=3) == "xxx"


def test_inline_stays_on_one_line():
    assert inline("a\nb\tc") == "a\\nb\\tc"


@given(st.text("`` ~\nx") | st.text())
@example("```\nout")
@example("a\n`````\n# b")
def test_a_fence_is_closed_by_its_own_last_line_only(text):
    first, *body, last = fence(text).split("\n")
    ticks = first.removesuffix("text")
    assert last == ticks
    assert not any(line.strip(" \t").startswith(ticks) for line in body)
    assert "\n".join(body) == plain(text)
