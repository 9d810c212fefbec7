"""Measure and judge: from a round's samples to its metrics, its record, and what happens next.

The first micro-batch is audited as the smoke test. A record is written when a round is decided,
and never changed afterwards but for its review and what became of that review's predictions.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from agent.archive import Bought
from agent.best import base
from agent.config import RunConfig
from agent.policy import Decision, Limits, RoundFacts, Step, next_step
from agent.records import RoundRecord, SmokeAudit, pilots
from agent.review import score_predictions
from agent.review_records import Candidate, StopDryRun
from agent.session import Session, Show
from agent.stages import pilot
from agent.stages.candidates import candidates, dry_runs
from agent.stages.judges import calibration
from agent.stages.pilot import Place
from agent.stages.planning import forecast
from agent.stages.preflight import certificates
from agent.stages.stored import Found, Source, sources
from agent.thresholds import bounds
from pipeline.audit import audit, flagged_rows
from pipeline.forecast import KeptForecast
from pipeline.generate import drawn
from pipeline.metrics import Margins, Measurement, Rules, measure
from pipeline.params import GenParams
from pipeline.replay import measure_replayed
from pipeline.seeds import rng
from pipeline.types import Sample
from pipeline.verdict import alpha_for_round

SHOWN = 10
"""Random and flagged rows kept in a record: as many as people will read."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A round as it was judged, on rows of its own or on stored ones."""

    place: Place
    params: GenParams
    samples: Sequence[Sample]
    found: Measurement
    smoke: SmokeAudit
    expected: KeptForecast | None


def judge(session: Session, place: Place, show: Show) -> Decision:
    """Measure a round's samples so far, and say what happens next."""
    round_ = _measure(session, place)
    facts = _facts(round_, pilots=alpha_index(session, place))
    decision = next_step(facts, _limits(session.config))
    show(_event(session, round_))
    show({"kind": "decision", "step": decision.step.value, "reason": decision.reason})
    if decision.step is not Step.CONTINUE:
        score_predictions_before(session, round_)
        session.store.save_round(record(session, round_, decision))
        session.note("running", decision.reason)
    return decision


def rules(session: Bought, params: GenParams, *, round_: int, before: int | None = None) -> Rules:
    """How samples of a round are judged: thresholds, certificates, margins, and its alpha.

    Args:
        session: The run.
        params: The setting.
        round_: The pilot, from 1, at whose share of alpha they are judged.
        before: The round that is judged: only audits before it count; None counts all.
    """
    return Rules(
        thresholds=bounds(session.config),
        certificates=certificates(session, params, before=before),
        alpha=alpha_for_round(session.config.thresholds.alpha, round_),
        margins=Margins.of(params.critic),
    )


def _measure(session: Session, place: Place) -> Judged:
    params, samples = pilot.load_params(session, place.params), pilot.samples(session, place)
    scale = session.config.scale
    attempts = round(scale.examples * scale.max_attempts_factor)
    expected = forecast(samples, attempts=attempts, target=scale.examples)
    judged_by = rules(session, params, round_=alpha_index(session, place), before=place.round)
    found = measure(samples, judged_by, wanted=_wanted(session, place), forecast=expected)
    return Judged(place, params, samples, found, _audit(session, samples, params), expected)


def alpha_index(session: Bought, place: Place) -> int:
    """Rounds bought so far, this one included: replayed ones are free and spend no alpha."""
    return pilots(session.store.load_rounds()[: place.round - 1]) + 1


def _wanted(session: Session, place: Place) -> int:
    settings = session.config.pilot
    return settings.smoke_rows + (place.micro_batches - 1) * settings.micro_batch


def _audit(session: Session, samples: Sequence[Sample], params: GenParams) -> SmokeAudit:
    rows = session.config.pilot.smoke_rows
    first = [s for s in samples if s.index < drawn(rows, params)]
    found = audit(first, stop=params.response.stop, thresholds=bounds(session.config), wanted=rows)
    return SmokeAudit.model_validate(asdict(found))


def _facts(round_: Judged, *, pilots: int) -> RoundFacts:
    failed = [f"{c.name}: {c.found}" for c in round_.smoke.checks if not c.passed]
    return RoundFacts(
        round=round_.place.round,
        micro_batches=round_.place.micro_batches,
        rows=round_.found.funnel.answered,
        drawn=round_.found.funnel.generated,
        metrics=round_.found.metrics,
        audit_passed=round_.smoke.passed,
        audit_found="; ".join(failed),
        pilots=pilots,
    )


def _limits(config: RunConfig) -> Limits:
    settings = config.pilot
    return Limits(settings.max_rounds, settings.max_rows, settings.fail_rows)


