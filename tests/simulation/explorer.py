"""Every interleaving of coordinators that want to lead, up to a bound; the rules are the real ones.

The machine: coordinators that ask for a lease, keep it, watch the leader key, try for it, publish
under it, and are stopped and continued; a store that grants, expires and compares; a network that
delays each message for as long as it likes, or loses it. Time goes in ticks, a lease lives `TTL`.
Decisions are those of `coordinator.ballot` and `gtm.tenure`, handed in as `Rules`, so that a broken
rule can be handed in as well. States are hashed: each is looked at once.

Held in every state:
    stale    a write is accepted only while the key is the one under which it was sent
    overdue  nobody may write by its own clock whose lease the store has ended (equal clocks)
    leader   once all is healed, somebody leads
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from coordinator import ballot
from gtm import keys, tenure
from gtm.store import Compare, Done, Item

TTL = 2
HEAD = 1


@dataclass(frozen=True)
class Rules:
    """What is explored; each may be replaced by a broken one."""

    seen: Callable[..., ballot.Move] = ballot.seen
    won: Callable[[Done, int], int] = ballot.won
    fence_now: Callable[[int, float], int] = ballot.fence_now
    conditions: Callable[[int, int], Sequence[Compare]] = ballot.conditions
    ends: Callable[[float, float, float], float] = tenure.ends_s


@dataclass(frozen=True)
class Bounds:
    """How far it goes: of each thing that many in one run."""

    coordinators: int = 2
    steps: int = 11
    leases: int = 3
    writes: int = 1
    losses: int = 1
    stops: int = 1
    slips: int = 0
    """Ticks that the clock of a coordinator misses."""
    waiting: int = 3
    """Messages under way at once."""


class Node(NamedTuple):
    """A coordinator: its lease and what is left of it by its own clock, its fence, what it watched
    and did not read yet, whether it tries for the key."""

    lease: int = 0
    left: int = 0
    fence: int = 0
    news: tuple[tuple[int, int, bool], ...] = ()
    trying: bool = False
    stopped: bool = False


class Message(NamedTuple):
    """On its way: `age` is in ticks since the request was sent."""

    kind: str
    node: int
    a: int = 0
    b: int = 0
    age: int = 0


class State(NamedTuple):
    """Everything, with what is left of the bounds."""

    nodes: tuple[Node, ...]
    leases: tuple[tuple[int, int], ...] = ()
    """(lease, ticks left) as the store has them."""
    key: int = 0
    holder: int = 0
    revision: int = 1
    wire: tuple[Message, ...] = ()
    granted: int = 0
    writes: int = 0
    losses: int = 0
    stops: int = 0
    slips: int = 0


@dataclass
class Found:
    """What an exploration saw."""

    states: int = 0
    deepest: int = 0
    led: int = 0
    """States in which somebody led."""
    accepted: int = 0
    refused: int = 0
    violations: list[str] = field(default_factory=list)
    path: tuple[str, ...] = ()


class Explorer:
    """Breadth first; the first violation comes with the shortest way to it."""

    def __init__(self, rules: Rules = Rules(), bounds: Bounds = Bounds()) -> None:
        self.rules, self.bounds = rules, bounds
        self.found = Found()

    def run(self, *, warm: bool = False) -> Found:
        """Look at every state within the bounds, or until a violation.

        Begins with nothing, or `warm`: all have leases, and the first one leads.
        """
        count = self.bounds.coordinators
        first = State(tuple(Node() for _ in range(count)))
        if warm:
            nodes = [Node(lease=at + 1, left=TTL, fence=0 if at else 2) for at in range(count)]
            first = State(
                tuple(nodes),
                leases=tuple((node.lease, TTL) for node in nodes),
                key=2,
                holder=1,
                revision=2,
                granted=count,
            )
        came: dict[State, tuple[State | None, str]] = {first: (None, "")}
        level = [first]
        for depth in range(self.bounds.steps):
            following: list[State] = []
            for state in level:
                for name, after in self.steps(state):
                    if after not in came:
                        came[after] = (state, name)
                        following.append(after)
                        if wrong := self._wrong(after):
                            self.found.violations.append(wrong)
                    if self.found.violations:
                        self.found.path = (*_way(came, state), name)
                        self.found.states = len(came)
                        return self.found
            level, self.found.deepest = following, depth + 1
            if not level:
                break
        self.found.states = len(came)
        return self.found

    # ---- properties ----------------------------------------------------------------------------

    def _wrong(self, state: State) -> str:
        alive = dict(state.leases)
        for at, node in enumerate(state.nodes):
            if self.rules.fence_now(node.fence, node.left):
                self.found.led += 1
                if not self.bounds.slips and node.lease not in alive:
                    return f"overdue: c{at} may write, and the store has ended its lease"
        return "" if self.found.led % 7 else self._heals(state)

    def _heals(self, state: State) -> str:
        """Let everything go its way until somebody leads and the store agrees; else what is wrong.

        Asked of every seventh state in which somebody led: it costs as much as a hundred others.
        """
        nodes = tuple(node._replace(stopped=False) for node in state.nodes)
        plenty = replace(self.bounds, waiting=99, leases=99, losses=0, stops=0, slips=0, writes=0)
        calm = Explorer(self.rules, plenty)
        state = state._replace(nodes=nodes)
        for _ in range(4 * TTL):
            for _ in range(40):
                after = next(
                    (one for name, one in calm.steps(state) if not name.startswith("tick")), None
                )
                if calm.found.violations:
                    return calm.found.violations[0]
                if after is None:
                    break
                state = after
            if any(
                node.fence == state.key and self.rules.fence_now(node.fence, node.left)
                for node in state.nodes
            ):
                return ""
            state = calm._tick(state, -1)
        return "leader: all is healed, and nobody leads"

    # ---- steps ---------------------------------------------------------------------------------

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        """Everything that may happen next."""
        for at, message in enumerate(state.wire):
            if at and state.wire[at - 1] == message:
                continue
            rest = state._replace(wire=state.wire[:at] + state.wire[at + 1 :])
            if message.kind.isupper() or not state.nodes[message.node].stopped:
                yield f"arrives {message.kind} of c{message.node}", self._arrive(rest, message)
            if state.losses < self.bounds.losses:
                lost = rest._replace(losses=state.losses + 1)
                yield f"lost {message.kind} of c{message.node}", lost
        for at, node in enumerate(state.nodes):
            if node.stopped:
                yield f"c{at} continues", _with(state, at, node._replace(stopped=False))
            else:
                yield from self._of(state, at, node)
        yield "tick", self._tick(state, -1)
        if state.slips < self.bounds.slips:
            for at in range(len(state.nodes)):
                yield f"tick without c{at}", self._tick(state._replace(slips=state.slips + 1), at)

    def _of(self, state: State, at: int, node: Node) -> Iterator[tuple[str, State]]:
        if state.stops < self.bounds.stops and node.fence:
            yield (
                f"c{at} is stopped",
                _with(state, at, node._replace(stopped=True))._replace(stops=state.stops + 1),
            )
        if node.lease and node.left <= 0:  # lost(): begin again
            yield f"c{at} lost its lease", _with(state, at, Node())
            return
        if node.news and not node.trying:  # an attempt is waited for
            yield f"c{at} sees the key", self._see(state, at, node)
        room = len(state.wire) < self.bounds.waiting
        under_way = {message.kind.upper() for message in state.wire if message.node == at}
        if not room:
            return
        if not node.lease:
            if "GRANT" not in under_way and state.granted < self.bounds.leases:
                yield f"c{at} asks for a lease", _sent(state, Message("GRANT", at))
            return
        if node.trying and "TRY" not in under_way:
            yield f"c{at} tries", _sent(state, Message("TRY", at, node.lease))
        if node.left < TTL and "KEEP" not in under_way:
            yield f"c{at} keeps its lease", _sent(state, Message("KEEP", at, node.lease))
        fence = self.rules.fence_now(node.fence, node.left)
        if fence and state.writes < self.bounds.writes:
            after = state._replace(writes=state.writes + 1)
            yield f"c{at} writes", _sent(after, Message("WRITE", at, fence, fence))

    def _see(self, state: State, at: int, node: Node) -> State:
        (created, revision, listed), *rest = node.news
        fence = self.rules.fence_now(node.fence, node.left)
        move = self.rules.seen(fence, created, revision, listed=listed)
        node = node._replace(news=tuple(rest))
        if move is not ballot.Move.STAY:
            node = node._replace(fence=0, trying=move is ballot.Move.RUN)
        return _with(state, at, node)

    def _tick(self, state: State, but: int) -> State:
        nodes = tuple(
            node if at == but else node._replace(left=max(0, node.left - 1))
            for at, node in enumerate(state.nodes)
        )
        wire = tuple(one._replace(age=min(TTL, one.age + 1)) for one in state.wire)
        leases = tuple((lease, left - 1) for lease, left in state.leases)
        state = state._replace(nodes=nodes, wire=tuple(sorted(wire)), leases=leases)
        over = {lease for lease, left in leases if left <= 0}
        state = state._replace(leases=tuple(one for one in leases if one[0] not in over))
        return self._changed(state, 0, 0) if state.holder in over else state

    def _changed(self, state: State, key: int, holder: int) -> State:
        """The leader key came or went; every watch will tell."""
        revision = state.revision + 1
        key = revision if key else 0
        nodes = tuple(
            node._replace(news=(*node.news, (key, revision, False))) if node.lease else node
            for node in state.nodes
        )
        return state._replace(nodes=nodes, revision=revision, key=key, holder=holder)

    def _arrive(self, state: State, message: Message) -> State:
        at, node = message.node, state.nodes[message.node]
        match message.kind:
            case "GRANT":
                lease = state.granted + 1
                state = state._replace(granted=lease, leases=(*state.leases, (lease, TTL)))
                return _sent(state, message._replace(kind="grant", a=lease))
            case "grant":
                left = self._left(message)
                if node.lease or left <= 0:
                    return state
                news = ((state.key, state.revision, True),)
                return _with(state, at, node._replace(lease=message.a, left=left, news=news))
            case "KEEP":
                alive = dict(state.leases)
                if message.a not in alive:
                    return _sent(state, message._replace(kind="keep", b=0))
                leases = tuple(
                    (one, TTL if one == message.a else left) for one, left in state.leases
                )
                return _sent(state._replace(leases=leases), message._replace(kind="keep", b=1))
            case "keep":
                if node.lease != message.a:
                    return state
                if not message.b:
                    return _with(state, at, Node())
                if node.left <= 0:
                    return state
                left = max(node.left, self._left(message))
                return _with(state, at, node._replace(left=left))
            case "TRY":
                return self._tried(state, message)
            case "try":
                if node.lease != message.a or not node.trying:
                    return state
                return _with(state, at, node._replace(fence=message.b, trying=False))
            case "WRITE":
                return self._written(state, message)
            case _:  # refused
                if node.fence == message.a:
                    node = node._replace(fence=0)
                return _with(state, at, node)

    def _left(self, message: Message) -> int:
        """What an answered request gives, by the asker's clock."""
        return int(self.rules.ends(-message.age, 0, TTL))

    def _tried(self, state: State, message: Message) -> State:
        if message.a not in dict(state.leases):
            return _sent(state, message._replace(kind="keep", b=0))  # the lease is unknown
        if not state.key:
            state = self._changed(state, 1, message.a)
            done = Done(True, state.revision)
        else:
            item = Item("", b"", state.key, state.key, 1, state.holder)
            done = Done(False, state.revision, ((item,),))
        return _sent(state, message._replace(kind="try", b=self.rules.won(done, message.a)))

    def _written(self, state: State, message: Message) -> State:
        there: dict[str, Any] = {keys.leader(): state.key, keys.HEAD: HEAD}
        holds = all(there[one.key] == one.value for one in self.rules.conditions(message.a, HEAD))
        if not holds:
            self.found.refused += 1
            return _sent(state, message._replace(kind="refused"))
        self.found.accepted += 1
        if message.b != state.key:
            self.found.violations.append(
                f"stale: a write of c{message.node} under key {message.b} was accepted under "
                f"key {state.key}"
            )
        return state


def _with(state: State, at: int, node: Node) -> State:
    return state._replace(nodes=(*state.nodes[:at], node, *state.nodes[at + 1 :]))


def _sent(state: State, message: Message) -> State:
    return state._replace(wire=tuple(sorted((*state.wire, message))))


def _way(came: dict[State, tuple[State | None, str]], state: State) -> list[str]:
    names: list[str] = []
    at: State | None = state
    while at is not None:
        at, name = came[at]
        names.append(name)
    return names[::-1][1:]
