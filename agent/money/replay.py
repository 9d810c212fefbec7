"""What the ledger's entries alone say that its tables hold, by arithmetic of its own.

Shares nothing with the code that writes; comparing with what stands there is ``audit.py``'s. The
one idea: every table is a function of the entries, so it is told again from the first one, row by
row and column by column, and whatever an entry breaks on the way is said.
"""

from collections.abc import Callable
from typing import Any, Final

from agent.money.chain import Entry, SealedEntry

Row = dict[str, Any]
UNLIMITED: Final = 10**15
DIGESTED: Final = {"results": "body", "plans": "body"}
"""Columns that entries hold the SHA-256 of."""


class Replay:
    """The tables as the entries told so far give them; a row by its key."""

    def __init__(self) -> None:
        self.totals: Row = {
            "id": 1, "cap": 0, "posted": 0, "pending": 0, "excess": 0, "entries": 0, "head": "",
        }  # fmt: skip
        self.sub_caps: dict[Any, Row] = {
            name: {"name": name, "cap": None, "posted": 0, "pending": 0, "excess": 0}
            for name in ("pilot", "review", "scale")
        }
        self.owners: dict[Any, Row] = {}
        self.envelopes: dict[Any, Row] = {}
        self.operations: dict[Any, Row] = {}
        self.results: dict[Any, Row] = {}
        self.plans: dict[Any, Row] = {}
        self.approvals: dict[Any, Row] = {}

    @property
    def tables(self) -> dict[str, dict[Any, Row]]:
        """Every table but the entries, by name."""
        return {
            "totals": {1: self.totals},
            "sub_caps": self.sub_caps,
            "owners": self.owners,
            "envelopes": self.envelopes,
            "operations": self.operations,
            "results": self.results,
            "plans": self.plans,
            "approvals": self.approvals,
        }

    def follow(self, sealed: SealedEntry) -> list[str]:
        """Apply one entry, and name what it breaks."""
        self.totals["entries"], self.totals["head"] = sealed.seq, sealed.hash
        steps: dict[str, Callable[[SealedEntry], list[str] | None]] = {
            "open": self._open,
            "claim": self._claim,
            "reserve": self._reserve,
            "post": self._post,
            "void": self._void,
            "envelope": self._set_aside,
            "close": self._close,
            "offer": self._offer,
            "approve": self._approve,
            "reject": self._reject,
            "use": self._use,
        }
        try:
            found = steps[sealed.entry.kind](sealed) or []
        except KeyError as error:
            return [f"names {error}, which no entry before it has opened"]
        except TypeError:
            return ["holds what is not a number in place of one"]
        return found + self._broken()

    def _broken(self) -> list[str]:
        """Rules that balances break after an entry."""
        caps = [("the cap", self.totals), *((f"the {n} cap", r) for n, r in self.sub_caps.items())]
        broken = []
        for name, row in caps:
            if row["cap"] is not None and row["posted"] + row["pending"] > row["cap"]:
                broken.append(f"exceeds {name}")
            if min(row["posted"], row["pending"], row["excess"]) < 0:
                broken.append(f"makes a balance under {name} negative")
        return broken

    def _open(self, sealed: SealedEntry) -> None:
        row = self.totals if sealed.entry.op_id == "cap" else self.sub_caps[sealed.entry.stage]
        row["cap"] = sealed.entry.amount

    def _claim(self, sealed: SealedEntry) -> list[str]:
        entry = sealed.entry
        newest = max(self.owners, default=0)
        self.owners[sealed.owner] = {
            "epoch": sealed.owner, "pid": entry.amount, "host": entry.note, "at": sealed.at,
        }  # fmt: skip
        return [] if sealed.owner == newest + 1 else ["claims the run out of turn"]

    def _reserve(self, sealed: SealedEntry) -> list[str]:
        entry = sealed.entry
        again = entry.op_id in self.operations
        self.operations[entry.op_id] = {
            "op_id": entry.op_id, "stage": entry.stage, "round": entry.round,
            "envelope": entry.envelope, "worst_case": entry.amount, "state": "pending",
            "actual": None, "excess": 0, "engine_seconds": 0.0, "note": "",
            "owner": sealed.owner, "at": sealed.at,
        }  # fmt: skip
        if entry.envelope is None:
            self._pend(entry.stage, entry.amount)
            return ["reserves an attempt twice"] if again else []
        envelope = self.envelopes[entry.envelope]
        envelope["held"] += entry.amount
        full = envelope["spent"] + envelope["held"] > envelope["maximum"]
        fault = "exceeds its envelope" if full else "draws on a closed envelope"
        return [fault] if full or envelope["state"] != "open" else []

    def _post(self, sealed: SealedEntry) -> list[str]:
        entry, operation = sealed.entry, self.operations[sealed.entry.op_id]
        stage, freed = operation["stage"], operation["worst_case"]
        if operation["envelope"] is not None:
            envelope = self.envelopes[operation["envelope"]]
            envelope["held"] -= freed
            free = envelope["maximum"] - envelope["spent"] - envelope["held"]
            stage, freed = envelope["stage"], min(entry.amount, free)
            envelope["spent"] += freed
        own, counted = self.sub_caps[_cap_of(stage)], entry.amount - entry.excess
        self._pend(stage, -freed)
        room = UNLIMITED if own["cap"] is None else own["cap"] - own["posted"] - own["pending"]
        within = min(counted, room)
        own["posted"] += within
        own["excess"] += entry.amount - within
        self.totals["posted"] += counted
        self.totals["excess"] += entry.excess
        broken = _settle(operation, entry, "posted", actual=entry.amount, excess=entry.excess)
        if entry.digest:
            name = entry.op_id.partition("#")[0]
            self.results[name] = {
                "op_id": name, "attempt": entry.op_id, "body": entry.digest,
            }  # fmt: skip
        return broken

    def _void(self, sealed: SealedEntry) -> list[str]:
        operation = self.operations[sealed.entry.op_id]
        if operation["envelope"] is None:
            self._pend(operation["stage"], -operation["worst_case"])
        else:
            self.envelopes[operation["envelope"]]["held"] -= operation["worst_case"]
        return _settle(operation, sealed.entry, "void", actual=None, excess=0)

    def _set_aside(self, sealed: SealedEntry) -> None:
        entry = sealed.entry
        self.envelopes[entry.op_id] = {
            "id": entry.op_id, "stage": entry.stage, "maximum": entry.amount, "spent": 0,
            "held": 0, "state": "open",
        }  # fmt: skip
        self._pend(entry.stage, entry.amount)

    def _close(self, sealed: SealedEntry) -> list[str]:
        envelope = self.envelopes[sealed.entry.op_id]
        left = envelope["maximum"] - envelope["spent"]
        self._pend(envelope["stage"], -left)
        again = envelope["state"] != "open"
        envelope["state"] = "closed"
        return ["closes an envelope wrongly"] if again or left != sealed.entry.amount else []

    def _offer(self, sealed: SealedEntry) -> list[str]:
        entry = sealed.entry
        rejected = self.plans.get(entry.op_id, {}).get("rejected")
        self.plans[entry.op_id] = {
            "hash": entry.op_id, "body": entry.digest, "offered_at": sealed.at,
            "rejected": rejected,
        }  # fmt: skip
        return [] if rejected is None else ["offers a plan that was rejected"]

    def _approve(self, sealed: SealedEntry) -> list[str]:
        plan = self.plans[sealed.entry.digest]
        self._withdraw()
        self.approvals[sealed.entry.op_id] = {
            "id": sealed.entry.op_id, "plan": plan["hash"], "approved_at": sealed.at,
            "state": "given",
        }  # fmt: skip
        return [] if plan["rejected"] is None else ["approves a plan that was rejected"]

    def _reject(self, sealed: SealedEntry) -> None:
        used = {row["plan"] for row in self.approvals.values() if row["state"] == "used"}
        for name, plan in self.plans.items():
            if plan["rejected"] is None and name not in used:
                plan["rejected"] = sealed.entry.note
        self._withdraw()

    def _use(self, sealed: SealedEntry) -> list[str]:
        approval = self.approvals[sealed.entry.op_id]
        fine = (approval["state"], approval["plan"]) == ("given", sealed.entry.digest)
        approval["state"] = "used"
        return [] if fine else ["uses an approval that did not stand"]

    def _withdraw(self) -> None:
        for approval in self.approvals.values():
            if approval["state"] == "given":
                approval["state"] = "void"

    def _pend(self, stage: str, amount: int) -> None:
        self.totals["pending"] += amount
        self.sub_caps[_cap_of(stage)]["pending"] += amount


def _settle(
    operation: Row, entry: Entry, state: str, *, actual: int | None, excess: int
) -> list[str]:
    again = operation["state"] != "pending"
    operation.update(
        state=state, actual=actual, excess=excess, engine_seconds=entry.engine_seconds,
        note=entry.note,
    )  # fmt: skip
    told = (operation["stage"], operation["round"], operation["envelope"])
    other = (entry.stage, entry.round, entry.envelope) != told
    fault = "settles an attempt twice" if again else "settles an attempt under another name"
    return [fault] if again or other else []


def _cap_of(stage: str) -> str:
    return stage if stage in ("review", "scale") else "pilot"
