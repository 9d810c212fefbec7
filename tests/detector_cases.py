"""Responses that detectors must leave alone, and faults that they must flag, by hand.

None of them is among the shipped controls, so that detectors are tested on what they were not
certified with.
"""

import json
from pathlib import Path

_LINES = (Path(__file__).parent / "detector_cases.jsonl").read_text(encoding="utf-8").splitlines()
_CASES = [json.loads(line) for line in _LINES]

GOOD: list[tuple[str, str]] = [
    (case["instruction"], case["raw"]) for case in _CASES if case["flag"] is None
]
"""Instruction and response."""

BAD: list[tuple[str, str, str, str]] = [
    (case["flag"], case["instruction"], case["raw"], case["finish_reason"])
    for case in _CASES
    if case["flag"] is not None
]
"""Flag, instruction, raw response and finish reason."""
