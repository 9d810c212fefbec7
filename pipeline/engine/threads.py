"""How threads of the tensor library wait for each other.

Set before torch is imported, or not at all: the OpenMP runtime reads it once.
"""

import os

SPINS = "10000"
"""Turns of the waiting loop before a thread sleeps, some tens of microseconds: as long as the pause
between two operations. A tenth of it makes a decode step on an idle machine a quarter slower."""


def wait_politely() -> None:
    """Let threads sleep soon at a barrier, unless the environment says otherwise.

    The default is to spin for milliseconds. Where another process has one of the cores, every
    barrier of every operation then burns a scheduler's time slice: on two cores with one other busy
    process, 32 rows took 158 s of wall time instead of 14.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = SPINS
