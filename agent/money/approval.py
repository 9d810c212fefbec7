"""A person's yes to exactly one plan.

What a plan is stands in ``plan.py``; who may ask and how it is shown is the command line's; the
money is ``ledger.py``'s. The one idea: an approval names the hash of everything it covers, so
whatever changes makes it void, and using it and setting its money aside are one transaction. All
that is said about plans is sealed in the ledger's chain.
"""

import re
import secrets
import sqlite3
from typing import Final

from pydantic import ValidationError

from agent.errors import ApprovalError
from agent.money.amounts import usd_to_micro
from agent.money.chain import Entry, append
from agent.money.database import RunDatabase
from agent.money.ledger import Ledger
from agent.money.plan import Interval as Interval
from agent.money.plan import Plan as Plan

EXPIRY_SECONDS: Final = 72 * 3600.0
"""How long an offered plan can be approved, and how long an approval can be used."""
_PREFIX: Final = re.compile(r"[0-9a-f]{8,64}")


class Approvals:
    """The plans that one run has offered, and what people said to them."""

    def __init__(self, database: RunDatabase) -> None:
        self._db = database

    def offer(self, plan: Plan) -> str:
        """Make ``plan`` one that can be approved from now on, and return its hash.

        Raises:
            ApprovalError: if a person has rejected this very plan.
        """
        with self._db.transaction():
            found = self._db.query("SELECT rejected FROM plans WHERE hash = ?", (plan.hash,))
            if found and found[0]["rejected"] is not None:
                raise ApprovalError(f"plan {_short(plan.hash)} was rejected: {found[0][0]}")
            maximum = usd_to_micro(plan.max_cost_usd)
            entry = Entry("offer", plan.hash, "scale", amount=maximum, digest=plan.hash)
            at = append(self._db, entry)
            self._db.execute(
                "INSERT INTO plans (hash, body, offered_at) VALUES (?, ?, ?)"
                " ON CONFLICT (hash) DO UPDATE SET offered_at = excluded.offered_at",
                (plan.hash, plan.canonical, at),
            )
        return plan.hash

    def plan(self, prefix: str) -> Plan:
        """The offered plan whose hash is, or begins with, ``prefix``.

        Raises:
            ApprovalError: if none or several do, or the stored plan is not what was offered.
        """
        return self._load(self._find(prefix))

    def approve(self, prefix: str) -> str:
        """Record a person's yes to the plan with that hash, and return the approval's id.

        The same again returns the same approval; a yes to another plan takes its place.

        Raises:
            ApprovalError: if the plan was not offered, has expired, was rejected, or was used.
        """
        with self._db.transaction():
            digest = self._find(prefix)
            self._check_offer(digest)
            given = self._db.query("SELECT * FROM approvals WHERE state = 'given'")
            if given and given[0]["plan"] == digest and self._fresh(given[0]["approved_at"]):
                return str(given[0]["id"])
            self._db.execute("UPDATE approvals SET state = 'void' WHERE state = 'given'")
            approval = f"approval-{secrets.token_hex(8)}"
            at = append(self._db, Entry("approve", approval, "scale", digest=digest))
            self._db.execute(
                "INSERT INTO approvals (id, plan, approved_at) VALUES (?, ?, ?)",
                (approval, digest, at),
            )
        return approval

    def given(self) -> str | None:
        """Id of the approval that waits to be used, or None."""
        found = self._db.query("SELECT id, approved_at FROM approvals WHERE state = 'given'")
        return str(found[0]["id"]) if found and self._fresh(found[0]["approved_at"]) else None

    def in_use(self) -> str | None:
        """Id of the approval whose money is set aside and not yet released, or None."""
        found = self._db.query(
            "SELECT approvals.id FROM approvals JOIN envelopes USING (id)"
            " WHERE approvals.state = 'used' AND envelopes.state = 'open'"
        )
        return str(found[0]["id"]) if found else None

    def approved_plan(self, approval: str) -> Plan:
        """The plan that an approval covers.

        Raises:
            ApprovalError: if there is no such approval.
        """
        return self._load(self._need(approval)["plan"])

    def consume(self, approval: str, ledger: Ledger, *, plan: Plan | None = None) -> str:
        """Use an approval: check it, set its maximum aside, mark it used, all or nothing.

        Args:
            approval: Its id, which is also the name of the envelope.
            ledger: Where the plan's maximum is set aside.
            plan: The plan as it stands now; it must be the one that was approved.

        Returns:
            The envelope that the plan's micro-batches draw on.

        Raises:
            ApprovalError: if it does not exist, has expired, was used, or covers another plan.
            BudgetError: if the plan's maximum no longer fits under the cap.
        """
        with self._db.transaction():
            row = self._need(approval)
            if row["state"] == "used":
                raise ApprovalError(f"{approval} was used already: approve a plan again")
            if row["state"] == "void" or not self._fresh(row["approved_at"]):
                raise ApprovalError(
                    f"{approval} is no longer valid: it has expired after 72 h, was replaced or "
                    "rejected; approve a plan again"
                )
            self._check_not_rejected(row["plan"])
            approved = self._load(row["plan"])
            if plan is not None:
                _check_same(approved, plan)
            self._check_no_other(approval)
            maximum = usd_to_micro(approved.max_cost_usd)
            append(self._db, Entry("use", approval, "scale", amount=maximum, digest=approved.hash))
            ledger.reserve_envelope(approval, maximum)
            self._db.execute("UPDATE approvals SET state = 'used' WHERE id = ?", (approval,))
        return approval

    def authorise(self, approval: str, ledger: Ledger, *, plan: Plan | None = None) -> str:
        """The open envelope of ``approval``, consuming it if that has not been done yet.

        For a step that may be repeated after a crash: the second time it finds what the first
        time set aside.

        Raises:
            ApprovalError: as :meth:`consume`, and if its envelope is closed.
            BudgetError: as :meth:`consume`.
        """
        with self._db.transaction():
            envelope = ledger.envelope(approval)
            if envelope is None or envelope.state != "open":
                return self.consume(approval, ledger, plan=plan)
            if plan is not None:
                _check_same(self.approved_plan(approval), plan)
        return approval

    def reject(self, reason: str) -> None:
        """Record a person's no: every plan offered so far, and a yes not yet used, are void."""
        reason = reason or "no reason given"
        with self._db.transaction():
            append(self._db, Entry("reject", "plans", "scale", note=reason))
            self._db.execute(
                "UPDATE plans SET rejected = ? WHERE rejected IS NULL"
                " AND hash NOT IN (SELECT plan FROM approvals WHERE state = 'used')",
                (reason,),
            )
            self._db.execute("UPDATE approvals SET state = 'void' WHERE state = 'given'")

    def _find(self, prefix: str) -> str:
        """Full hash of the one plan that ``prefix`` begins."""
        if not _PREFIX.fullmatch(prefix):
            raise ApprovalError(
                f"{prefix[:80]!r} is not a plan's hash: expected 8 to 64 of 0-9 and a-f, "
                "as printed by the plan command"
            )
        found = self._db.query("SELECT hash FROM plans WHERE hash GLOB ?", (prefix + "*",))
        if len(found) != 1:
            what = "several plans begin" if found else "no plan of this run begins"
            raise ApprovalError(f"{what} with {prefix!r}: print a plan, and pass the hash below it")
        return str(found[0]["hash"])

    def _load(self, digest: str) -> Plan:
        (row,) = self._db.query("SELECT body FROM plans WHERE hash = ?", (digest,))
        try:
            plan = Plan.model_validate_json(row["body"])
        except ValidationError as error:
            raise ApprovalError(f"plan {_short(digest)} is damaged: print another one") from error
        if plan.hash != digest:
            raise ApprovalError(f"plan {_short(digest)} is not what was offered: print another one")
        return plan

    def _need(self, approval: str) -> sqlite3.Row:
        found = self._db.query("SELECT * FROM approvals WHERE id = ?", (approval,))
        if not found:
            raise ApprovalError(f"there is no approval {approval[:80]!r}: approve a plan first")
        return found[0]

    def _fresh(self, since: float) -> bool:
        return self._db.clock() - since < EXPIRY_SECONDS

    def _check_offer(self, digest: str) -> None:
        self._check_not_rejected(digest)
        (row,) = self._db.query("SELECT offered_at FROM plans WHERE hash = ?", (digest,))
        if not self._fresh(row["offered_at"]):
            raise ApprovalError(
                f"plan {_short(digest)} was offered more than 72 h ago: print it again, look at "
                "it, and approve it then"
            )
        used = self._db.query(
            "SELECT id FROM approvals WHERE plan = ? AND state = 'used'", (digest,)
        )
        if used:
            raise ApprovalError(
                f"plan {_short(digest)} was approved and used before: an approval counts once; "
                "resume the run, or print another plan"
            )

    def _check_not_rejected(self, digest: str) -> None:
        (row,) = self._db.query("SELECT rejected FROM plans WHERE hash = ?", (digest,))
        if row["rejected"] is not None:
            raise ApprovalError(
                f"plan {_short(digest)} was rejected ({row['rejected'][:200]}): print another one"
            )

    def _check_no_other(self, approval: str) -> None:
        other = self._db.query(
            "SELECT id FROM envelopes WHERE state = 'open' AND id <> ?", (approval,)
        )
        if other:
            raise ApprovalError(
                f"this run works under {other[0]['id']} already: let it finish, then approve"
            )


def _check_same(approved: Plan, now: Plan) -> None:
    """An approval covers exactly what was shown."""
    if approved.hash == now.hash:
        return
    before, after = approved.model_dump(mode="json"), now.model_dump(mode="json")
    changed = ", ".join(sorted(name for name in before if before[name] != after[name]))
    raise ApprovalError(
        f"the approval covers plan {_short(approved.hash)}, but {changed} changed since: "
        "print the plan again, and approve it then"
    )


def _short(digest: str) -> str:
    return digest[:12]
