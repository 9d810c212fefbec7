"""Names that try to leave a folder, by the way in which they try."""

import itertools
from collections.abc import Iterator

WAYS_OUT = (
    "..", ".", "../x", "../../x", "../outside", "../outside/kept.txt", "x/../../outside/kept.txt",
    "/", "/etc/passwd", "/tmp/x", "//x", "///", "./x", "x/./y", "x//y", "x/", "/x/", "~", "~root",
    "~/x", "$HOME", "${HOME}/x", "`id`", "$(id)", "|id", ";id", "&id", "x;y", "x|y", ">x", "<x",
    "*", "?", "[a-z]", "{a,b}", "!x", "#", "%2e%2e%2fx", "%2e%2e/x", "..%2fx", "..%5cx",
    "%252e%252e%252fx", "..%c0%afx", "..\\x", "..\\..\\outside\\kept.txt", "C:\\x", "C:x", "c:/x",
    "\\\\server\\share", "\\\\?\\C:\\x", "file:///etc/passwd", "http://x/", "x:y", "x::$DATA",
    "CON", "NUL.txt", "COM1", "LPT1.log", "AUX ", "x.", " x", "x ", "\tx", "x\ty", "x\ny", "x\n",
    "\nx", "x\r", "x\x1b[2J", "x\x7fy", "x\x00y", "\x00", "x\x00/../y", "‥", "．．", "．．／x",
    "..∕x", "..⁄x", "x\u202ey", "x\u200by", "ｒ", "а", "é", "e\u0301", "İ", "ﬀ", "\ud800",
    "\ufeffx", "a" * 65, "a" * 255, "a" * 4096, "../" * 200 + "x", "x/" * 3000,
    "-", "--", "-rf", "--reports",
    "-x", "--run-id=../x", ".git", ".ssh/authorized_keys", "", " ", "'", '"', "x'y", 'x"y', "R",
    "Run", "r/", "r/..", "r/../r", "r/../../outside",
)  # fmt: skip
"""Every one of them is refused as an id, and as a name within a run unless it is a plain one."""
_BEFORE = ("", "r/", "../", "./", "/", "..", "a/../", "%2e", "\\", "artifacts/", "x\n", "．")
_AFTER = ("", "/", "/..", "\x00", ".jsonl", "\n", " ", "/../../outside/kept.txt")


def hostile_names(count: int) -> Iterator[str]:
    """The first ``count`` of them, the plain ones first, then every way with others around it."""
    combined = (
        f"{before}{way}{after}"
        for before, after in itertools.product(_BEFORE, _AFTER)
        for way in WAYS_OUT
    )
    seen: set[str] = set()
    for name in combined:
        if len(seen) == count:
            return
        if name not in seen:
            seen.add(name)
            yield name
