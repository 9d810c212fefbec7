"""Plausible records for tests: a run of four rounds, told as numbers, and its variations.

The story: the baseline runs on; stop strings and a higher cap cure that; a cooler temperature makes
loops; the revert passes every gate.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import sqrt
from typing import Any

from agent.config import RunConfig
from agent.records import AuditCheck, RoundRecord, RunRecord, SmokeAudit, Spend
from agent.review import scored
from agent.review_records import Applied, Change, Prediction, Refused, Review, ReviewRecord
from pipeline.params import GenParams
from pipeline.types import Certificate, EngineInfo, Funnel, Metric, Sample

STOPS = ("\nInstruction", "\nQ:", "\n###")
HOSTILE = (
    "| a | b |\n|---|---|\n```\n# not a heading\n</details><script>alert(1)</script>"
    "\x1b[31mred\x1b[0m ~~~~ [click](javascript:alert(1)) ![x](https://evil.example/p.png) "
    "<!-- hidden --> \u202eright-to-left\n````\n" + "`" * 9 + "\n- item | cell\n" + "A" * 10_000
)
LIMITS = {
    "runaway": "< 0.05",
    "repetition": "< 0.05",
    "token_limit": "< 0.1",
    "truncated": "< 0.02",
    "delimiter_leak": "< 0.02",
    "empty": "< 0.05",
    "instruction_acceptance": ">= 0.5",
    "pair_acceptance": ">= 0.5",
}


def rate(name: str, count: int | None, n: int, verdict: str | None = None) -> Metric:
    """A rate with a Wilson interval; ``count`` None is unmeasured."""
    limit = LIMITS.get(name)
    if count is None or n == 0:
        verdict = "INSUFFICIENT" if limit else None
        return Metric(name, None, None, n, None, None, limit, verdict, "nothing to measure")  # type: ignore[arg-type]
    p, z = count / n, 2.6
    mid, half = (p + z * z / (2 * n)), z * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (mid - half) / (1 + z * z / n), (mid + half) / (1 + z * z / n)
    low, high = max(0.0, round(low, 6)), min(1.0, round(high, 6))
    if limit and verdict is None:
        bound = float(limit.split()[1])
        good = high < bound if limit.startswith("<") else low >= bound
        bad = low > bound if limit.startswith("<") else high < bound
        verdict = "PASS" if good else "FAIL" if bad else "INSUFFICIENT"
    needed = 120 if verdict == "INSUFFICIENT" else None
    reason = {"PASS": "certified below alpha 0.025", "FAIL": "certified beyond the limit"}.get(
        verdict or "", "more rows would decide" if limit else "not a gate"
    )
    return Metric(name, p, count, n, low, high, limit, verdict, reason, needed)  # type: ignore[arg-type]


def metrics(
    bad: Mapping[str, int | None], *, n: int, generated: int, kept: int, distinct: float | None
) -> tuple[dict[str, Any], ...]:
    """The metric table, from counts by name."""
    rates = [rate(name, bad.get(name, 0), n) for name in list(LIMITS)[:6]]
    rates += [
        rate("instruction_acceptance", bad.get("instruction_acceptance", round(0.7 * n)), n),
        rate("pair_acceptance", bad.get("pair_acceptance", round(0.8 * n)), n),
    ]
    ok = None if distinct is None else "PASS" if distinct >= 15_000 else "FAIL"
    low, high = (None, None) if distinct is None else (0.8 * distinct, 1.25 * distinct)
    forecast = Metric(
        "yield",
        distinct,
        None,
        n,
        low,
        high,
        ">= 15000",
        ok or "INSUFFICIENT",  # type: ignore[arg-type]
        "forecast of distinct kept rows" if ok else "too few rows for a forecast",
    )
    shown = [
        rate("raw_acceptance", kept, generated),
        rate("duplicates", bad.get("duplicates", 12), generated),
        Metric("median_tokens", 38.5, None, kept, 31, 44, None, None, "of kept rows")
        if kept
        else Metric("median_tokens", None, None, 0, None, None, None, None, "no row was kept"),
    ]
    return tuple(m.to_json() for m in [*rates, forecast, *shown])


def sample(index: int, **changes: Any) -> dict[str, Any]:
    """One answered sample as JSON."""
    text = f"A habitat is the place where an animal lives. Row {index}."
    values: dict[str, Any] = {
        "index": index,
        "instruction_raw": " Explain what a habitat is.\n",
        "instruction": "Explain what a habitat is.",
        "instruction_score": 1.25,
        "raw": text,
        "clean": text,
        "finish_reason": "eos",
        "token_ids": tuple(range(12)),
        "clean_tokens": 12,
        "pair_scores": {"lift": 0.84, "label": 0.1},
    }
    return Sample(**{**values, **changes}).to_json()


def flagged(index: int, flags: Sequence[str] = ("runaway",), **changes: Any) -> dict[str, Any]:
    """A sample that ran on into the next task."""
    values: dict[str, Any] = {
        "raw": " Paris.\n\nInstruction: Name a river in Spain.\nResponse: Ebro.\n\nInstruction:",
        "clean": "Paris.",
        "instruction": "What is the capital of France?",
        "finish_reason": "length",
        "token_ids": tuple(range(80)),
        "clean_tokens": 2,
        "flags": tuple(flags),
        "cause": "stop_rule",
        "dropped": "detector",
    }
    return sample(index, **{**values, **changes})


def certificates() -> tuple[dict[str, Any], ...]:
    """Detectors that are certified, and a critic that is not."""
    names = list(LIMITS)[:6]
    good = [Certificate(n, 1.0, 0.992, 120, 240, True, "both above 0.95") for n in names]
    critics = [
        Certificate("instruction_acceptance", 0.9, 0.88, 27, 108, True, "margin 0.41"),
        Certificate("pair_acceptance", 0.53, 0.5, 27, 27, False, "no margin is good enough"),
    ]
    return tuple(asdict(c) for c in [*good, *critics])


def review(
    changes: Mapping[str, tuple[Any, Any]],
    predictions: Sequence[tuple[str, float, float, float | None]],
    *,
    reviewer: str = "rules",
    cost: float = 0.0,
    refused: Sequence[Refused] = (),
    distrusted: Sequence[str] = (),
    reason: str = "62 of 64 bad rows ran on into the next task: only a stop string ends them",
) -> ReviewRecord:
    """A review: changes by name (before, after), predictions as (metric, low, high, actual).

    An actual of -1 means not scored yet; None means that it was not measured.
    """
    predicted = [
        (Prediction(metric=m, low=a, high=b, probability=0.8), x) for m, a, b, x in predictions
    ]
    return ReviewRecord(
        reviewer=reviewer,
        review=Review(
            diagnosis="Responses do not end: " + reason,
            changes=tuple(
                Change(parameter=p, value=after, reason=reason) for p, (_, after) in changes.items()
            ),
            predictions=tuple(p for p, _ in predicted),
            distrusted_metrics=tuple(distrusted),
            confidence=0.8,
        ),
        applied=tuple(
            Applied(parameter=p, before=before, after=after, reason=reason)
            for p, (before, after) in changes.items()
        ),
        refused=tuple(refused),
        cost_usd=cost,
        requests=1 if cost else 0,
        learnings_path="rounds/01-learnings.md",
        outcomes=scored((p, x) for p, x in predicted if x != -1),
    )


def audit(rows: int, *, passed: bool, ids: Sequence[int] = ()) -> SmokeAudit:
    """A smoke test that passes or fails on its flagged share."""
    checks = (
        AuditCheck(name="answers", passed=True, found=f"{rows} of {rows + 4} drawn were answered"),
        AuditCheck(name="stop_strings", passed=passed, found="fired in 0 of 28; none is configured")
        if not passed
        else AuditCheck(name="stop_strings", passed=True, found="fired in 20 of 28 responses"),
        AuditCheck(name="cleaner", passed=True, found="removed text without a marker in 0 rows"),
        AuditCheck(name="flagged", passed=passed, found=f"{len(ids)} rows shown below"),
    )
    return SmokeAudit(rows=rows, passed=passed, checks=checks, flagged_ids=tuple(ids))


def round_record(number: int = 1, **changes: Any) -> RoundRecord:
    """The baseline round of the story, with fields replaced."""
    values: dict[str, Any] = {
        "round": number,
        "params": GenParams(),
        "micro_batches": 1,
        "tokens": 2981,
        "metrics": metrics(
            {"runaway": 22, "token_limit": 20, "truncated": 1, "instruction_acceptance": 25},
            n=28,
            generated=32,
            kept=4,
            distinct=None,
        ),
        "funnel": Funnel(32, 31, 30, 28, 28, 5, 4, 32).to_json(),
        "certificates": certificates(),
        "causes": {"stop_rule": 20, "token_cap": 2, "sampling": 1},
        "stops": {"eos": 8, "length": 20},
        "response_tokens": (80,) * 20 + (5, 9, 12, 17, 22, 31, 44, 60),
        "audit": audit(28, passed=False, ids=range(10)),
        "random_samples": tuple(sample(i) for i in range(6)) + tuple(flagged(i) for i in range(4)),
        "flagged_samples": tuple(flagged(i) for i in range(10)),
        "forecast": None,
        "step": "REVIEW",
        "reason": "runaway and token_limit failed after 28 rows",
        "spend": Spend(engine_seconds=21.4, engine_usd=0.000298, review_usd=0.0),
        "review": review(
            {"response.stop": ((), STOPS), "response.max_new_tokens": (80, 100)},
            [("runaway", 0.0, 0.03, 0.0), ("token_limit", 0.0, 0.15, 0.0417)],
        ),
    }
    return RoundRecord.model_validate({**values, **changes})


def story() -> list[RoundRecord]:
    """Four rounds: baseline, stop strings, a harmful cooling, and the revert that passes."""
    stopped = GenParams().replace({"response.stop": STOPS, "response.max_new_tokens": 100})
    cooled = stopped.replace({"response.temperature": 0.2})
    fired = {"eos": 30, "length": 4, "\nInstruction": 58, "\n###": 4}
    second = round_record(
        2,
        params=stopped,
        micro_batches=2,
        tokens=6120,
        metrics=metrics(
            {"runaway": 0, "token_limit": 4, "repetition": 5, "duplicates": 21},
            n=96,
            generated=128,
            kept=70,
            distinct=9_400.0,
        ),
        funnel=Funnel(128, 126, 105, 96, 96, 86, 70, 128).to_json(),
        causes={"sampling": 6, "token_cap": 4},
        stops=fired,
        response_tokens=tuple(10 + (i * 37) % 84 for i in range(92)) + (100,) * 4,
        audit=audit(28, passed=True, ids=[3, 9]),
        flagged_samples=(
            flagged(3, ("repetition",), cause="sampling"),
            flagged(9, ("token_limit",)),
        ),
        forecast={
            "attempts": 75_000,
            "expected": 9_400.0,
            "low": 7_520.0,
            "high": 11_750.0,
            "target": 15_000,
            "attempts_needed": None,
            "draws": 126,
            "within_validated_range": False,
        },
        reason="repetition is undecided and the forecast misses 15,000 rows",
        spend=Spend(engine_seconds=58.0, engine_usd=0.000806, review_usd=0.0031),
        review=review(
            {"response.temperature": (0.4, 0.2)},
            [("repetition", 0.0, 0.02, 0.1667)],
            reviewer="llm:gpt-5-mini",
            cost=0.0031,
            refused=[
                Refused(parameter="budget.limit_usd", value="1000", why="not a tunable parameter"),
                Refused(parameter="response.top_p", value="0.2", why="below 0.5"),
            ],
            distrusted=["truncated"],
            reason="a lower temperature gives shorter, more focused answers",
        ),
    )
    third = round_record(
        3,
        params=cooled,
        micro_batches=2,
        tokens=7010,
        metrics=metrics(
            {"repetition": 16, "token_limit": 9, "duplicates": 40, "instruction_acceptance": 60},
            n=96,
            generated=128,
            kept=52,
            distinct=6_100.0,
        ),
        funnel=Funnel(128, 127, 97, 96, 96, 76, 52, 128).to_json(),
        causes={"sampling": 18, "token_cap": 6},
        stops={"eos": 25, "length": 9, "\nInstruction": 60, "\n###": 2},
        response_tokens=tuple(8 + (i * 29) % 90 for i in range(87)) + (100,) * 9,
        audit=audit(28, passed=True, ids=[5]),
        flagged_samples=(flagged(5, ("repetition",), cause="sampling"),),
        reason="repetition failed after 96 rows",
        spend=Spend(engine_seconds=66.0, engine_usd=0.000917, review_usd=0.0029),
        review=review(
            {"response.temperature": (0.2, 0.4), "fewshot.rotation": ("fixed", "rotate")},
            [("repetition", 0.0, 0.05, 0.0073), ("duplicates", 0.0, 0.1, None)],
            reviewer="llm:gpt-5-mini",
            cost=0.0029,
            reason="revert: loops grew from 5/96 to 16/96 after the temperature was lowered",
        ),
    )
    fourth = round_record(
        4,
        params=stopped.replace({"fewshot.rotation": "rotate"}),
        micro_batches=7,
        tokens=30_412,
        metrics=metrics(
            {"repetition": 3, "token_limit": 11, "truncated": 0, "duplicates": 9},
            n=412,
            generated=448,
            kept=355,
            distinct=31_000.0,
        ),
        funnel=Funnel(448, 440, 431, 412, 412, 398, 355, 448).to_json(),
        causes={"token_cap": 11, "sampling": 3},
        stops={"eos": 120, "length": 11, "\nInstruction": 270, "\n###": 11},
        response_tokens=tuple(6 + (i * 31) % 92 for i in range(401)) + (100,) * 11,
        audit=audit(30, passed=True),
        flagged_samples=(flagged(7, ("token_limit",), cause="token_cap"),),
        forecast={
            "attempts": 75_000,
            "expected": 31_000.0,
            "low": 24_800.0,
            "high": 38_750.0,
            "target": 15_000,
            "attempts_needed": 28_400,
            "draws": 440,
            "within_validated_range": True,
        },
        step="APPROVE",
        reason="every gate passed after 412 rows",
        spend=Spend(engine_seconds=241.0, engine_usd=0.003347),
        review=None,
    )
    return [round_record(1), second, third, fourth]


def run_record(**changes: Any) -> RunRecord:
    """The story's run, waiting for approval."""
    config = RunConfig()
    values: dict[str, Any] = {
        "run_id": "20261122-1433-a1b2",
        "created": "2026-11-22T14:33:00Z",
        "version": "0.1.0",
        "config": config.model_dump(mode="json"),
        "config_digest": config.digest(),
        "engine": asdict(
            EngineInfo(
                *("hf", "gemma-3-270m", "a5fd3b62" * 8, "cpu", "bfloat16", "gemma3", 32_768),
                special_tokens=("<bos>",),
                bos="<bos>",
            )
        ),
        "device_price_usd_per_hour": 0.05,
        "reviewer": "llm:gpt-5-mini: OPENAI_API_KEY is set",
        "limit_usd": 300.0,
        "confirmed_usd": 0.011968,
        "possible_usd": 0.011968,
        "status": "waiting",
        "reason": "every gate passed in round 4; the plan waits for approval",
        "plan": {
            "hash": "9f2c" * 16,
            "examples": 15_000,
            "max_attempts": 75_000,
            "max_cost_usd": 1.92,
            "expected_cost_usd": 0.61,
            "expected_seconds": 9_100.0,
            "expires": "2026-11-25T14:33:00Z",
        },
    }
    return RunRecord.model_validate({**values, **changes})