def _event(session: Session, round_: Judged) -> dict[str, Any]:
    place, funnel = round_.place, round_.found.funnel
    bought = session.paid(pilot.op_id(place.round, place.micro_batches - 1))
    return {
        "kind": "batch",
        "round": place.round,
        "number": place.micro_batches - 1,
        "rows": funnel.answered,
        "kept": funnel.kept,
        "tokens": bought["tokens"],
        "seconds": bought["seconds"],
        "metrics": [m.to_json() for m in round_.found.metrics],
        "seconds_left": _seconds_left(session, round_, bought["seconds"]),
        **session.money(),
    }


def _seconds_left(session: Session, round_: Judged, seconds: float) -> float | None:
    """Until every open gate is decided, at the rates so far and the last micro-batch's speed."""
    needed = [m.rows_needed for m in round_.found.metrics if m.rows_needed is not None]
    last = replace(round_.place, micro_batches=round_.place.micro_batches - 1)
    first = pilot.micro_batch(session, last, round_.params).first_index
    rows = sum(s.answered and s.index >= first for s in round_.samples)
    return max(needed) * seconds / rows if needed and rows else None


def record(
    session: Session, round_: Judged, decision: Decision, *, replayed: bool = False
) -> RoundRecord:
    """A decided round, as it is kept."""
    answered = [s for s in round_.samples if s.answered]
    flagged = set(flagged_rows(answered))
    chance = rng(session.config.pilot.seed, "shown", round_.place.round)
    random_rows = chance.sample(answered, min(SHOWN, len(answered)))
    by_margin = certificates(session, round_.params, before=round_.place.round).values()
    decided = RoundRecord(
        round=round_.place.round,
        params=round_.params,
        micro_batches=round_.place.micro_batches,
        tokens=pilot.tokens(session, round_.place),
        replans=tuple(pilot.replans(session, round_.place)),
        metrics=tuple(m.to_json() for m in round_.found.metrics),
        funnel=round_.found.funnel.to_json(),
        certificates=tuple(asdict(c) for c in by_margin),
        critics=calibration(session).report(round_.params.critic),
        causes=dict(Counter(s.cause for s in round_.samples if s.cause).most_common()),
        stops=dict(Counter(s.stop or str(s.finish_reason) for s in answered).most_common()),
        response_tokens=tuple(len(s.token_ids) for s in answered),
        audit=round_.smoke,
        random_samples=tuple(s.to_json() for s in random_rows),
        flagged_samples=tuple(s.to_json() for s in answered if s.index in flagged),
        forecast=asdict(round_.expected) if round_.expected else None,
        step=decision.step.value,
        reason=decision.reason,
        spend=session.ledger.spend(round_.place.round),
        replayed=replayed,
    )
    if decision.step is not Step.REVIEW:
        return decided
    earlier = session.store.load_rounds()[: round_.place.round - 1]
    near, stops = _near(session, round_, base([*earlier, decided]).params, replayed=replayed)
    return decided.model_copy(update={"candidates": near, "stop_candidates": stops})


def _near(
    session: Session, round_: Judged, params: GenParams, *, replayed: bool
) -> tuple[tuple[Candidate, ...], tuple[StopDryRun, ...]]:
    """What all rows stored so far say of the settings near ``params``, judged as the next pilot.

    Args:
        session: The run.
        round_: The round that they follow.
        params: The setting that the next changes apply to.
        replayed: Whether the round was replayed on stored rows.
    """
    place = round_.place
    stored = sources(session, before=place.round)
    if not replayed:
        stored += (Source(f"round {place.round}", tuple(round_.samples), round_.params),)
    next_pilot = alpha_index(session, place) + (not replayed)

    def judged(found: Found, wanted: GenParams) -> Measurement:
        by = rules(session, wanted, round_=next_pilot, before=place.round)
        return measure_replayed(found.rows, by, wanted=len(found.rows.samples))

    stops = dry_runs(stored, params)
    floors = calibration(session).floors(params.critic)
    return candidates(stored, params, stops=stops, floors=floors, judge=judged), stops


def score_predictions_before(session: Session, round_: Judged) -> None:
    """What the review before this round predicted is scored by what the round measured."""
    earlier = session.store.load_rounds()[: round_.place.round - 1]
    if not earlier or earlier[-1].review is None:
        return
    before = earlier[-1]
    assert before.review is not None
    metrics = [m.to_json() for m in round_.found.metrics]
    outcomes = score_predictions(before.review.review, metrics)
    review = before.review.model_copy(update={"outcomes": outcomes})
    session.store.save_round(before.model_copy(update={"review": review}))
