"""Replay: the samples that other parameters would have made, from stored ones, exactly and for $0.

Stop strings, a lower cap, cleaning, detectors, critics and margins only cut or judge what an engine
wrote, so they are applied again to raw texts and the ends of their tokens; whatever draws other
tokens is refused by name. Measuring what comes out is ``metrics.py``'s work. The one idea: a text
that replay changes has lost its score, and nothing is said of it until it is scored again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pipeline.causes import cause
from pipeline.detection.clean import clean
from pipeline.detection.detectors import detect
from pipeline.metrics import Margins, Measurement, Rules, measure, unmeasured
from pipeline.params import GenParams
from pipeline.recut import BROKEN, ended
from pipeline.types import Sample

UNSCORED: Final = "unscored"
"""``Sample.dropped`` of a row whose text replay changed, until a critic has seen it again."""
_POOLED: Final = "rows that it keeps or drops are the examples of later prompts"
"""Why nothing may change for rows whose prompts show the rows kept before; a probe's show none."""
_BY_KEPT: Final = ("raw_acceptance", "median_tokens")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A parameter that replay cannot answer for."""

    parameter: str
    """Its dotted name."""
    reason: str
    """Why it needs generation."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What stored samples would have been under other parameters."""

    samples: tuple[Sample, ...]
    """Every sample, as that setting would have made it; none where something is refused."""
    refused: tuple[Refusal, ...]
    """What cannot be replayed on these samples, in the order of the parameters."""
    changed: int
    """Responses whose text or ending is another one."""
    unscored: int
    """Responses that the pair critic has not seen as they are now."""


def replay(samples: Sequence[Sample], *, made_with: GenParams, wanted: GenParams) -> Replayed:
    """What ``samples`` would have been under ``wanted``.

    Args:
        samples: Every instruction drawn, in draw order, with raw texts and ends of tokens.
        made_with: The setting that made them. An instruction margin of None says that every
            instruction was answered, whatever its score.
        wanted: The setting that is asked about; its margins are numbers.
    """
    refused = refusals(made_with, wanted) or _moved_up(samples, made_with, wanted)
    assert wanted.critic.pair != "auto", "critics are named before anything is judged"
    if refused:
        return Replayed((), refused, 0, 0)
    same_end = _end(made_with) == _end(wanted)
    cuts = [_recut(s, wanted, same_end=same_end) if s.answered else s for s in samples]
    untold = sum(cut is None for cut in cuts)
    if untold:
        return Replayed((), (_untold(untold, len(samples), made_with, wanted),), 0, 0)
    margins = Margins.of(wanted.critic)
    done = tuple(_judged(s, margins) for s in cuts if s is not None)
    both = [(old, new) for old, new in zip(samples, done, strict=True) if new.answered]
    return Replayed(
        samples=done,
        refused=(),
        changed=sum((o.raw, o.finish_reason) != (n.raw, n.finish_reason) for o, n in both),
        unscored=sum(_unscored(new, margins) for _, new in both),
    )


def rejudge(replayed: Replayed, samples: Sequence[Sample], wanted: GenParams) -> Replayed:
    """The same rows after critics have scored changed texts: ``samples`` hold the scores."""
    margins = Margins.of(wanted.critic)
    done = tuple(_judged(s, margins) for s in samples)
    left = sum(_unscored(s, margins) for s in done if s.answered)
    return replace(replayed, samples=done, unscored=left)


def unscored(samples: Sequence[Sample], wanted: GenParams) -> list[Sample]:
    """Responses that the deciding pair critic has not seen as they are now."""
    margins = Margins.of(wanted.critic)
    return [s for s in samples if s.answered and _unscored(s, margins)]


def refusals(made_with: GenParams, wanted: GenParams) -> tuple[Refusal, ...]:
    """What of the difference between two settings needs generation, by name."""
    before, after = _leaves(made_with.model_dump()), _leaves(wanted.model_dump())
    differing = [name for name in before if before[name] != after[name]]
    if made_with.critic.instruction_margin is None:
        differing = [name for name in differing if not name.startswith("critic.")]
    elif made_with.fewshot.rotation == "pool":
        return tuple(
            Refusal(name, _why(name, before[name], after[name]) or _POOLED) for name in differing
        )
    found = ((name, _why(name, before[name], after[name])) for name in differing)
    return tuple(Refusal(name, why) for name, why in found if why is not None)


def measure_replayed(replayed: Replayed, rules: Rules, *, wanted: int) -> Measurement:
    """The metrics of replayed samples; what depends on missing scores is unmeasured.

    A yield is not: replay draws no instructions, so it says nothing new of how many are distinct.
    """
    found = measure(replayed.samples, rules, wanted=wanted)
    if not replayed.unscored:
        return found
    why = f"not measured: {replayed.unscored} texts that replay changed are not scored again"
    names = (*_BY_KEPT, "pair_acceptance")
    metrics = (
        unmeasured(m.name, why, threshold=m.threshold) if m.name in names else m
        for m in found.metrics
    )
    return replace(found, metrics=tuple(metrics))


