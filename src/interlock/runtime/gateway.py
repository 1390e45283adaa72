"""The one gateway between agents and everything outside: no tool is called by any other way.

For each call, in this order and right before the effect: the tool's effect class, the grant, the principles, the rules,
the taint, the kill orders and the budget. What has an effect is logged before and after. What an operator lays down
meanwhile is read from the broker between the intent and the effect, and where it changed the call is judged anew.
"""

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from pydantic import Field

from interlock.agents.authority import Authority, Judged
from interlock.agents.toolbox import Observation
from interlock.agents.tools.calling import Tool
from interlock.agents.tools.errors import ToolError, ToolRefused
from interlock.agents.tools.tool import NOT_DONE, ToolContext
from interlock.backends.chat import ToolCall, ToolOffer
from interlock.observability.tracing import ToolSpan, ToolUse, Tracing
from interlock.protocol.base import Json, Strict, canonical_json
from interlock.protocol.control import Control
from interlock.protocol.ledger import Move, effect_key
from interlock.protocol.messages import ActionTaken
from interlock.protocol.permissions import Call
from interlock.protocol.principles import DoneCall
from interlock.protocol.state import EffectStatus
from interlock.protocol.taint import Provenance
from interlock.protocol.tools import ToolSpec
from interlock.runtime.approvals import Answered, Approvals
from interlock.runtime.chain import Chain
from interlock.runtime.effects import EffectsLedger

__all__ = ["Acted", "AllowUrl", "Gateway", "Outside", "done_calls"]

AllowUrl: TypeAlias = Callable[[str], Awaitable[None]]
"""To be asked about each address that a tool is led on to.

:raises ToolRefused: it may not go there
"""

_CARRIED_OUT = ("done", "reused", "in_doubt")
_SHOWN = 300
"""Characters of an outcome that an action keeps."""

_REUSED = "Not done again, since this task did exactly this before. What it came to then: "
_CANCELLED = "it was cancelled while it was under way"


@dataclass(frozen=True, slots=True)
class Outside:
    """What the gateway reaches through: given by whoever serves the role."""

    tools: Mapping[str, Tool]
    control: Callable[[], Awaitable[Control]]
    """Reads what the operator has laid down, right now.

    :raises AttemptLost: it kills the attempt
    """
    history: Callable[[], Awaitable[Sequence[DoneCall]]]
    """Returns the calls that the job's other attempts made."""
    context: Callable[[str, AllowUrl, Callable[[str], None]], ToolContext]
    """Returns what a tool gets besides its arguments: for a call with this idempotency key, and with whom to ask before
    it goes to an address that the arguments do not name, and whom to tell which sandbox it runs something in."""
    hide: Callable[[Json], Json]
    """Returns a value without the secrets in it."""


class Acted(Strict):
    """What an attempt has done so far: what its gateway has to know again in another process."""

    provenance: Provenance
    actions: tuple[ActionTaken, ...] = ()
    calls: int = 0
    used: dict[int, int] = Field(default_factory=dict)
    """How many calls went to each of the tool grants, by its index."""
    declined: dict[str, str] = Field(default_factory=dict)
    """The calls that a person refused: see ``Approvals``."""


