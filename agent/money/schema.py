"""The tables of ``run.sqlite``, the one file that holds ledger, journal and approvals of a run.

No behaviour: what is written where is decided in ``ledger.py``, ``journal.py`` and ``approval.py``.
The one idea: rules that must hold whatever the code does are constraints here, first of all
that what is posted and what is pending never exceed the cap, nor a stage's own. Whatever the other
tables hold follows from ``entries``, which ``audit.py`` replays.
"""

from typing import Final

VERSION: Final = 2
"""Stored as SQLite's ``user_version``; a file of a later version is refused."""

GENESIS: Final = "0" * 64
"""What the first entry's hash is chained to."""

TABLES: Final = (
    # Who writes; only the newest owner may, so a runner that was taken for dead cannot come back.
    """CREATE TABLE owners (
        epoch INTEGER PRIMARY KEY,
        pid INTEGER NOT NULL,
        host TEXT NOT NULL,
        at REAL NOT NULL
    ) STRICT""",
    # One row. head and entries pin the end of the chain, so that cutting entries off shows.
    f"""CREATE TABLE totals (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        cap INTEGER NOT NULL CHECK (cap >= 0),
        posted INTEGER NOT NULL DEFAULT 0 CHECK (posted >= 0),
        pending INTEGER NOT NULL DEFAULT 0 CHECK (pending >= 0),
        excess INTEGER NOT NULL DEFAULT 0 CHECK (excess >= 0),
        entries INTEGER NOT NULL DEFAULT 0,
        head TEXT NOT NULL DEFAULT '{GENESIS}',
        CONSTRAINT cap CHECK (posted + pending <= cap)
    ) STRICT""",
    # A row for each of pilot, review and scale; a NULL cap leaves it to the run's own. excess is
    # what was spent beyond the sub-cap, whether or not it fits under the run's.
    """CREATE TABLE sub_caps (
        name TEXT PRIMARY KEY,
        cap INTEGER CHECK (cap >= 0),
        posted INTEGER NOT NULL DEFAULT 0 CHECK (posted >= 0),
        pending INTEGER NOT NULL DEFAULT 0 CHECK (pending >= 0),
        excess INTEGER NOT NULL DEFAULT 0 CHECK (excess >= 0),
        CONSTRAINT sub_cap CHECK (posted + pending <= cap)
    ) STRICT""",
    """CREATE TABLE envelopes (
        id TEXT PRIMARY KEY,
        stage TEXT NOT NULL,
        maximum INTEGER NOT NULL CHECK (maximum >= 0),
        spent INTEGER NOT NULL DEFAULT 0 CHECK (spent >= 0),
        held INTEGER NOT NULL DEFAULT 0 CHECK (held >= 0),
        state TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'closed')),
        CONSTRAINT maximum CHECK (spent + held <= maximum),
        CHECK (state = 'open' OR held = 0)
    ) STRICT""",
    # One row an attempt. excess is what was spent but does not fit under the cap.
    """CREATE TABLE operations (
        op_id TEXT PRIMARY KEY,
        stage TEXT NOT NULL,
        round INTEGER,
        envelope TEXT REFERENCES envelopes (id),
        worst_case INTEGER NOT NULL CHECK (worst_case >= 0),
        state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'posted', 'void')),
        actual INTEGER CHECK (actual >= 0),
        excess INTEGER NOT NULL DEFAULT 0 CHECK (excess BETWEEN 0 AND coalesce(actual, 0)),
        engine_seconds REAL NOT NULL DEFAULT 0 CHECK (engine_seconds >= 0),
        note TEXT NOT NULL DEFAULT '',
        owner INTEGER NOT NULL,
        at REAL NOT NULL,
        CHECK ((state = 'posted') = (actual IS NOT NULL))
    ) STRICT""",
    # digest is the SHA-256 of what an entry is about and that stands elsewhere: a result, a plan.
    """CREATE TABLE entries (
        seq INTEGER PRIMARY KEY,
        at REAL NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('open', 'claim', 'reserve', 'post', 'void', 'envelope',
            'close', 'offer', 'approve', 'reject', 'use')),
        op_id TEXT NOT NULL,
        stage TEXT NOT NULL,
        round INTEGER,
        envelope TEXT,
        amount INTEGER NOT NULL CHECK (amount >= 0),
        excess INTEGER NOT NULL CHECK (excess >= 0),
        engine_seconds REAL NOT NULL CHECK (engine_seconds >= 0),
        note TEXT NOT NULL,
        digest TEXT NOT NULL,
        owner INTEGER NOT NULL,
        hash TEXT NOT NULL UNIQUE
    ) STRICT""",
    """CREATE TRIGGER entries_stay BEFORE UPDATE ON entries
        BEGIN SELECT RAISE(ABORT, 'entries are append-only'); END""",
    """CREATE TRIGGER entries_remain BEFORE DELETE ON entries
        BEGIN SELECT RAISE(ABORT, 'entries are append-only'); END""",
    """CREATE TABLE results (
        op_id TEXT PRIMARY KEY,
        attempt TEXT NOT NULL UNIQUE REFERENCES operations (op_id),
        body TEXT NOT NULL
    ) STRICT""",
    """CREATE TABLE plans (
        hash TEXT PRIMARY KEY CHECK (length(hash) = 64),
        body TEXT NOT NULL,
        offered_at REAL NOT NULL,
        rejected TEXT
    ) STRICT""",
    """CREATE TABLE approvals (
        id TEXT PRIMARY KEY,
        plan TEXT NOT NULL REFERENCES plans (hash),
        approved_at REAL NOT NULL,
        state TEXT NOT NULL DEFAULT 'given' CHECK (state IN ('given', 'used', 'void'))
    ) STRICT""",
    # At most one approval of a run can be waiting to be used.
    "CREATE UNIQUE INDEX one_given ON approvals (state) WHERE state = 'given'",
)
