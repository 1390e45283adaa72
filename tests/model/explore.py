"""Visit every state of a scenario, check the laws at every entry and that every state can still reach the job's end."""

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, NamedTuple

from tests.model.core import REAL, Core
from tests.model.forgeries import forgeries_of
from tests.model.laws import Violation, check_append, check_state
from tests.model.retries import Log, objection
from tests.model.settling import check_settling
from tests.model.steps import check_effects, check_step, substance
from tests.model.world import ROOT, Command, Crew, Fact, Heads, Scenario, World

__all__ = ["Finding", "broken_laws", "check_refusals", "explore"]


class Holding(NamedTuple):
    """A message in the hands of a process."""

    chain: int
    node: int
    """The message: the end that its chain had when it was written."""
    answers: int
    """How long the process believes the chain to be."""
    sent: bool = False
    """Whether its answer was given, and only the acknowledgement is left."""


class State(NamedTuple):
    """Everything that decides what can happen next."""

    heads: Heads
    log: tuple[tuple[int, int], ...] = ()
    """The order of all entries, where a scenario asks for it."""
    workers: tuple[Holding | None, ...] = ()
    verifiers: tuple[Holding | None, ...] = ()
    managers: tuple[frozenset[Command], ...] = ()
    """What each manager has decided and not yet carried out."""
    acked: frozenset[tuple[int, int]] = frozenset()
    killed: bool = False
    forgeries: int = 0


@dataclass(frozen=True)
class Finding:
    """What a search came to."""

    states: int
    logs: int
    """Different combinations of chains."""
    ends: int
    """Different logs of a closed job."""
    seconds: float
    heads: frozenset[tuple[tuple[Fact, ...], ...]]
    """The logs themselves, as the facts of each chain."""


def explore(scenario: Scenario, core: Core = REAL, *, limit: int = 5_000_000, keep: bool = False) -> Finding:
    """Visit all states of ``scenario`` and return how many there are.

    :raises Violation: a law is broken; its ``log`` is a shortest way there
    """
    return _Explorer(scenario, World(scenario, core), limit).run(keep=keep)


def broken_laws(scenario: Scenario, core: Core = REAL, *, limit: int = 500_000) -> dict[str, list[str]]:
    """Visit all states of ``scenario`` and return every law that is broken on the way, each with a shortest way there.

    What comes after a broken law is not looked at. Only for scenarios with any number of processes.
    """
    explorer = _Explorer(scenario, World(scenario, core), limit)
    explorer.broken = {}
    explorer.run(keep=False)
    return explorer.broken


def check_refusals(scenario: Scenario, core: Core = REAL) -> int:
    """Check that after every log the machine refuses what was told before and what answers anything but a chain's head.

    Returns how many entries were tried.

    :raises Violation: it follows one
    """
    explorer = _Explorer(scenario, World(scenario, core), 500_000)
    explorer.run(keep=False)
    return sum(_check_refusals_of(explorer.world, heads) for heads in explorer.seen_heads)


def _check_refusals_of(world: World, heads: Heads) -> int:
    state, tried = world.state(heads), 0
    for chain, head in enumerate(heads):
        for node in world.tree.path(head):
            told = world.entry(chain, node)
            if world.core.evolve(state, told) != replace(state, refused=state.refused + 1):
                raise Violation("an entry that was told before changes nothing", str(told.message))
            tried += 1
        for fact in forgeries_of(world, chain):
            for answers in set(range(world.tree.depth[head] + 2)) - {world.tree.depth[head]}:
                stale = world.entry(chain, world.tree.grow(head, fact._replace(answers=answers)))
                if substance(world.core.evolve(state, stale)) != substance(state):
                    raise Violation("an entry that answers anything but the head changes nothing", str(stale.message))
                tried += 1
    return tried


