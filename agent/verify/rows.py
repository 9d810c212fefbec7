"""Responses cleaned and looked at again, by the detectors of this program.

The default takes a row's stored flags, which the ledger's chain seals. The one idea: a setting
replayed on its own rows must say of each row what is stored; what differs was judged by another
program, or by none.
"""

from collections.abc import Iterator, Sequence

from agent.errors import AgentError
from agent.money.chain import SealedEntry
from agent.stages import pilot
from agent.stages.judges import probe
from agent.stages.pilot import Place
from agent.stages.stored import PROBE
from agent.verify.findings import Difference, Verified, shown
from agent.verify.past import Past
from pipeline.causes import cause
from pipeline.detection.clean import clean
from pipeline.detection.detectors import detect
from pipeline.params import GenParams
from pipeline.probe import probe_params
from pipeline.types import Sample

_NAMED = 5
"""Rows of one kind that are named."""


def check(found: Verified, past: Past) -> None:
    """Clean and detect again in every stored response."""
    for name, params, samples in _every(past):
        answered = [s for s in samples if s.answered]
        differs = [d for s in answered for d in _differences(s, params, judged=name != PROBE)]
        rest = len(differs) - _NAMED
        if rest > 0:
            differs = [*differs[:_NAMED], Difference("", "no more", f"{rest} more differences")]
        found.add("rows", f"{name}, {len(answered):,} responses", differs)


def _every(past: Past) -> Iterator[tuple[str, GenParams, Sequence[Sample]]]:
    try:
        yield PROBE, probe_params(past.config.parameters), probe(past).samples
        for record in past.memory.load_rounds():
            if not record.replayed:
                rows = pilot.samples(past, Place(record.round, "", record.micro_batches))
                yield f"round {record.round}", record.params, rows
        used = _used(past.timeline.entries)
        if used is not None:
            plan = past.approvals.approved_plan(used)
            yield "scale", plan.params, past.read_committed(plan).samples
    except AgentError:  # an artifact that cannot be read is named among the artifacts
        return


def _used(entries: Sequence[SealedEntry]) -> str | None:
    return next((e.entry.op_id for e in reversed(entries) if e.entry.kind == "use"), None)


def _differences(sample: Sample, params: GenParams, *, judged: bool) -> Iterator[Difference]:
    stop = params.response.stop
    text = clean(sample.raw or "", stop=stop, instruction=sample.instruction)
    both: list[tuple[str, object, object]] = [("text", text, sample.clean)]
    both += [("flags", detect(sample, stop=stop), sample.flags)]
    if judged:
        both.append(("cause", cause(sample), sample.cause))
    for name, expected, stored in both:
        if expected != stored:
            yield Difference(f"row {sample.index}, {name}", shown(expected), shown(stored))
