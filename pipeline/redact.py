"""A key taken out of text from outside, before anything of that text is kept or shown.

Servers echo what they were sent: a header in an error, a key in the address of a redirect. The one
idea: whatever a server says passes here first, while it is still whole, so that no message, file or
table downstream has to think of keys. A key is found as it is, URL-quoted, and within base64, where
it looks different at each of three places.
"""

import re
from base64 import b64encode, urlsafe_b64encode
from typing import Final
from urllib.parse import quote

MASK: Final = "***"
"""What stands in a key's place."""
SHORTEST: Final = 8
"""Characters of a key; anything shorter stands for none, and may be a word of the text."""


class Redactor:
    """Takes one key out of texts."""

    def __init__(self, key: str | None) -> None:
        """For ``key``; without one, texts stay as they are."""
        forms = forms_of(key) if key is not None and len(key) >= SHORTEST else ()
        self._patterns = [re.compile(_escaped(form)) for form in forms]

    def __call__(self, text: str) -> str:
        """``text`` without the key."""
        for pattern in self._patterns:
            text = pattern.sub(MASK, text)
        return text

    def in_bytes(self, content: bytes) -> bytes:
        """``content`` without the key."""
        for pattern in self._patterns:
            content = re.sub(pattern.pattern.encode(), MASK.encode(), content)
        return content


def forms_of(key: str) -> tuple[str, ...]:
    """What ``key`` looks like in text: plain, quoted, inside of base64; the longest first."""
    quoted = {quote(key, safe=safe) for safe in ("", "/", "/+=")}
    coded = {form for before in range(3) for form in _inside_base64(key.encode(), before)}
    found = {key, *quoted, *map(_lower_escapes, quoted), *coded}
    return tuple(sorted(found, key=lambda form: (-len(form), form)))


def _escaped(form: str) -> str:
    """A pattern of ``form``, which JSON within JSON may write with backslashes before a slash."""
    return re.escape(form).replace("/", r"\\*/")


def _lower_escapes(quoted: str) -> str:
    """The same with ``%2f`` for ``%2F``."""
    head, *rest = quoted.split("%")
    return "%".join([head, *(part[:2].lower() + part[2:] for part in rest)])


def _inside_base64(key: bytes, before: int) -> tuple[str, str]:
    """The part of base64 that only ``key`` decides, with ``before`` bytes of a group before it."""
    first = -(-before * 8 // 6)
    last = (before + len(key)) * 8 // 6
    padded = b"\0" * before + key
    return b64encode(padded).decode()[first:last], urlsafe_b64encode(padded).decode()[first:last]
