"""Rules of the program broken on purpose, and the tests that must see it: the suite's own proof.

A break is the smallest edit that makes a promise false. The one idea: an edit that no longer finds
its place is an error too, so that this list follows the code.
"""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPIED = ("agent", "pipeline", "prompts", "tests", "benchmarks", "pyproject.toml", "budget.yaml")


@dataclass(frozen=True, slots=True)
class Break:
    """One rule, broken."""

    rule: str
    """What no longer holds."""
    file: str
    """Where it is broken."""
    old: str
    """Text that stands there once."""
    new: str
    """What takes its place."""
    test: str
    """What must fail then: arguments of pytest."""


BREAKS: tuple[Break, ...] = (
    Break(
        "the cap covers what is pending",
        "agent/money/schema.py",
        "CONSTRAINT cap CHECK (posted + pending <= cap)",
        "CONSTRAINT cap CHECK (posted <= cap)",
        "tests/test_ledger.py::test_what_does_not_fit_is_refused_with_every_figure",
    ),
    Break(
        "a stage's own cap covers what is pending",
        "agent/money/schema.py",
        "CONSTRAINT sub_cap CHECK (posted + pending <= cap)",
        "CONSTRAINT sub_cap CHECK (posted <= cap)",
        "tests/test_ledger.py::test_a_stage_has_a_cap_of_its_own",
    ),
    Break(
        "what a dead process left pending is charged",
        "agent/money/ledger.py",
        "Charge(row.worst_case, 0.0, UNKNOWN)",
        "Charge(0, 0.0, UNKNOWN)",
        "tests/test_ledger_processes.py::test_kill_9_between_reserve_and_post_is_charged_in_full",
    ),
    Break(
        "a request that timed out is charged",
        "agent/reviewers/chat.py",
        'within {seconds:.0f} s"\n        raise RequestFailed(message, retry=False, billed=True)',
        'within {seconds:.0f} s"\n        raise RequestFailed(message, retry=False, billed=False)',
        "tests/test_reviewer_llm.py::test_the_deadline_is_total_and_what_is_unknown_is_charged",
    ),
    Break(
        "there is one retry layer",
        "agent/reviewers/chat.py",
        "max_retries=0",
        "max_retries=2",
        "tests/proofs/test_promise_provider.py"
        "::test_every_fault_alone_has_a_reservation_for_each_request",
    ),
    Break(
        "usage that cannot be true is charged in full",
        "agent/reviewers/reply.py",
        "prompt_tokens: int = Field(ge=1)\n    completion_tokens: int = Field(ge=0)",
        "prompt_tokens: int\n    completion_tokens: int",
        "tests/test_reviewer_llm.py::test_usage_that_cannot_be_true_is_charged_in_full",
    ),
    Break(
        "a name is durable only when its folder is",
        "agent/store.py",
        "                fsync_tree(temporary)",
        "                pass",
        "tests/proofs/test_promise_disk.py::TestP7",
    ),
    Break(
        "rows are what their name says",
        "agent/store.py",
        "        if hashlib.sha256(content).hexdigest() != sha256:",
        "        if False:",
        "tests/test_store.py",
    ),
    Break(
        "a process that was overtaken writes no file",
        "agent/store.py",
        "with self.fence(), replacing(path) as stream:",
        "with replacing(path) as stream:",
        "tests/test_run.py::test_a_process_that_was_overtaken_can_write_nothing",
    ),
    Break(
        "a process that was overtaken writes no money",
        "agent/money/database.py",
        "if row[0] != self.owner:",
        "if row[0] < self.owner:",
        "tests/test_database.py::test_a_runner_that_wakes_up_after_a_takeover_writes_nothing",
    ),
    Break(
        "one process holds the lock",
        "agent/lock.py",
        "LOCK_EX | fcntl.LOCK_NB",
        "LOCK_SH | fcntl.LOCK_NB",
        "tests/test_lock.py::test_of_four_that_start_at_once_one_proceeds",
    ),
    Break(
        "a checkpoint is what was written",
        "agent/checkpoints.py",
        'encode("ascii") != seal:',
        'encode("ascii") == b"":',
        "tests/test_checkpoints.py::test_every_flipped_bit_is_found",
    ),
    Break(
        "a stop that hangs holds nothing up",
        "agent/signals.py",
        "            os._exit(EXIT)\n",
        "            pass\n",
        "tests/test_signals.py::test_a_stop_that_hangs_holds_nothing_up",
    ),
    Break(
        "an approval covers every field of its plan",
        "agent/money/approval.py",
        "                _check_same(approved, plan)",
        "                pass",
        "tests/proofs/test_promise_approval.py::test_every_field_is_covered",
    ),
    Break(
        "an approval expires",
        "agent/money/approval.py",
        '            if row["state"] == "void" or not self._fresh(row["approved_at"]):',
        '            if row["state"] == "void":',
        "tests/proofs/test_promise_approval.py::TestStale::test_an_old_yes",
    ),
    Break(
        "a key that is echoed is not kept",
        "agent/reviewers/chat.py",
        "return Redactor(endpoint.api_key)(body)",
        "return body",
        "tests/test_reviewer_llm.py::test_an_echo_of_the_key_is_not_kept",
    ),
    Break(
        "a name within a run stays within it",
        "agent/paths.py",
        'part in {".", ".."} or',
        'part in {"."} or',
        "tests/proofs/test_promise_paths.py::test_what_is_allowed_is_inside",
    ),
    Break(
        "the audit looks at every table",
        "agent/money/replay.py",
        '            "owners": self.owners,\n',
        "",
        "tests/test_audit.py::test_every_column_of_every_row_of_every_table_is_checked",
    ),
    Break(
        "verify asks the ledger",
        "agent/verify/check.py",
        "        problems = audit(database)",
        "        problems = ()",
        "tests/test_verify.py::test_a_lie_that_is_told_everywhere_is_found_at_its_root",
    ),
    Break(
        "a run ended as its books say",
        "agent/verify/stored.py",
        "self.told = follows(past, state, self.run)",
        "self.told = True",
        "tests/test_verify.py::test_an_ending_that_the_books_do_not_hold_differs",
    ),
    Break(
        "the record's cap is the ledger's",
        "agent/verify/claims.py",
        "if wanted != found.get(name):",
        "if wanted is found:",
        "tests/test_verify.py::test_a_cap_that_was_raised_in_the_record_is_not_the_ledgers",
    ),
    Break(
        "true is no number",
        "agent/guard.py",
        "isinstance(value, bool) or not isinstance(value, kinds)",
        "not isinstance(value, kinds)",
        "tests/proofs/test_promise_replies.py::test_no_reply_crashes_or_leaves_the_bounds",
    ),
    Break(
        "an answer has a size",
        "agent/reviewers/chat.py",
        "                if size > _MAX_BODY_BYTES:",
        "                if False:",
        "tests/proofs/test_promise_transport.py::test_a_gigabyte_is_neither_held_nor_waited_for",
    ),
    Break(
        "nothing inside of a fence closes it",
        "prompts/render.py",
        '"`" * max([3, *(run + 1 for run in runs)])',
        '"`" * 3',
        "tests/proofs/test_promise_injection.py"
        "::test_orders_in_samples_are_obeyed_and_achieve_nothing",
    ),
    Break(
        "a verdict does not ask how sure a reviewer is",
        "agent/stages/measuring.py",
        "    facts = _facts(round_, pilots=alpha_index(session, place))\n",
        "    facts = _facts(round_, pilots=alpha_index(session, place))\n"
        "    if any(r.review and r.review.review.confidence == 1 for r in "
        "session.store.load_rounds()):\n"
        "        facts = replace(facts, audit_passed=not facts.audit_passed)\n",
        "tests/proofs/test_promise_verdicts.py::test_a_judgement_does_not_read_reviews",
    ),
)


def copy_of_the_project(folder: Path) -> Path:
    """A copy of what tests need, to be broken."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            shutil.copy(source, folder / name)
    return folder


def apply(broken: Break, project: Path) -> None:
    """Break the rule in the copy at ``project``."""
    path = project / broken.file
    text = path.read_text(encoding="utf-8")
    assert text.count(broken.old) == 1, (
        f"{broken.file} holds {text.count(broken.old)} x {broken.old!r}"
    )
    path.write_text(text.replace(broken.old, broken.new), encoding="utf-8")


def run(test: str, project: Path) -> subprocess.CompletedProcess[str]:
    """The test within the copy, which is what it imports."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *test.split()],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
