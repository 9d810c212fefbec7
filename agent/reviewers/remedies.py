"""What the built-in rules try against each trouble: small pure functions, the best remedy first.

They carry the lessons of a team that tuned by hand: run-ons are ended by stop strings, not by lower
temperature; a base model needs a moderate temperature, 0.4 to 0.7; most hits of a token cap are
run-ons; duplicates are a matter of the prompt. Every remedy registers what it expects. Choosing
among them is ``agent/reviewers/rules.py``'s work.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from agent.review_records import Prediction
from agent.reviewers.evidence import SOME_DUPLICATES, Evidence
from agent.reviewers.known import best_cap, left_running, refuted, stops_to_add
from agent.reviewers.markers import proposed_stops, share_ended
from agent.reviewers.moves import Remedy, change, choice, prediction, together_or_alone, toward
from agent.reviewers.rejections import lower_margin, margin_at_fault

_MODERATE: Final = 0.7
_COOLEST: Final = 0.4
_WARMEST: Final = 1.0
_ENOUGH_ROWS: Final = 3
_TEMPERATURES: Final = ("instruction.temperature", "response.temperature")
_SURELY_LESS: Final = 0.95
"""The highest rate that is still predicted: up to 1 would foretell nothing."""
_RUN_ON_SHARE: Final = 0.9  # of cap hits, where no stop string is set and no sample says otherwise


def runaway(e: Evidence) -> Iterator[Remedy]:
    """Stop strings seen in the raw samples; then clearer examples."""
    rows = e.flagged_by("runaway")
    stops = stops_to_add(e, rows)
    if stops and not refuted(e, stops, "runaway"):
        rest, seen = left_running(e, rows, stops)
        yield Remedy(
            (change("response.stop", stops["response.stop"], seen),),
            prediction("runaway", 0.0, min(max(0.03, 1.5 * rest), _SURELY_LESS), 0.8),
        )
    yield from _clearer_examples(e, "runaway")


def delimiter_leak(e: Evidence) -> Iterator[Remedy]:
    """The marker that is left in the text, as a stop string."""
    stops = stops_to_add(e, e.flagged_by("delimiter_leak"))
    if stops and not refuted(e, stops, "delimiter_leak"):
        reason = "ends a response before a marker leaks"
        yield Remedy(
            (change("response.stop", stops["response.stop"], reason),),
            prediction("delimiter_leak", 0.0, max(0.02, 0.3 * e.rate("delimiter_leak")), 0.7),
        )
    yield from _clearer_examples(e, "delimiter_leak")


def token_limit(e: Evidence) -> Iterator[Remedy]:
    """The cap that stored rows know to be enough; else a higher one.

    A moderately higher one while most hits are run-ons that stop strings end; the same one while
    the draw is hot, as nonsense ends at no cap.
    """
    rate, limit = e.rate("token_limit"), e.limit("token_limit")
    known = best_cap(e, stops_to_add(e, e.flagged_by("token_limit")))
    if known is not None and not _is_hot(e):
        value = known.values["token_limit"] or 0.0
        running = known.values["runaway"] or 0.0
        found = f"{value:.1%} hit the cap and {running:.1%} run on"
        reason = f"with these {found}, of {known.rows} stored rows"
        moves = tuple(change(name, to, reason) for name, to in known.changes.items())
        yield Remedy(moves, prediction("token_limit", 0.0, max(limit, 1.5 * value), 0.7))
    run_ons = _run_on_share(e)
    rest = rate * (1 - run_ons)
    factor = 2.0 if rest >= 3 * limit else 1.5 if run_ons < 0.5 else 1.25
    cap = e.params.response.max_new_tokens
    value = min(round(cap * factor), 1024)
    if value > cap and not _is_hot(e):
        reason = f"{rate:.0%} hit the cap of {cap}, of which {run_ons:.0%} are run-ons"
        yield Remedy(
            (change("response.max_new_tokens", value, reason),),
            prediction("token_limit", 0.0, max(limit, rest), 0.65),
        )


def repetition(e: Evidence) -> Iterator[Remedy]:
    """A warmer draw, with more penalty where loops are frequent; never a cooler one."""
    rate, limit = e.rate("repetition"), e.limit("repetition")
    warmer = toward(e, "response.temperature", _MODERATE, "low entropy makes loops", up=True)
    penalty = toward(e, "response.repetition_penalty", 1.3, "penalises what loops", up=True)
    expected = prediction("repetition", 0.0, max(limit, 0.6 * rate), 0.6)
    both = (warmer, penalty) if rate >= 2 * limit else ()
    yield from together_or_alone(both or (warmer,), expected)
    yield from together_or_alone((penalty,), expected)
    wider = toward(e, "response.top_p", 0.95, "a wider nucleus leaves loops", up=True)
    if wider:
        yield Remedy(wider, expected)


def truncated(e: Evidence) -> Iterator[Remedy]:
    """The stop string that cuts, less penalty on needed words, a calmer draw."""
    rate, limit = e.rate("truncated"), e.limit("truncated")
    expected = prediction("truncated", 0.0, max(limit, 0.7 * rate), 0.5)
    yield from _without_cutting_stop(e, "truncated", expected)
    reason = "the penalty forbids the words that would end the sentence"
    if milder := toward(e, "response.repetition_penalty", 1.1, reason, up=False):
        yield Remedy(milder, expected)
    if calmer := toward(e, "response.temperature", _MODERATE, "a hot draw breaks off", up=False):
        yield Remedy(calmer, expected)
    reason = "fewer unlikely ends of text"
    if narrower := toward(e, "response.top_p", 0.85, reason, up=False):
        yield Remedy(narrower, expected)
    yield from _clearer_examples(e, "truncated")


def empty(e: Evidence) -> Iterator[Remedy]:
    """The stop string that fires at once; then clearer examples."""
    expected = prediction("empty", 0.0, max(e.limit("empty"), 0.5 * e.rate("empty")), 0.6)
    yield from _without_cutting_stop(e, "empty", expected)
    yield from _clearer_examples(e, "empty")


def instruction_acceptance(e: Evidence) -> Iterator[Remedy]:
    """A margin that is too high, moderate sampling of instructions, more and wider examples."""
    yield from margin_at_fault(e, "instruction")
    expected = _higher(e, "instruction_acceptance")
    reason = "critics react to what they are given, and moderate sampling writes best"
    moves = (
        toward(e, "instruction.temperature", _MODERATE, reason),
        toward(e, "instruction.repetition_penalty", 1.1, reason),
        toward(e, "instruction.top_p", 0.9, reason),
    )
    yield from together_or_alone(moves, expected)
    for remedy in _clearer_examples(e, "instruction_acceptance"):
        yield Remedy(remedy.changes, expected)
    yield from lower_margin(e, "instruction")


def pair_acceptance(e: Evidence) -> Iterator[Remedy]:
    """A margin that is too high, a moderate draw of responses, more and wider examples."""
    yield from margin_at_fault(e, "pair")
    expected = _higher(e, "pair_acceptance")
    temperature = e.params.response.temperature
    target = min(max(temperature, _COOLEST), _MODERATE)
    reason = "answers stay with the question at a moderate temperature"
    moves = (
        toward(e, "response.temperature", target, reason),
        toward(e, "response.repetition_penalty", 1.1, "a moderate penalty", up=False),
    )
    yield from together_or_alone(moves, expected)
    for remedy in _clearer_examples(e, "pair_acceptance"):
        yield Remedy(remedy.changes, expected)
    yield from lower_margin(e, "pair")


def distinctness(e: Evidence) -> Iterator[Remedy]:
    """Other examples in each prompt and topics to write about; then a warmer draw.

    Where few rows repeat, rows are lost to poor quality instead: a hot draw is calmed first.
    """
    duplicates = e.value("duplicates") or 0.0
    if duplicates < SOME_DUPLICATES:
        yield from calmer_draws(e, above=_MODERATE)
    expected = prediction("duplicates", 0.0, max(0.02, 0.7 * duplicates), 0.7)
    hints = choice(e, "topics", "hints", "names something else to write about in each prompt")
    other = {"fixed": "rotate", "rotate": "pool"}.get(e.params.fewshot.rotation)
    rotated = choice(e, "fewshot.rotation", other, "a prompt that never changes repeats itself")
    yield from together_or_alone((hints, rotated), expected)
    yield from together_or_alone((choice(e, "fewshot.set", "wide", "wider examples"),), expected)
    reason = "a cool draw writes the same instructions again"
    if warmer := toward(e, "instruction.temperature", _WARMEST, reason, up=True):
        yield Remedy(warmer, prediction("duplicates", 0.0, max(0.02, 0.9 * duplicates), 0.6))


REMEDIES: Final[dict[str, Callable[[Evidence], Iterator[Remedy]]]] = {
    "runaway": runaway,
    "delimiter_leak": delimiter_leak,
    "token_limit": token_limit,
    "repetition": repetition,
    "truncated": truncated,
    "empty": empty,
    "instruction_acceptance": instruction_acceptance,
    "pair_acceptance": pair_acceptance,
    "yield": distinctness,
}
"""Remedies by the gate that they treat."""


def calmer_draws(e: Evidence, *, above: float = _WARMEST) -> Iterator[Remedy]:
    """Temperatures that are ``above`` a value go one step toward the moderate range."""
    reason = f"above {above:g} rows are lost to quality"
    moves = [toward(e, n, _MODERATE, reason) for n in _TEMPERATURES if _warmer(e, n, above)]
    for remedy in together_or_alone(moves, _higher(e, "raw_acceptance")):
        yield replace(remedy, pressing=above == _WARMEST)


def _is_hot(e: Evidence) -> bool:
    """Whether the draw of responses is hot and can still be calmed."""
    name = "response.temperature"
    return _warmer(e, name, _WARMEST) and not e.bars(name, _MODERATE)


def _warmer(e: Evidence, name: str, value: float) -> bool:
    now = e.params.get(name)
    return isinstance(now, int | float) and now > value


def _run_on_share(e: Evidence) -> float:
    """Share of cap hits that ran on into another task and need no higher cap."""
    stops = e.params.response.stop
    rows = e.flagged_by("token_limit")
    ended = share_ended(rows, proposed_stops(stops, rows, e.good, runs=e.dry_runs))
    if ended is not None:
        return ended
    return 0.0 if stops else _RUN_ON_SHARE


def _clearer_examples(e: Evidence, metric: str) -> Iterator[Remedy]:
    """Three more examples in the prompt, then the wider set."""
    rate = e.value(metric) or 0.0
    expected = prediction(metric, 0.0, max(0.02, 0.8 * rate), 0.5)
    reason = "more examples show the format more clearly"
    if more := toward(e, "fewshot.count", 12, reason, up=True):
        yield Remedy(more, expected)
    if wide := choice(e, "fewshot.set", "wide", "other examples may show the format better"):
        yield Remedy(wide, expected)


def _without_cutting_stop(e: Evidence, flag: str, expected: Prediction) -> Iterator[Remedy]:
    """Drop a stop string that ends rows with ``flag`` far more often than it ends others."""
    rows = e.flagged_by(flag)
    for stop in e.params.response.stop:
        cut = sum(row["stop"] == stop for row in rows)
        if cut >= _ENOUGH_ROWS and cut / len(rows) >= 2 * e.ended_by(stop):
            rest = [s for s in e.params.response.stop if s != stop]
            reason = f"{stop!r} ended {cut} of {len(rows)} rows flagged {flag}"
            yield Remedy((change("response.stop", rest, reason),), expected)


def _higher(e: Evidence, metric: str) -> Prediction:
    value = max(e.value(metric) or 0.0, 1 - _SURELY_LESS)
    return prediction(metric, value, 1.0, 0.65)
