"""Artifacts and answers against the hashes that the books hold of them.

What is in them is read by the stages. The one idea: the ledger's chain seals the results, a result
names its rows by their hash, so a row cannot change without one of them.
"""

import hashlib
import json
from collections.abc import Iterator, Set
from typing import Any, Final

from agent.money.database import RunDatabase
from agent.verify.findings import Difference, Verified
from agent.verify.folder import Folder

_KEYS: Final = ("artifact", "probe")
"""Where results name artifacts."""


def named(database: RunDatabase) -> set[str]:
    """Every artifact that a result names."""
    return {
        value
        for result in _results(database)
        for key in _KEYS
        if isinstance(value := result.get(key), str)
    }


def answers(database: RunDatabase) -> Iterator[dict[str, str]]:
    """For each review, the hashes of its answers by their paths."""
    for result in _results(database):
        found = result.get("answers")
        if isinstance(found, dict):
            yield {str(path): str(digest) for path, digest in found.items()}


def _results(database: RunDatabase) -> Iterator[dict[str, Any]]:
    for row in database.query("SELECT body FROM results"):
        try:
            found = json.loads(row["body"])
        except ValueError:  # the audit names it
            continue
        if isinstance(found, dict):
            yield found


def by_hash(content: bytes | None, digest: str) -> tuple[Difference, ...]:
    """What differs in a file that must have a hash."""
    if content is None:
        return (Difference("", f"the file with SHA-256 {digest[:16]}", "no such file"),)
    found = hashlib.sha256(content).hexdigest()
    if found == digest:
        return ()
    return (Difference("SHA-256", digest[:16], f"{found[:16]} ({len(content):,} bytes)"),)


def check(
    found: Verified,
    folder: Folder,
    wanted: set[str],
    *,
    sound: Set[str] = frozenset(),
    later: Set[str] = frozenset(),
) -> set[str]:
    """Check that every artifact is there and unchanged; returns their names.

    Args:
        found: Where the checks go.
        folder: The run's files.
        wanted: Hashes of the artifacts.
        sound: Those whose content was read and had the hash already.
        later: Those that the run may not have come to write.
    """
    expected = {f"artifacts/{digest}.jsonl": digest for digest in wanted}
    for name, digest in sorted(expected.items()):
        if digest in sound:
            found.add("artifacts", name)
        elif digest in later and name not in folder.names:
            found.add("artifacts", name, left_out="it is not written yet")
        else:
            found.add("artifacts", name, by_hash(folder.read(name), digest))
    return set(expected)


def left_by_a_failure(database: RunDatabase, folder: Folder, name: str) -> str:
    """Why a file that nothing accounts for may be there all the same; empty if it may not."""
    top, _, rest = name.partition("/")
    if top == "rounds" and "-answer-" in rest:
        return "an answer from which no review came, so that no hash of it is kept"
    digest = rest.removesuffix(".jsonl")
    if top != "artifacts" or by_hash(folder.read(name), digest):
        return ""
    repeated = database.query(
        "SELECT 1 FROM operations WHERE op_id NOT LIKE 'engine-release%'"
        " AND (op_id LIKE '%#%' OR state = 'pending')"
    )
    return "rows of an attempt that failed or was cut short" if repeated else ""
