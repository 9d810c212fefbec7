"""budget.yaml: what ships is what is documented, and what is wrong is named."""

from pathlib import Path

import pytest

from agent.config import RunConfig
from agent.config_file import load_config
from agent.errors import ConfigError

ROOT = Path(__file__).parents[1]


def test_the_shipped_file_states_the_defaults_and_every_key() -> None:
    shipped = load_config(ROOT / "budget.yaml").model_dump()
    defaults = RunConfig().model_dump()
    reviewers = shipped["prices"].pop("reviewers")
    defaults["prices"].pop("reviewers")
    assert shipped == defaults
    assert RunConfig().reviewer.model in reviewers
    text = (ROOT / "budget.yaml").read_text(encoding="utf-8")
    missing = [key for key in _keys(defaults) if f"{key}:" not in text]
    assert missing == []


def _keys(tree: dict[str, object]) -> list[str]:
    nested = [key for value in tree.values() if isinstance(value, dict) for key in _keys(value)]
    return [*tree, *nested] if "cuda" not in tree else []


def test_the_option_replaces_the_cap() -> None:
    assert load_config(ROOT / "budget.yaml", limit_usd=12.5).budget.limit_usd == 12.5


WRONG = {
    "unknown section": ("enginee: {}", "did you mean 'engine'?"),
    "unknown key": ("engine: {devcie: cpu}", "engine.devcie: unknown key; did you mean 'device'?"),
    "unknown deep key": ("parameters: {response: {temprature: 1}}", "'temperature'"),
    "unknown price key": ("prices: {reviewers: {m: {input: 2}}}", "input_usd_per_million"),
    "negative budget": ("budget: {limit_usd: -5}", "greater than 0, found -5"),
    "absurd budget": ("budget: {limit_usd: 1.0e+12}", "less than or equal to 1000000"),
    "infinite budget": ("budget: {limit_usd: .inf}", "finite"),
    "not a number": ("budget: {limit_usd: .nan}", "finite"),
    "boolean for a number": ("budget: {limit_usd: true}", "found True"),
    "text for a number": ("budget: {limit_usd: '300'}", "found '300'"),
    "a number that YAML takes for text": (
        "budget: {limit_usd: 1e-9}",
        "found '1e-9', which is text in YAML; write 1.0e-9 or 0.000000001",
    ),
    "a stage's cap above the run's": (
        "budget: {limit_usd: 10, scale_usd: 11}",
        "budget: scale_usd is $11, more than the cap on everything, $10 of budget.limit_usd: ",
    ),
    "out of range": ("parameters: {response: {top_p: 3}}", "found 3"),
    "a longer review than is promised": ("reviewer: {timeout_seconds: 181.0}", "equal to 180"),
    "two sides": ("thresholds: {runaway: {max: 0.1, min: 0.1}}", "exactly one of max and min"),
    "no side": ("thresholds: {runaway: {}}", "exactly one of max and min"),
    "the wrong side": ("thresholds: {runaway: {min: 0.5}}", "runaway takes max"),
    "twice": ("engine: {}\nengine: {}", "'engine' stands twice"),
    "a list": ("- engine", "expected sections"),
    "not YAML": ("engine: [", "not valid YAML"),
    "a tag": ("engine: !!python/object/apply:os.system [ls]", "not valid YAML"),
    "too many stops": (f"parameters: {{response: {{stop: {[str(i) for i in range(9)]}}}}}", "8"),
    "smoke test too small": ("pilot: {smoke_rows: 4}", "24"),
}


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "budget.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


SECRET = "sk-canary-0123456789"
KEYS_IN_THE_FILE = {
    "user of the address": f"reviewer: {{base_url: 'https://{SECRET}@host/v1'}}",
    "password of the address": f"engine: {{base_url: 'http://me:{SECRET}@host/v1'}}",
    "query of the address": f"reviewer: {{base_url: 'https://host/v1?api_key={SECRET}'}}",
    "fragment of the address": f"engine: {{base_url: 'https://host/v1#{SECRET}'}}",
    "no address at all": f"reviewer: {{base_url: ['https://{SECRET}@host/v1']}}",
    "in place of the variable": f"reviewer: {{api_key_env: {SECRET}}}",
    "in place of the engine's": f"engine: {{api_key_env: {SECRET}}}",
    "a key of its own": f"engine: {{api_key: {SECRET}}}",
}


@pytest.mark.parametrize("text", KEYS_IN_THE_FILE.values(), ids=KEYS_IN_THE_FILE)
def test_a_secret_in_the_file_is_refused_and_not_repeated(tmp_path: Path, text: str) -> None:
    path = tmp_path / "budget.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="api_key_env|base_url") as caught:
        load_config(path)
    assert SECRET not in str(caught.value)


def test_a_stages_cap_above_the_options_names_the_option(tmp_path: Path) -> None:
    path = tmp_path / "budget.yaml"
    path.write_text("budget: {limit_usd: 300, pilot_usd: 11}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"\$10 of --budget") as caught:
        load_config(path, limit_usd=10)
    assert "found" not in str(caught.value)


def test_all_that_is_wrong_is_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "budget.yaml"
    path.write_text("budget: {limit_usd: 0}\nscale: {examples: 0}\nx: 1", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value).count("\n") == 3


def test_a_missing_file_and_an_unreadable_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--config"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"engine: {model: \xff}")
    with pytest.raises(ConfigError, match="cannot read"):
        load_config(tmp_path / "latin.yaml")


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("", encoding="utf-8")
    assert load_config(tmp_path / "empty.yaml") == RunConfig()


def test_the_digest_covers_every_value() -> None:
    assert RunConfig().digest() == RunConfig().digest()
    assert load_config(ROOT / "budget.yaml", limit_usd=1).digest() != RunConfig().digest()
