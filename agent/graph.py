"""The state machine: state, nodes, edges. The only file that knows LangGraph.

One step is one micro-batch, one review or one wave, so that a crash repeats at most one. Nodes
are glue: they call one function and return what changed. State holds numbers, hashes and ids;
what they stand for is in the run's folder, and what was paid for is in its journal.
"""

import functools
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, TypedDict, cast, get_type_hints

from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.errors import GraphDrained
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import RunControl, Runtime
from langgraph.types import Command, Interrupt, interrupt

from agent.best import with_best
from agent.checkpoints import Damaged, SealedJson, is_sound, set_aside, storage_errors
from agent.errors import BudgetError
from agent.policy import Decision, Step
from agent.session import Session, Show
from agent.stages import (
    measuring,
    merging,
    pilot,
    planning,
    preflight,
    replaying,
    reviewing,
    scaling,
)
from agent.stages.pilot import Place

RECURSION_LIMIT = 1_000_000
"""Steps of one invocation; runs stop by :mod:`agent.policy`, never by this."""


class State(TypedDict, total=False):
    """What a checkpoint holds: under a kilobyte, whatever the size of the run."""

    round: int
    """The round under way, from 1."""
    params: str
    """SHA-256 of the artifact with the round's setting."""
    micro_batches: int
    """Bought in this round."""
    waves: int
    """Bought in scale."""
    plan: str
    """Hash of the plan offered last."""
    approval: str
    """Id of the approval that scale works under."""
    step: str
    """The last decision, a :class:`~agent.policy.Step`."""
    reason: str
    """Why."""


class Node(Protocol):
    """What LangGraph calls: a function of the state and the run's session."""

    def __call__(self, state: State, *, runtime: Runtime[Session]) -> State:
        """What changed in the state."""
        ...


def _decided(decision: Decision, **changed: Any) -> State:
    decided: State = {"step": decision.step.value, "reason": decision.reason}
    return cast(State, {**decided, **changed})


def _place(state: State) -> Place:
    return Place(state["round"], state["params"], state["micro_batches"])


def _preflight(state: State, runtime: Runtime[Session]) -> State:
    decision, params = preflight.check(runtime.context, runtime.stream_writer)
    return _decided(decision, round=1, params=params, micro_batches=0, waves=0)


def _pilot(state: State, runtime: Runtime[Session]) -> State:
    decision = pilot.buy(runtime.context, _place(state), runtime.stream_writer)
    return _decided(decision, micro_batches=state["micro_batches"] + 1)


def _measure(state: State, runtime: Runtime[Session]) -> State:
    return _decided(measuring.judge(runtime.context, _place(state), runtime.stream_writer))


def _review(state: State, runtime: Runtime[Session]) -> State:
    return _decided(reviewing.ask(runtime.context, state["round"], runtime.stream_writer))


def _apply(state: State, runtime: Runtime[Session]) -> State:
    decision, params = reviewing.apply(runtime.context, _place(state), runtime.stream_writer)
    if decision.step is not Step.CONTINUE:
        return _decided(decision)
    return _decided(decision, round=state["round"] + 1, params=params, micro_batches=0)


def _replay(state: State, runtime: Runtime[Session]) -> State:
    return _decided(replaying.trial(runtime.context, _place(state), runtime.stream_writer))


def _plan(state: State, runtime: Runtime[Session]) -> State:
    decision, plan = planning.offer(runtime.context, state["round"], runtime.stream_writer)
    return _decided(decision, plan=plan)


def _approve(state: State, runtime: Runtime[Session]) -> State:
    answer = interrupt({"plan": state["plan"]})
    return _decided(planning.accept(runtime.context, answer), approval=answer)


def _scale(state: State, runtime: Runtime[Session]) -> State:
    decision = scaling.wave(
        runtime.context, state["approval"], state["waves"], runtime.stream_writer
    )
    return _decided(decision, waves=state["waves"] + 1)


def _merge(state: State, runtime: Runtime[Session]) -> State:
    return _decided(merging.publish(runtime.context, state["approval"], state["reason"]))


def _finish(state: State, runtime: Runtime[Session]) -> State:
    session, decision = runtime.context, Decision(Step(state["step"]), state["reason"])
    session.finish(with_best(decision, session.store.load_rounds()))
    return State()


_ROUTES: dict[str, tuple[Node, dict[Step, str]]] = {
    "preflight": (_preflight, {Step.CONTINUE: "pilot"}),
    "pilot": (_pilot, {Step.CONTINUE: "measure"}),
    "measure": (
        _measure,
        {Step.CONTINUE: "pilot", Step.REVIEW: "review", Step.APPROVE: "plan"},
    ),
    "review": (_review, {Step.CONTINUE: "apply"}),
    "apply": (_apply, {Step.CONTINUE: "replay"}),
    "replay": (_replay, {Step.CONTINUE: "pilot", Step.REVIEW: "review"}),
    "plan": (_plan, {Step.CONTINUE: "approve"}),
    "approve": (_approve, {Step.CONTINUE: "scale"}),
    "scale": (_scale, {Step.CONTINUE: "scale", Step.DONE: "merge"}),
    "merge": (_merge, {}),
}
"""Each node, and where its decisions lead; every other decision leads to ``finish``."""


def _router(routes: Mapping[Step, str]) -> Callable[[State], str]:
    return lambda state: routes.get(Step(state["step"]), "finish")


