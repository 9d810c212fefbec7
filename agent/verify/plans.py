"""Every plan that was offered, made again; and what approvals set aside, by the plan's own words.

Whether a person's yes and no are genuine is the ledger's chain's to say. The one idea: a plan is a
pure function of the round that passed and of the money at that moment.
"""

import json

from agent.errors import AgentError
from agent.money.amounts import usd_to_micro
from agent.money.approval import Plan
from agent.money.database import RunDatabase
from agent.stages.planning import make_plan, passed_round
from agent.verify.again import DAMAGE
from agent.verify.compare import compare
from agent.verify.findings import Difference, Verified, shown
from agent.verify.past import Past


def check(found: Verified, past: Past, database: RunDatabase) -> None:
    """Make every offered plan again, and compare what was set aside with what it was for."""
    for row in database.query("SELECT hash, body FROM plans ORDER BY offered_at, hash"):
        name = f"plan {str(row['hash'])[:12]}"
        try:
            plan = Plan.model_validate_json(row["body"])
            found.add("plan", name, _differences(past, plan, row["hash"]))
        except AgentError as error:
            found.add("plan", name, left_out=shown(str(error)))
        except DAMAGE as error:
            found.add("plan", name, [Difference("", "a plan", shown(str(error)))])
    for approval, maximum, body in _approved(database):
        wanted = usd_to_micro(Plan.model_validate_json(body).max_cost_usd)
        differs = [] if wanted == maximum else [Difference("maximum", str(wanted), str(maximum))]
        found.add("plan", f"money set aside for {approval}", differs)


def _differences(past: Past, plan: Plan, digest: str) -> tuple[Difference, ...]:
    if plan.hash != digest:
        return (Difference("hash", plan.hash[:16], digest[:16]),)
    if digest == (past.memory.run.plan or {}).get("hash"):
        return ()
    entries = past.timeline.entries
    offered = next(e.seq for e in entries if (e.entry.kind, e.entry.digest) == ("offer", digest))
    passed_round(past)
    past.ledger = past.timeline.at(offered - 1)
    again = make_plan(past, plan.examples)
    return compare("plan.json", _text(again), _text(plan))


def _text(plan: Plan) -> bytes:
    return json.dumps(plan.model_dump(mode="json"), sort_keys=True).encode()


def _approved(database: RunDatabase) -> list[tuple[str, int, str]]:
    rows = database.query(
        "SELECT envelopes.id, envelopes.maximum, plans.body FROM envelopes"
        " JOIN approvals USING (id) JOIN plans ON plans.hash = approvals.plan"
    )
    return [(str(r["id"]), int(r["maximum"]), str(r["body"])) for r in rows]
