"""The house: imports point one way, one file knows LangGraph, the README maps every file."""

import ast
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = {"prompts": 0, "pipeline": 1, "agent": 2}
HEAVY = {"torch", "transformers", "scipy", "pyarrow", "matplotlib", "numpy", "openai", "yaml"}
SOURCES = sorted(p for name in LAYERS for p in (ROOT / name).rglob("*.py"))


def imports(tree: ast.AST) -> list[str]:
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
    return [name.split(".")[0] for name in names]


def at_module_level(tree: ast.Module) -> list[str]:
    plain = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
    return [name for node in plain for name in imports(ast.Module([node], []))]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_source_file(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "a module docstring says what the file is for"
    layer = LAYERS[path.relative_to(ROOT).parts[0]]
    upwards = [name for name in imports(tree) if LAYERS.get(name, layer) > layer]
    assert upwards == [], "imports point from agent to pipeline to prompts"
    if path != ROOT / "agent" / "graph.py":
        assert "langgraph" not in imports(tree)
    assert HEAVY.isdisjoint(at_module_level(tree)), "heavy packages are imported where used"


def test_the_readme_maps_every_file() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    mapped = set(re.findall(r"^\| `((?:agent|pipeline|prompts)/[^`]+\.py)` \|", text, re.MULTILINE))
    assert mapped == {str(p.relative_to(ROOT)) for p in SOURCES if p.name != "__init__.py"}


def test_the_readme_draws_the_compiled_graph() -> None:
    from agent.graph import diagram

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    drawn = text.split("```mermaid\n")[1].split("```")[0]
    assert drawn.strip() == diagram().strip()


def test_the_readme_states_every_exit_code() -> None:
    from agent import errors
    from agent.policy import EXIT_CODES
    from agent.runner import DRAINED, WAITING

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    raised = {getattr(errors, name).exit_code for name in errors.__all__}
    assert table == {*EXIT_CODES.values(), *raised, WAITING, DRAINED}


def test_help_answers_in_half_a_second() -> None:
    command = [sys.executable, "-m", "agent", "--help"]
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 0.5


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, agent.__main__; print(*sys.modules)"
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert HEAVY.isdisjoint(out.stdout.split())
