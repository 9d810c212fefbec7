"""Money: the ledger, the journal of what was bought, the engine's meter, plans and approvals."""
