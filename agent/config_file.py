"""Reading budget.yaml, and saying what is wrong with it.

Every problem is named at once: the key, what was found, what is expected, and for an unknown key
the nearest valid one. A key that stands twice is an error too.
"""

import difflib
import re
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError

from agent.config import RunConfig
from agent.errors import ConfigError

_SCIENTIFIC: Final = re.compile(r"(-?[0-9]{1,20}(?:\.[0-9]{0,20})?)[eE]([-+]?[0-9]{1,2})")
_MAY_BE_SECRET: Final = {"api_key_env", "base_url"}


def load_config(path: Path, *, limit_usd: float | None = None) -> RunConfig:
    """Read and check a budget.yaml; ``limit_usd`` replaces its cap.

    Raises:
        ConfigError: naming the file, the key, what was found and what is expected.
    """
    tree = _read_tree(path)
    if limit_usd is not None:
        budget = tree.get("budget") or {}
        tree["budget"] = {**budget, "limit_usd": limit_usd} if isinstance(budget, dict) else budget
    cap = "budget.limit_usd" if limit_usd is None else "--budget"
    return check_config(tree, source=str(path), cap=cap)


def check_config(tree: Any, *, source: str, cap: str = "budget.limit_usd") -> RunConfig:
    """The configuration in ``tree``; ``source`` names it in messages, ``cap`` where the cap is.

    Raises:
        ConfigError: one line for each thing that is wrong.
    """
    try:
        return RunConfig.model_validate(tree, context={"cap": cap})
    except ValidationError as error:
        lines = [_explain(dict(item)) for item in error.errors(include_url=False)]
        raise ConfigError("\n  ".join([f"{source} is not valid:", *lines])) from error


def _read_tree(path: Path) -> dict[str, Any]:
    import yaml

    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_unique_key_loader())
    except FileNotFoundError as error:
        raise ConfigError(f"no configuration at {str(path)!r}; pass --config FILE") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {str(path)!r}: {error}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected sections with keys, found {str(tree)[:60]!r}")
    return tree


def _unique_key_loader() -> Any:
    """PyYAML's safe loader, which otherwise lets the last of two equal keys win in silence."""
    import yaml

    class UniqueKeyLoader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen: set[str] = set()
            for key_node, _ in node.value:
                if key_node.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key_node.value!r} stands twice", key_node.start_mark
                    )
                seen.add(str(key_node.value))
            return super().construct_mapping(node, deep=deep)

    return UniqueKeyLoader


def _explain(error: dict[str, Any]) -> str:
    """One line for a person: the key, what was found, what was expected."""
    path = [str(part) for part in error["loc"]]
    key = ".".join(path)
    if error["type"] == "extra_forbidden":
        valid = _keys_at(error["loc"][:-1])
        near = difflib.get_close_matches(path[-1], valid, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"valid keys: {', '.join(valid)}"
        return f"{key}: unknown key; {hint}"
    expected = str(error["msg"]).removeprefix("Value error, ")
    found = error.get("input")
    if error["type"] == "value_error" and isinstance(found, dict):
        return f"{key or 'top level'}: {expected}"  # it names what it found
    shown = repr(found) if not isinstance(found, dict) else "a section"
    shown = "what is not repeated here" if _MAY_BE_SECRET.intersection(path) else shown
    hint = _number_meant(found) if error["type"] in ("float_type", "int_type") else ""
    return f"{key or 'top level'}: {expected[:1].lower()}{expected[1:]}, found {shown[:80]}{hint}"


def _number_meant(found: Any) -> str:
    """How YAML wants a number such as 1e-9, which it takes for text."""
    match = _SCIENTIFIC.fullmatch(found) if isinstance(found, str) else None
    if match is None:
        return ""
    digits, power = match[1], int(match[2])
    exact = f"{digits if '.' in digits else digits + '.0'}e{power:+d}"
    return f", which is text in YAML; write {exact} or {Decimal(found):f}"


def _keys_at(path: tuple[int | str, ...]) -> list[str]:
    """Valid keys of the section at ``path``."""
    node: Any = RunConfig
    for part in path:
        is_section = isinstance(node, type) and issubclass(node, BaseModel)
        node = node.model_fields[str(part)].annotation if is_section else get_args(node)[-1]
    return list(node.model_fields)
