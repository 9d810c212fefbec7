"""Reviewers: whoever reads a learnings report and recommends changes."""

from collections.abc import Mapping
from importlib.util import find_spec
from urllib.parse import urlsplit

from agent.config import PricesSection, ReviewerSection
from agent.errors import ConfigError
from agent.reviewers.base import Bill, Pay, Reviewer, ReviewFailed

__all__ = ["Bill", "Pay", "ReviewFailed", "Reviewer", "choose_reviewer"]


def choose_reviewer(
    section: ReviewerSection, prices: PricesSection, environ: Mapping[str, str], seed: int = 0
) -> tuple[Reviewer, str]:
    """The configured reviewer, and the sentence that says which one it is and why.

    ``seed`` is for a reviewer that draws.

    Raises:
        ConfigError: if an LLM is asked for and its key or its price is missing, or a search and its
            package is.
    """
    key = environ.get(section.api_key_env, "")
    if section.kind == "rules":
        return _rules(section), "rules, as configured; they cost nothing"
    if section.kind == "bayes":
        return _bayes(section, seed), "bayes, as configured: a search, which costs nothing"
    if section.kind == "auto" and not key:
        return _rules(section), f"rules, since {section.api_key_env} is not set; they cost nothing"
    if not key and not _on_loopback(section.base_url):
        raise ConfigError(
            f"reviewer.kind is llm, but the environment variable {section.api_key_env} is not "
            "set; set it, or set reviewer.kind to rules"
        )
    why = f"since {section.api_key_env} is set" if section.kind == "auto" else "as configured"
    where = section.base_url or "OpenAI"
    from agent.reviewers.llm import LlmReviewer

    reviewer = LlmReviewer(section, prices=prices, api_key=key or "none")
    return reviewer, f"{section.model} at {where}, {why}"


def _rules(section: ReviewerSection) -> Reviewer:
    from agent.reviewers.rules import RulesReviewer

    return RulesReviewer(max_changes=section.max_changes)


def _bayes(section: ReviewerSection, seed: int) -> Reviewer:
    if find_spec("optuna") is None:
        raise ConfigError(
            "reviewer.kind is bayes, which needs Optuna: pip install 'sft-assay[bayes]', or set "
            "reviewer.kind to rules"
        )
    from agent.reviewers.bayes import BayesReviewer

    return BayesReviewer(max_changes=section.max_changes, seed=seed)


def _on_loopback(url: str | None) -> bool:
    try:
        return urlsplit(url or "").hostname in {"127.0.0.1", "localhost", "::1"}
    except ValueError:  # LlmReviewer says what is wrong with the address
        return False
