"""P26: the suite can see. Each rule is broken in a copy of the project, and its test goes red."""

from collections.abc import Callable
from pathlib import Path

from breaks import BREAKS, ROOT, Break, apply, copy_of_the_project, run

FAILED = 1
"""pytest's exit status when tests failed; any other (no test found, an error) proves nothing."""


def is_caught(broken: Break, folder: Path) -> bool:
    """Whether the test of a rule passes with the rule and fails without it."""
    project = copy_of_the_project(folder)
    whole = run(broken.test, project)
    assert whole.returncode == 0, f"{broken.test} fails unbroken:\n{whole.stdout[-2000:]}"
    apply(broken, project)
    found = run(broken.test, project)
    return found.returncode == FAILED and "FAILED" in found.stdout


def test_every_break_finds_its_place() -> None:
    """A rule that has moved is broken nowhere, and its proof would prove nothing."""
    for broken in BREAKS:
        assert (ROOT / broken.file).read_text(encoding="utf-8").count(broken.old) == 1, broken.rule


def test_every_broken_rule_is_caught(
    tmp_path: Path, effort: Callable[..., int], figure: Callable[[str, str], None]
) -> None:
    chosen = BREAKS[: effort(sample=1, proof=len(BREAKS), soak=len(BREAKS))]
    missed = [b.rule for n, b in enumerate(chosen) if not is_caught(b, tmp_path / str(n))]
    figure("P26", f"{len(chosen) - len(missed)} of {len(chosen)} broken rules caught")
    assert not missed