class _Explorer:
    def __init__(self, scenario: Scenario, world: World, limit: int) -> None:
        self.scenario = scenario
        self.world = world
        self.tree = self.world.tree
        self.limit = limit
        self.numbers: dict[State, int] = {}
        self.came_from: list[tuple[int, str]] = []
        self.followers: list[list[int]] = []
        self.seen_heads: set[Heads] = set()
        self.broken: dict[str, list[str]] | None = None
        """The laws broken so far, each with a shortest way there, where the search goes on after a finding."""
        self._looks: dict[tuple[object, bool], tuple[frozenset[Command], ...]] = {}

    def run(self, *, keep: bool) -> Finding:
        began = time.perf_counter()
        if self.scenario.crew is not None:  # which logs can come about at all, and so which views there are
            anybody = replace(self.scenario, crew=None)
            everything = _Explorer(anybody, self.world, self.limit)
            everything.run(keep=False)
            self.seen_heads = everything.seen_heads
        start = self._canonical(self._start())
        self.numbers[start] = 0
        self.seen_heads.add(start.heads)
        self.came_from.append((0, "start"))
        queue = deque([start])
        while queue:
            state = queue.popleft()
            queue.extend(self._visit(state))
        if self.broken is None:
            self._every_state_can_end()
        heads = {state.heads for state in self.numbers}
        ends = len({state.heads for state in self.numbers if self._ended(state)})
        facts = frozenset(tuple(tuple(self.tree.facts(head)) for head in one) for one in heads) if keep else frozenset()
        return Finding(len(self.numbers), len(heads), ends, time.perf_counter() - began, facts)

    def _start(self) -> State:
        heads, crew = self.world.start(), self.scenario.crew or Crew(0, 0, 0)
        return State(
            heads,
            ((0, heads[0]),) if self.scenario.ordered else (),
            workers=(None,) * crew.workers,
            verifiers=(None,) * crew.verifiers,
            managers=(frozenset(),) * crew.managers,
            forgeries=self.scenario.forgeries,
        )

    def _visit(self, state: State) -> Iterator[State]:
        """Yield the states after ``state`` that were not seen before."""
        number = self.numbers[state]
        followers: set[int] = set()
        self.followers.append([])
        try:
            for label, following in self._steps(state):
                reached = self._canonical(following)
                known = self.numbers.get(reached)
                if known is None:
                    known = self.numbers[reached] = len(self.numbers)
                    self.came_from.append((number, label))
                    self.seen_heads.add(reached.heads)
                    if known > self.limit:
                        raise Violation("no log grows for ever", f"more than {self.limit} states")  # noqa: TRY301  (its way here is added below)
                    yield reached
                followers.add(known)
        except Violation as violation:
            violation.log = self._way_to(number)
            raise
        self.followers[number] = list(followers - {number})

    def _way_to(self, number: int) -> list[str]:
        way = []
        while number:
            number, label = self.came_from[number]
            way.append(label)
        return way[::-1]

    def _ended(self, state: State) -> bool:
        return self._folded(state.heads, state.log).closed is not None

    def _every_state_can_end(self) -> None:
        """Check that no state is a dead end and that from every state the job's end can be reached."""
        states = list(self.numbers)
        ended = [self._ended(state) for state in states]
        leads_to: list[list[int]] = [[] for _ in states]
        for number, followers in enumerate(self.followers):
            if not followers and not ended[number]:
                self._raise("no job stops before its end", number)
            for follower in followers:
                leads_to[follower].append(number)
        reached = bytearray(ended)
        stack = [number for number, end in enumerate(ended) if end]
        while stack:
            for before in leads_to[stack.pop()]:
                if not reached[before]:
                    reached[before] = 1
                    stack.append(before)
        if not all(reached):
            self._raise("every job can end", reached.index(0))

    def _raise(self, law: str, number: int) -> None:
        violation = Violation(law, " | ".join(self._way_to(number)[-12:]))
        violation.log = self._way_to(number)
        raise violation

    def _canonical(self, state: State) -> State:
        """Return the one state that stands for all that differ from ``state`` in nothing that can have an effect."""
        if not self.scenario.reduced:
            return state
        return state._replace(
            workers=self._useful(state, state.workers),
            verifiers=self._useful(state, state.verifiers),
            managers=tuple(sorted((self._current(state.heads, pending) for pending in state.managers), key=sorted)),
            acked=frozenset(),
        )

    def _useful(self, state: State, holdings: tuple[Holding | None, ...]) -> tuple[Holding | None, ...]:
        """Drop messages whose answer the broker would refuse, and forget which of equal processes has which."""
        if not self.scenario.cas:
            return holdings
        kept = (
            holding if holding and holding.answers == self.tree.depth[state.heads[holding.chain]] else None
            for holding in holdings
        )
        return tuple(sorted(kept, key=lambda one: one or ()))

    def _current(self, heads: Heads, commands: frozenset[Command]) -> frozenset[Command]:
        if not self.scenario.cas:
            return commands
        return frozenset(one for one in commands if one[1].answers == self.tree.depth[heads[one[0]]])

    def _steps(self, state: State) -> Iterator[tuple[str, State]]:
        """Yield all that can happen next."""
        yield from self._managers(state)
        yield from self._workers(state)
        yield from self._verifiers(state)
        yield from self._persons(state)
        yield from self._reports(state)
        yield from self._principles(state)
        yield from self._operators(state)
        if self.scenario.kill and not state.killed:
            yield "kill", state._replace(killed=True)
        if state.forgeries:
            yield from self._forgeries(state)

    def _append(self, state: State, command: Command, *, checked: bool = True) -> State | None:
        """Return the state after the broker took an entry, or None where it refuses it."""
        chain, fact = command
        head = state.heads[chain]
        in_chain = chain < self.world.past_tasks
        if in_chain and self.scenario.cas and fact.answers != self.tree.depth[head]:
            return None
        if in_chain and checked and not self.scenario.forgeries:
            try:
                check_append(self.world, state.heads, state.log, chain, fact)
            except Violation as violation:
                if self.broken is None:
                    raise
                self.broken.setdefault(violation.law, [*self._way_to(self.numbers[state]), str(violation)])
                return None
        node = self.tree.grow(head, fact)
        heads = _moved(state.heads, chain, node)
        log = (*state.log, (chain, node)) if self.scenario.ordered else ()
        if self.scenario.forgeries:
            check_step(self.world, self._folded(state.heads, state.log), chain, node)
            check_state(self._folded(heads, log))
        elif self.scenario.records:
            check_effects(self.world, log, self._folded(heads, log))
        elif fact.kind == "retried":
            self._check_retry(state, fact, log)
        elif self.scenario.cas and self._folded(heads, log).refused > self._folded(state.heads, state.log).refused:
            raise Violation("the machine follows what the broker took", f"{self.world.chains[chain]} {fact}")
        if self.scenario.cas:
            check_settling(self.world, self._folded(state.heads, state.log), self.world.entry(chain, node))
        return state._replace(heads=heads, log=log)

    def _check_retry(self, state: State, fact: Fact, log: Log) -> None:
        """Check that tasks are put back where that is allowed, and only there."""
        if fact.kind != "retried":
            return
        law = objection(self.world, state.log, fact)
        before, after = self.world.state_of_log(state.log), self.world.state_of_log(log)
        followed = after.refused == before.refused
        if followed and law:
            raise Violation(law, str(fact))
        if followed and after.closed is not None:
            raise Violation("a job that is taken up again is open", str(fact))
        if not followed and not law:
            raise Violation("what failed can be put back", str(fact))

    def _folded(self, heads: Heads, log: tuple[tuple[int, int], ...]) -> Any:
        """Return the machine's picture of a log."""
        return self.world.state_of_log(log) if self.scenario.ordered else self.world.state(heads)

    # Managers

    def _managers(self, state: State) -> Iterator[tuple[str, State]]:
        looks = self._views(state, killed=False) + (self._views(state, killed=True) if state.killed else ())
        if self.scenario.crew is None:
            for command in sorted({command for pending in looks for command in pending}):
                following = self._append(state, command)
                if following is not None:
                    yield self._label("manager", command), following
            return
        for number, pending in enumerate(state.managers):
            if not pending:
                yield from (("a manager decides", _with_manager(state, number, decided)) for decided in looks)
                continue
            yield "a manager dies", _with_manager(state, number, frozenset())
            for command in sorted(pending):
                rest = _with_manager(state, number, pending - {command})
                yield self._label("manager", command), self._append(rest, command) or rest

    def _views(self, state: State, *, killed: bool) -> tuple[frozenset[Command], ...]:
        """Return what managers may have decided by now: one set of commands for each view of the log.

        Every view but the newest one is also a view of a log that is one entry shorter.
        """
        key = (state.log or state.heads, killed)
        known = self._looks.get(key)
        if known is None:
            decided = {frozenset(self.world.decide(self._folded(*state[:2]), killed=killed))}
            for before in self._shorter(state):
                decided.update(self._views(before, killed=killed))
            if self.scenario.reduced:
                decided = {self._current(state.heads, one) for one in decided}
            known = self._looks[key] = tuple(decided - {frozenset()})
        return known

    def _shorter(self, state: State) -> Iterator[State]:
        """Yield the logs that lack one of the last entries of ``state`` and that a manager may have seen.

        A manager folds what it wrote itself before it has read what others wrote in between. What it knows is then no
        beginning of the log, but it is a log that could have come about.
        """
        if self.scenario.ordered:
            if len(state.log) > 1:
                chain, node = state.log[-1]
                yield State(_moved(state.heads, chain, self.tree.parent[node]), state.log[:-1])
            return
        for chain, head in enumerate(state.heads):
            shorter = _moved(state.heads, chain, self.tree.parent[head])
            if head != ROOT and shorter in self.seen_heads:
                yield State(shorter)

    def _label(self, who: str, command: Command) -> str:
        return f"{who}: {self.world.chains[command[0]]} {command[1].kind} {command[1].attempt} {command[1].detail}"

    # Workers and verifiers

    def _workers(self, state: State) -> Iterator[tuple[str, State]]:
        if self.scenario.crew is None:
            for taken in self._deliveries(state, "assigned"):
                for _, command in self._work(state, taken):
                    following = self._append(state, command)
                    if following is not None:
                        yield self._label("worker", command), following
            return
        for number, holding in enumerate(state.workers):
            for label, held, following in self._serve(state, holding, "assigned"):
                workers = (*following.workers[:number], held, *following.workers[number + 1 :])
                yield label, following._replace(workers=workers)

    def _verifiers(self, state: State) -> Iterator[tuple[str, State]]:
        if self.scenario.crew is None:
            for taken in self._deliveries(state, "result"):
                for _, command in self._judge(taken):
                    following = self._append(state, command)
                    if following is not None:
                        yield self._label("verifier", command), following
            return
        for number, holding in enumerate(state.verifiers):
            for label, held, following in self._serve(state, holding, "result"):
                verifiers = (*following.verifiers[:number], held, *following.verifiers[number + 1 :])
                yield label, following._replace(verifiers=verifiers)

    def _serve(self, state: State, holding: Holding | None, kind: str) -> Iterator[tuple[str, Holding | None, State]]:
        """Yield what a process of a role can do: take a message, answer it, acknowledge it, or die in between."""
        who = "worker" if kind == "assigned" else "verifier"
        if holding is None:
            yield from ((f"a {who} takes {one}", one, state) for one in self._deliveries(state, kind))
            return
        yield f"a {who} dies", None, state
        if holding.sent:
            acked = state.acked | {(holding.chain, holding.node)}
            yield f"a {who} acknowledges", None, state._replace(acked=acked)
            return
        answers = self._work(state, holding) if kind == "assigned" else self._judge(holding)
        for held, command in answers:
            following = self._append(state, command)
            if following is None:
                yield f"a {who} is refused", held._replace(sent=True), state
            else:
                yield self._label(who, command), held, following

    # A person, and what is told outside the chains

    def _persons(self, state: State) -> Iterator[tuple[str, State]]:
        """Let a person answer what is open; where nothing is compared, also what was open once."""
        if not (self.scenario.asks or self.scenario.makes) or not self.scenario.persons:
            return
        for command in self.world.replies(self._folded(state.heads, state.log)):
            yield from self._written(state, "person", command)
        if self.scenario.cas:
            return
        for chain, head in enumerate(state.heads[: self.world.past_tasks]):
            for node in self.tree.path(head):
                fact, depth = self.tree.fact[node], self.tree.depth[node]
                if fact.kind == "asked":
                    late = Fact("answered", fact.attempt, "yes", depth, refers=fact.answers + 1)
                    yield from self._written(state, "person", (chain, late))

    def _reports(self, state: State) -> Iterator[tuple[str, State]]:
        """Let whoever announced an effect say what came of it, however late, and somebody else as well."""
        tasks = len(self.scenario.tasks)
        for chain in range(1, self.world.past_tasks):
            told = chain + tasks
            if not self.scenario.records or self.tree.depth[state.heads[told]] >= self.scenario.records:
                continue
            for node in self.tree.path(state.heads[chain]):
                fact, depth = self.tree.fact[node], self.tree.depth[node]
                if fact.kind == "intended":
                    for kind, by in product(("done", "failed", "doubt"), ("", "x@t")):
                        report = Fact(kind, fact.attempt, self.world.chains[chain], depth, by)
                        yield from self._written(state, "worker", (told, report))

    def _principles(self, state: State) -> Iterator[tuple[str, State]]:
        """Find that the plan breaks a principle, whether or not it was accepted."""
        known = self._folded(state.heads, state.log)
        if self.scenario.rejects and known.rejected is None and known.closed is None:
            yield from self._written(state, "principles", (0, self._at_head(state, 0, Fact("rejected"))))

    def _operators(self, state: State) -> Iterator[tuple[str, State]]:
        """Put back what failed or was cancelled, one task or all, also where that is refused."""
        if sum(one.kind == "retried" for one in self.tree.facts(state.heads[0])) >= self.scenario.retries:
            return
        ends = ((chain, self.tree.fact[state.heads[chain]]) for chain in range(1, self.world.past_tasks))
        failed = [self.world.chains[chain] for chain, end in ends if end.kind == "closed" and end.detail != "accepted"]
        for tasks in {*failed, *([",".join(failed)] if failed else [])}:
            yield from self._written(state, "operator", (0, self._at_head(state, 0, Fact("retried", detail=tasks))))

    def _written(self, state: State, who: str, command: Command) -> Iterator[tuple[str, State]]:
        following = self._append(state, command)
        if following is not None:
            yield self._label(who, command), following

    def _at_head(self, state: State, chain: int, fact: Fact) -> Fact:
        return fact._replace(answers=self.tree.depth[state.heads[chain]])

    def _deliveries(self, state: State, kind: str) -> Iterator[Holding]:
        """Yield the messages that may be delivered, for the first time or again: all that are not acknowledged."""
        for chain, head in enumerate(state.heads[1 : self.world.past_tasks], 1):
            path = self.tree.path(head)
            for position, node in enumerate(path):
                if self.tree.fact[node].kind == kind and (chain, node) not in state.acked:
                    yield Holding(chain, node, self._believed(path, position))

    def _believed(self, path: list[int], position: int) -> int:
        """Return how long a process that takes up a message believes its chain to be."""
        following = path[position + 1 :]
        if self.scenario.effects == "head" and all(self.tree.fact[node].kind == "intended" for node in following):
            return len(path)
        return position + 1

    def _work(self, state: State, holding: Holding) -> Iterator[tuple[Holding, Command]]:
        attempt = self.tree.fact[holding.node].attempt
        intents = sum(fact.kind == "intended" for fact in self.tree.facts(state.heads[holding.chain]))
        if self.scenario.effects and intents < self.scenario.intents * attempt:
            intended = Fact("intended", attempt, "", holding.answers)
            yield holding._replace(answers=holding.answers + 1), (holding.chain, intended)
        asked = sum(fact[:2] == ("asked", attempt) for fact in self.tree.facts(state.heads[holding.chain]))
        if asked < self.scenario.asks:
            yield holding._replace(sent=True), (holding.chain, Fact("asked", attempt, "", holding.answers))
        for output in self.scenario.outputs:
            result = Fact("result", attempt, output, holding.answers)
            yield holding._replace(sent=True), (holding.chain, result)

    def _judge(self, holding: Holding) -> Iterator[tuple[Holding, Command]]:
        attempt = self.tree.fact[holding.node].attempt
        for verdict in self.scenario.verdicts:
            fact = Fact("verdict", attempt, verdict, holding.answers)
            yield holding._replace(sent=True), (holding.chain, fact)

    # Forgeries

    def _forgeries(self, state: State) -> Iterator[tuple[str, State]]:
        """Write any entry at the head of any chain, as somebody with a broker's key and no manners would."""
        poorer = state._replace(forgeries=state.forgeries - 1)
        for chain in range(self.world.past_tasks):
            for fact in forgeries_of(self.world, chain):
                command = (chain, self._at_head(state, chain, fact))
                following = self._append(poorer, command, checked=False)
                if following is not None:
                    yield self._label("forger", command), following


def _moved(heads: Heads, chain: int, node: int) -> Heads:
    return (*heads[:chain], node, *heads[chain + 1 :])


def _with_manager(state: State, number: int, pending: frozenset[Command]) -> State:
    return state._replace(managers=(*state.managers[:number], pending, *state.managers[number + 1 :]))