def _leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            found |= _leaves(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def _why(name: str, before: Any, after: Any) -> str | None:
    """Why a parameter's new value needs generation; None where it only cuts or judges."""
    group, _, leaf = name.partition(".")
    if name == "response.stop":
        missing = [stop for stop in before if stop not in after]
        if missing:
            named = ", ".join(map(repr, missing))
            return f"the rows end where {named} began: what would have followed was not drawn"
        broken = any(BROKEN in stop for stop in after)
        return "a stop string of broken characters cannot be found again" if broken else None
    if name == "response.max_new_tokens":
        return f"the rows were drawn up to {before} tokens only" if after > before else None
    if group == "critic":
        return _why_critic(leaf, before, after)
    if group in ("instruction", "response"):
        return "it draws other tokens"
    if name == "oversample":
        return "it draws another number of instructions"
    return "it changes the prompts"


def _why_critic(leaf: str, before: Any, after: Any) -> str | None:
    """Margins and critics judge what is there, but a rejected instruction was not answered."""
    match leaf:
        case "instruction_margin" if after is None or after < before:
            return f"instructions that scored {before:g} or less were not answered"
        case "instruction":
            return f"instructions that {before} rejected were not answered"
    return None


def _moved_up(
    samples: Sequence[Sample], made_with: GenParams, wanted: GenParams
) -> tuple[Refusal, ...]:
    """A stricter instruction margin lets accepted rows move up that were left unanswered."""
    if made_with.critic.instruction_margin in {None, wanted.critic.instruction_margin}:
        return ()
    left = sum(s.dropped is None and not s.answered for s in samples)
    why = f"{left} accepted instructions were not answered, and some of them would have been"
    return (Refusal("critic.instruction_margin", why),) if left else ()


def _untold(count: int, rows: int, made_with: GenParams, wanted: GenParams) -> Refusal:
    same_cap = made_with.response.max_new_tokens == wanted.response.max_new_tokens
    name = "response.stop" if same_cap else "response.max_new_tokens"
    return Refusal(
        name, f"where the tokens of {count} of {rows} rows end was not told by the engine"
    )


def _end(params: GenParams) -> tuple[frozenset[str], int]:
    """What ends responses."""
    return frozenset(params.response.stop), params.response.max_new_tokens


def _recut(sample: Sample, wanted: GenParams, *, same_end: bool) -> Sample | None:
    """An answered sample under other stop strings and cap; None where its tokens are not told."""
    stop, instruction = wanted.response.stop, sample.instruction
    cut = sample if same_end else ended(sample, stop, wanted.response.max_new_tokens)
    if cut is None:
        return None
    text = clean(cut.raw or "", stop=stop, instruction=instruction)
    same = text == sample.clean
    cut = replace(
        cut,
        clean=text,
        clean_tokens=sample.clean_tokens if same else None,
        pair_scores=sample.pair_scores if same else {},
    )
    return replace(cut, flags=detect(cut, stop=stop))


def _judged(sample: Sample, margins: Margins) -> Sample:
    """The stage that drops a sample under these critics, and the cause."""
    if sample.dropped == "parser":
        return sample
    dropped = _dropped(sample, margins)
    if dropped == "duplicate":
        sample = replace(_unanswered(sample), instruction_score=None, instruction_scores={})
    if dropped == "instruction_critic":
        sample = _unanswered(sample)
    score = margins.instruction_score(sample)
    sample = replace(sample, instruction_score=score, dropped=dropped)
    return replace(sample, cause=cause(sample))


def _dropped(sample: Sample, margins: Margins) -> str | None:
    if sample.dropped == "duplicate":
        return "duplicate"
    scored = margins.instruction_score(sample) is not None
    if scored and margins.instruction is not None and not margins.accepts_instruction(sample):
        return "instruction_critic"
    if not sample.answered:
        return None
    if sample.flags:
        return "detector"
    if _unscored(sample, margins):
        return UNSCORED
    return None if margins.accepts_pair(sample) else "pair_critic"


def _unscored(sample: Sample, margins: Margins) -> bool:
    return bool(sample.clean) and margins.pair_critic not in sample.pair_scores


def _unanswered(sample: Sample) -> Sample:
    """A sample whose instruction would not have been answered."""
    return replace(
        sample, raw=None, clean=None, clean_tokens=None, finish_reason=None, stop=None,
        token_ids=(), token_ends=None, trimmed="", pair_scores={}, flags=(),
    )  # fmt: skip