def _planned(node: Node) -> Node:
    """A cap that does not leave room for what comes next is an ending, not a fault."""

    @functools.wraps(node)
    def guarded(state: State, *, runtime: Runtime[Session]) -> State:
        try:
            return node(state, runtime=runtime)
        except BudgetError as error:
            return _decided(Decision(Step.STOP_BUDGET, str(error)))

    return guarded


def build() -> StateGraph[State, Session, State, State]:
    """The state machine, not yet compiled."""
    graph = StateGraph(State, context_schema=Session)
    for name, (node, routes) in _ROUTES.items():
        graph.add_node(name, _planned(node))
        ends = [*dict.fromkeys(routes.values()), "finish"]
        graph.add_conditional_edges(name, _router(routes), ends)
    graph.add_node("finish", _finish)
    graph.add_edge(START, "preflight")
    graph.add_edge("finish", END)
    return graph


def diagram() -> str:
    """The compiled graph as Mermaid text."""
    return build().compile().get_graph().draw_mermaid()


@dataclass(frozen=True, slots=True)
class Pause:
    """Where an invocation of the graph came to rest."""

    waiting: bool
    """It waits for an answer to its interrupt."""
    drained: bool
    """It stopped at a border because that was asked for."""


class _Saver(SqliteSaver):
    """Checkpoints that only the run's owner writes, and that are read with suspicion."""

    def __init__(
        self, connection: sqlite3.Connection, fence: Callable[[], AbstractContextManager[None]]
    ) -> None:
        super().__init__(connection, serde=SealedJson(Interrupt))
        self._fence = fence

    @contextmanager
    def cursor(self, transaction: bool = True) -> Iterator[sqlite3.Cursor]:
        with self._fence() if transaction else nullcontext(), super().cursor(transaction) as found:
            yield found

    def get_next_version(self, current: Any, channel: None) -> Any:
        return (current or 0) + 1

    def get_tuple(self, config: Any) -> CheckpointTuple | None:
        """The latest checkpoint, without the writes of a node that was cut short: it runs again.

        Raises:
            Damaged: if it is not what was written.
        """
        found = super().get_tuple(config)
        if found is None:
            return None
        _check(found)
        writes = [w for w in found.pending_writes or () if w[1] == "__interrupt__"]
        return found._replace(pending_writes=writes)


def _check(found: CheckpointTuple) -> None:
    """Refuse what no run writes: seals are no secret."""
    checkpoint: dict[str, Any] = dict(found.checkpoint)
    kinds = get_type_hints(State)
    values = {k: v for k, v in checkpoint["channel_values"].items() if k in kinds}
    versions = [checkpoint["channel_versions"], *checkpoint["versions_seen"].values()]
    if (
        checkpoint["id"] != found.config["configurable"].get("checkpoint_id")
        or any(type(value) is not kinds[name] for name, value in values.items())
        or any(value < 0 for value in values.values() if isinstance(value, int))
        or ("step" in values and values["step"] not in set(Step))
        or any(type(number) is not int for seen in versions for number in seen.values())
    ):
        raise Damaged("a checkpoint that no run writes")


class Machine:
    """The compiled graph of one run, with its checkpoints."""

    def __init__(self, session: Session, connection: sqlite3.Connection) -> None:
        saver = _Saver(connection, session.ledger.database.transaction)
        self._graph = build().compile(checkpointer=saver)
        self._session = session
        self._control = RunControl()
        self._config: Any = {
            "configurable": {"thread_id": session.run_id},
            "recursion_limit": RECURSION_LIMIT,
        }

    @property
    def begun(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return bool(self._graph.get_state(self._config).values)

    @property
    def waiting(self) -> bool:
        """Whether the run waits for an answer."""
        return bool(self._graph.get_state(self._config).interrupts)

    @property
    def draining(self) -> bool:
        """Whether a stop at the next border was asked for."""
        return self._control.drain_requested

    def drain(self, reason: str) -> None:
        """Ask for a stop at the next border."""
        self._control.request_drain(reason)

    def advance(self, show: Show) -> Pause:
        """Work from the last checkpoint, or from the start, to the next pause or to the end."""
        return self._stream(None if self.begun else State(), show)

    def answer(self, value: str, show: Show) -> Pause:
        """Answer the interrupt that the run waits in, and work on."""
        return self._stream(Command(resume=value), show)

    def _stream(self, start: Any, show: Show) -> Pause:
        try:
            for part in self._graph.stream(
                start,
                self._config,
                context=self._session,
                stream_mode=["updates", "custom"],
                version="v2",
                durability="sync",
                control=self._control,
            ):
                if part["type"] == "custom":
                    show(part["data"])
        except GraphDrained:
            return Pause(waiting=False, drained=True)
        return Pause(waiting=self.waiting, drained=False)


@contextmanager
def open_machine(session: Session) -> Iterator[Machine]:
    """The machine of a run, with its checkpoint file open.

    A damaged file is set aside: checkpoints are a hint, and what was paid for is in the journal, so
    the run finds its way back for free.

    Raises:
        StorageError: if the disk refuses a checkpoint.
    """
    path = session.store.checkpoint_path
    with storage_errors(path):
        if not is_sound(path, lambda c: Machine(session, c).waiting):
            set_aside(path)
        with closing(sqlite3.connect(path, check_same_thread=False)) as connection:
            yield Machine(session, connection)
