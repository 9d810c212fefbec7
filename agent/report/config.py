"""A setting as a block of YAML to copy into budget.yaml, with every change commented.

JSON scalars are YAML scalars, so a value that a model chose cannot become structure.
"""

import json
from typing import Any

from pipeline.params import GenParams


def config_block(following: GenParams, before: GenParams) -> str:
    """The ``parameters:`` section of budget.yaml; a changed line says what it replaces."""
    tree, old = following.model_dump(mode="json"), before.model_dump(mode="json")
    return "\n".join(["parameters:", *_lines(tree, old, depth=1)])


def _lines(tree: dict[str, Any], old: dict[str, Any], *, depth: int) -> list[str]:
    lines, pad = [], "  " * depth
    for key, value in tree.items():
        if isinstance(value, dict):
            lines += [f"{pad}{key}:", *_lines(value, old[key], depth=depth + 1)]
        else:
            was = "" if value == old[key] else f"  # was {json.dumps(old[key])}"
            lines.append(f"{pad}{key}: {json.dumps(value)}{was}")
    return lines
