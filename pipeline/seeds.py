"""Seeds: every random choice of a run derives from its seed and the place where it is made.

No state is carried from one draw to the next, so a row can be generated again, alone, after a
crash or on another machine.
"""

import hashlib
import random


def derive(seed: int, *place: str | int) -> int:
    """A 63-bit seed for one place, such as ``derive(1, "pilot", 2, 17, "response")``."""
    text = "/".join([str(seed), *map(str, place)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def rng(seed: int, *place: str | int) -> random.Random:
    """A random generator for one place."""
    return random.Random(derive(seed, *place))