class Gateway:
    """The tools of one attempt, as a ``Toolbox``."""

    def __init__(
        self,
        authority: Authority,
        chain: Chain,
        acted: Acted,
        outside: Outside,
        tracing: Tracing,
        answered: Answered | None = None,
    ) -> None:
        self.provenance = acted.provenance
        """What the attempt has seen; it grows with each call."""
        self._authority = authority
        self._chain = chain
        self._ledger = EffectsLedger(chain)
        self._outside = outside
        self._tracing = tracing
        self._approvals = Approvals(chain.by, outside.hide, answered, acted.declined)
        self._actions = list(acted.actions)
        self._done = done_calls(acted.actions, authority.catalogue)
        self._used = Counter(acted.used)
        self._calls = acted.calls

    @property
    def offers(self) -> tuple[ToolOffer, ...]:
        """What the model may call: what the plan grants and this process has."""
        return tuple(
            ToolOffer(spec.name, spec.description, dict(spec.parameters))
            for spec in self._authority.granted
            if spec.name in self._outside.tools
        )

    @property
    def actions(self) -> tuple[ActionTaken, ...]:
        """What was done so far, oldest first."""
        return tuple(self._actions)

    def hidden(self, value: Json) -> Json:
        """Return ``value`` without the team's secrets."""
        return self._outside.hide(value)

    @property
    def acted(self) -> Acted:
        """What another process needs to go on with the attempt. It may hold secrets that a call was made with."""
        calls = self._calls - 1  # the call that waits is made again
        return Acted(
            provenance=self.provenance,
            actions=self.actions,
            calls=calls,
            used=dict(self._used),
            declined=self._approvals.declined,
        )

    async def call(self, call: ToolCall) -> Observation:
        """Do what the model asks for, or say why not.

        :raises Suspended: a person has to be asked first; ``question`` is a ``Pending``
        :raises AttemptLost: the attempt is not this process's any more, or it is killed
        :raises BusError: what no waiting will cure
        """
        assigned = self._chain.assignment
        use = ToolUse(
            name=call.name,
            call_id=call.id,
            job=assigned.job,
            task=assigned.task,
            attempt=assigned.attempt,
            taint=self.provenance.labels,
        )
        with self._tracing.execute_tool(use) as span:
            arguments: dict[str, Json] = json.loads(call.arguments)
            span.asked(canonical_json(self._outside.hide(arguments)))
            return await self._call(call.name, arguments, span)

    async def _call(self, name: str, arguments: Mapping[str, Json], span: ToolSpan) -> Observation:
        self._calls += 1
        if self._calls > self._chain.assignment.grant.actions:
            return self._refuse(name, arguments, "the attempt's tool calls are used up", span)
        while True:
            control = await self._outside.control()
            looks = self._authority.looks_back(control.policy)
            history = (*await self._outside.history(), *self._done) if looks else ()
            judged = self._authority.judge(
                control.policy, name, arguments, self.provenance, used=self._used, done=history
            )
            if judged.outcome == "refuse" or judged.call is None or name not in self._outside.tools:
                span.decided("deny", rule=judged.rule)
                return self._refuse(name, arguments, judged.reason, span)
            span.decided("allow" if judged.outcome == "go" else "ask", rule=judged.rule, effect=judged.call.spec.effect)
            observation = await self._decided(judged, judged.call, control, span)
            if observation is not None:
                return observation

    async def _decided(self, judged: Judged, call: Call, control: Control, span: ToolSpan) -> Observation | None:
        """Act on what was judged; None where the policy changed before anything was done."""
        if judged.outcome == "suggest":
            return self._note(call, "suggested", judged.reason, None, span)
        if call.spec.effect == "read":
            return self._refused_by_person(judged, call, control, span) or await self._read(judged, call, span)
        return await self._change(judged, call, control, span)

    def _refused_by_person(self, judged: Judged, call: Call, control: Control, span: ToolSpan) -> Observation | None:
        """Return what the model is told where a person does not want the call.

        :raises Suspended: a person has to be asked
        """
        refusal = self._approvals.check(judged, call, control)
        return None if refusal is None else self._refuse(call.spec.name, call.arguments, refusal, span)

    async def _read(self, judged: Judged, call: Call, span: ToolSpan) -> Observation:
        self._used[judged.grant] += 1
        self._approvals.spend()
        try:
            outcome = await self._outside.tools[call.spec.name].call(call.arguments, self._context(call, span))
        except ToolError as problem:
            return self._failed(call, "failed", str(problem), None, span)
        return self._succeeded(call, "done", outcome, None, span)

    async def _change(self, judged: Judged, call: Call, control: Control, span: ToolSpan) -> Observation | None:
        """Make an effect, unless it was made before; None where the policy changed before it was begun."""
        key = self._key(call)
        move = await self._ledger.move(call.spec, key)
        if move == "probe":
            move = await self._probed(call, key, span)
        if move == "ask":
            move = await self._settled_by_person(judged, call, control, key)
        record = await self._ledger.record_of(key)
        if move == "ask":
            unknown = "nobody could say whether it took place, so it is not done again"
            return self._failed(call, "in_doubt", unknown, key, span)
        if move == "reuse" and record is not None:
            return self._succeeded(call, "reused", record.outcome, key, span)
        refused = self._refused_by_person(judged, call, control, span)
        return refused or await self._make(judged, call, control, key, span)

    async def _probed(self, call: Call, key: str, span: ToolSpan) -> Move:
        """Ask the tool what became of an effect; what it cannot tell goes to a person."""
        try:
            outcome = await self._outside.tools[call.spec.name].probe(call.arguments, self._context(call, span))
        except ToolError as problem:
            await self._ledger.in_doubt(key, self._hidden(str(problem)))
            return "ask"
        if outcome is NOT_DONE:
            return "run"
        await self._ledger.done(key, self._outside.hide(outcome))
        return "reuse"

    async def _make(self, judged: Judged, call: Call, control: Control, key: str, span: ToolSpan) -> Observation | None:
        """Log the intent, make sure that nothing changed, make the effect and log what came of it."""
        await self._ledger.intend(call.spec, key, call.arguments)
        try:
            now = await self._outside.control()
            await self._chain.hold()
        except BaseException:
            await self._ledger.done(key, "not begun: the attempt was stopped", failed=True)
            raise
        if now.newest != control.newest:
            await self._ledger.done(key, "not begun: what is allowed changed meanwhile", failed=True)
            return None
        self._used[judged.grant] += 1
        self._approvals.spend()
        return await self._act(call, key, span)

    async def _act(self, call: Call, key: str, span: ToolSpan) -> Observation:
        try:
            outcome = await self._outside.tools[call.spec.name].call(call.arguments, self._context(call, span))
        except ToolError as problem:
            reason = self._hidden(str(problem))
            if problem.nothing_changed:
                await self._ledger.done(key, reason, failed=True)
                return self._failed(call, "failed", reason, key, span)
            await self._ledger.in_doubt(key, reason)
            return self._failed(call, "in_doubt", f"it is not known whether it took place: {reason}", key, span)
        except BaseException:
            self._failed(call, "in_doubt", _CANCELLED, key, span)  # an attempt whose time is over still has a result
            await self._ledger.in_doubt(key, _CANCELLED)
            raise
        hidden = self._outside.hide(outcome)
        observation = self._succeeded(call, "done", hidden, key, span)
        await self._ledger.done(key, hidden)
        return observation

    def _key(self, call: Call) -> str:
        assigned = self._chain.assignment
        return effect_key(assigned.job, assigned.task, call.spec.name, call.arguments)

    def _context(self, call: Call, span: ToolSpan) -> ToolContext:
        ran_in = partial(_ran_in, span, call.spec.effect)
        return self._outside.context(self._key(call), partial(self._allow_url, call), ran_in)

    async def _allow_url(self, call: Call, url: str) -> None:
        """Judge an address that a call was led on to, such as by a redirect, as if the call had named it.

        :raises ToolRefused: it may not go there
        """
        argument = call.spec.primary
        control = await self._outside.control()
        arguments = {**call.arguments, argument: url} if argument else dict(call.arguments)
        judged = self._authority.judge(
            control.policy, call.spec.name, arguments, self.provenance, used=Counter(), done=self._done
        )
        if judged.outcome != "go":
            raise ToolRefused(f"it was led on to {url}: {judged.reason}")

    async def _settled_by_person(self, judged: Judged, call: Call, control: Control, key: str) -> Move:
        """Return what to do with an effect in doubt, as a person knows it; ``ask``: he does not know either.

        :raises Suspended: the person has to be asked
        """
        record = await self._ledger.record_of(key)
        if record is not None and record.status is EffectStatus.INTENDED:
            await self._ledger.in_doubt(key, "whoever was to make it ended before it was recorded")
            record = await self._ledger.record_of(key)
        answer = self._approvals.doubt(judged, call, control, key, record.reason if record else "")
        if answer == "done":
            await self._ledger.done(key, {"confirmed": "a person says that it took place"})
            return "reuse"
        if answer == "not_done":
            await self._ledger.done(key, "a person says that it did not take place", failed=True)
            return "run"
        return "ask"

    def _refuse(self, name: str, arguments: Mapping[str, Json], reason: str, span: ToolSpan) -> Observation:
        reason = self._hidden(reason)
        span.answered(reason, error_type="denied")
        self._actions.append(
            ActionTaken(tool=name, arguments=self._outside.hide(dict(arguments)), outcome=f"refused: {reason}")
        )
        return Observation(f"refused: {reason}", failed=True)

    def _failed(self, call: Call, how: str, reason: str, key: str | None, span: ToolSpan) -> Observation:
        """Tell of a call that came to nothing. What it says may be text from outside as well."""
        reason = self._hidden(reason)
        self.provenance = self.provenance.after(call, reason)
        span.answered(reason, error_type=how)
        self._actions.append(self._action(call, f"{how}: {reason[:_SHOWN]}", key))
        if how == "in_doubt":
            self._done.append(_done_call(call, surely=False))
        return Observation(f"{how}: {reason}", failed=True)

    def _note(self, call: Call, how: str, reason: str, key: str | None, span: ToolSpan) -> Observation:
        span.answered(reason)
        self._actions.append(self._action(call, f"{how}: {reason}", key))
        return Observation(f"{how}: {reason}")

    def _succeeded(self, call: Call, how: str, outcome: Json, key: str | None, span: ToolSpan) -> Observation:
        hidden = self._outside.hide(outcome)
        self.provenance = self.provenance.after(call, hidden)
        text = hidden if isinstance(hidden, str) else json.dumps(hidden, ensure_ascii=False)
        span.answered(text)
        self._actions.append(self._action(call, f"{how}: {text[:_SHOWN]}", key))
        self._done.append(_done_call(call, surely=True))
        return Observation(f"{_REUSED}{text}" if how == "reused" else text)

    def _action(self, call: Call, outcome: str, key: str | None) -> ActionTaken:
        return ActionTaken(
            tool=call.spec.name, arguments=self._outside.hide(dict(call.arguments)), outcome=outcome, key=key
        )

    def _hidden(self, text: str) -> str:
        return str(self._outside.hide(text))


def _done_call(call: Call, *, surely: bool) -> DoneCall:
    return DoneCall(call.spec.name, call.spec.effect, call.arguments, call.spec, surely)


def _ran_in(span: ToolSpan, effect: str, tier: str) -> None:
    span.decided("allow", effect=effect, tier=tier)


def done_calls(actions: Sequence[ActionTaken], catalogue: Mapping[str, ToolSpec]) -> list[DoneCall]:
    """Return those of ``actions`` that were carried out, as principles of order look at them."""
    return [
        DoneCall(
            spec.name,
            spec.effect,
            action.arguments if isinstance(action.arguments, dict) else {},
            spec,
            surely=not action.outcome.startswith("in_doubt"),
        )
        for action in actions
        if (spec := catalogue.get(action.tool)) is not None and action.outcome.startswith(_CARRIED_OUT)
    ]
