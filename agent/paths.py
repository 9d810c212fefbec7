"""What a run may be called, and which paths are within its folder.

No file is opened here. The one idea: a name or path that comes from outside is checked
against what is allowed, never cleaned of what is forbidden, and links are not followed.
"""

import re
from pathlib import Path
from typing import Final

from agent.errors import RunError

RUN_ID: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""What a run may be called: it is a folder's name directly below ``reports``."""
_DEPTH: Final = 8
_PART: Final = re.compile(r"[A-Za-z0-9._][A-Za-z0-9._-]{0,127}")


def check_run_id(run_id: str) -> str:
    """``run_id`` itself, if it names a folder directly below ``reports``.

    Raises:
        RunError: if it does not.
    """
    if not RUN_ID.fullmatch(run_id):
        raise RunError(
            f"{run_id[:80]!r} is not a run id: expected 1 to 64 of a-z, 0-9, '.', '_' and '-', "
            "starting with a letter or a digit"
        )
    return run_id


def check_reports(root: Path) -> Path:
    """The real path of a reports folder, which need not exist yet.

    Raises:
        RunError: if no folder can be there.
    """
    try:
        found = root.resolve()
        nearest = next(path for path in (found, *found.parents) if path.exists())
    except (OSError, ValueError, RuntimeError) as error:
        # ValueError: a NUL or a lone surrogate; RuntimeError: links that go round in a circle.
        raise RunError(f"{str(root)[:80]!r} cannot be a folder of reports: {error}") from error
    if not nearest.is_dir():
        raise RunError(f"{str(nearest)[:80]!r} is not a folder: pass --reports DIR")
    return found


def list_runs(root: Path) -> list[str]:
    """Ids of the runs below ``root``, sorted."""
    if not check_reports(root).is_dir():
        return []
    folders = (path for path in root.iterdir() if RUN_ID.fullmatch(path.name))
    return sorted(path.name for path in folders if path.is_dir() and not path.is_symlink())


def within(folder: Path, relative: str) -> Path:
    """The path of ``relative`` below ``folder``.

    Raises:
        RunError: if it would leave the folder, or passes through a link.
    """
    parts = relative.split("/")
    if len(parts) > _DEPTH or any(
        part in {".", ".."} or not _PART.fullmatch(part) for part in parts
    ):
        raise RunError(f"{relative[:200]!r} is not a path within a run's folder")
    path = folder
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise RunError(f"{str(path)!r} is a link; files of a run must be real ones")
    return path
