"""Whether a picture or a table file was written by another program than this process would use.

The one idea: such a file may hold the same and have other bytes, so its bytes are not compared,
but only if the file itself is whole and says who wrote it.
"""

import struct
import zlib
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from io import BytesIO
from typing import Final

from agent.verify.findings import Difference

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"


def other_program(name: str, content: bytes | None) -> str:
    """Why a file's bytes cannot be compared; empty if they can."""
    if content is None:
        return ""
    if name.endswith(".png"):
        wrote, here = _drew(content), f"matplotlib {version('matplotlib')}"
    elif name.endswith(".parquet"):
        wrote, here = _wrote(content), f"parquet-cpp-arrow version {version('pyarrow')}"
    else:
        return ""
    return "" if wrote in ("", here) else f"not comparable: {wrote} wrote it, this is {here}"


def strangers(pictures: Mapping[str, bytes | None]) -> dict[str, Difference]:
    """Pictures that say that another program drew them, beside some that this one drew.

    All pictures of a run are drawn anew at once.
    """
    here = f"matplotlib {version('matplotlib')}"
    said = {name: _drew(content or b"") for name, content in pictures.items()}
    if here not in said.values():
        return {}
    return {
        name: Difference("drawn by", f"{here} like the others", wrote)
        for name, wrote in said.items()
        if wrote not in ("", here)
    }


def _drew(content: bytes) -> str:
    """What drew a picture that is whole and says so."""
    if not content.startswith(_SIGNATURE):
        return ""
    try:
        said = dict(_chunks(content))
    except (struct.error, ValueError):
        return ""
    _, _, name = said.get(b"tEXt", b"").partition(b"Software\0")
    text = name.decode("latin-1")
    return text if text.startswith("matplotlib ") else ""


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kinds and bodies of a picture's parts.

    Raises:
        ValueError: if one is not what was written.
    """
    place = len(_SIGNATURE)
    while place < len(content):
        size, kind = struct.unpack_from(">I4s", content, place)
        body = content[place + 8 : place + 8 + size]
        (crc,) = struct.unpack_from(">I", content, place + 8 + size)
        if zlib.crc32(kind + body) != crc:
            raise ValueError("a part of the picture is damaged")
        yield kind, body
        place += 12 + size


def _wrote(content: bytes) -> str:
    """What wrote a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return str(pq.ParquetFile(BytesIO(content)).metadata.created_by)
    except (pa.ArrowException, OSError, ValueError):
        return ""


def same_rows(one: bytes, other: bytes) -> bool:
    """Whether two Parquet files hold the same rows in the same order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        both = [pq.read_table(BytesIO(content)) for content in (one, other)]
    except (pa.ArrowException, OSError, ValueError):
        return False
    return bool(both[0].equals(both[1]))
