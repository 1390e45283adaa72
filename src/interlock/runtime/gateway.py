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
from typing import Literal, TypeAlias

from pydantic import Field

from interlock.agents.authority import Authority, Judged
from interlock.agents.toolbox import AttemptLost, Observation, Suspended
from interlock.agents.tools.calling import Tool
from interlock.agents.tools.errors import ToolError, ToolRefused
from interlock.agents.tools.tool import NOT_DONE, ToolContext
from interlock.backends.chat import ToolCall, ToolOffer
from interlock.observability.tracing import ToolSpan, ToolUse, Tracing
from interlock.protocol.base import Json, Strict, canonical_json
from interlock.protocol.control import Control
from interlock.protocol.ledger import Record, digest_of, effect_key, next_move
from interlock.protocol.messages import ActionTaken, Approval, QuestionAnswered, QuestionAsked
from interlock.protocol.permissions import Call
from interlock.protocol.principles import DoneCall
from interlock.protocol.taint import Provenance
from interlock.protocol.tools import ToolSpec
from interlock.runtime.chain import Chain
from interlock.runtime.effects import EffectsLedger

__all__ = ["Acted", "AllowUrl", "Answered", "Gateway", "Outside", "Pending", "done_calls"]

AllowUrl: TypeAlias = Callable[[str], Awaitable[None]]
"""To be asked about each address that a tool is led on to.

:raises ToolRefused: it may not go there
"""

_CARRIED_OUT = ("done", "reused", "in_doubt")
_SHOWN = 300
"""Characters of an outcome that an action keeps."""


@dataclass(frozen=True, slots=True)
class Pending:
    """What a person has to be asked before a call can be made; what a ``question.asked`` is made of."""

    about: Literal["approval", "doubt"]
    text: str
    approval: Approval
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """The question that the attempt waited with, and what the person said."""

    asked: QuestionAsked
    answer: QuestionAnswered


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
    context: Callable[[str, "AllowUrl"], ToolContext]
    """Returns what a tool gets besides its arguments: for a call with this idempotency key, and with whom to ask before
    it goes to an address that the arguments do not name."""
    hide: Callable[[Json], Json]
    """Returns a value without the secrets in it."""
    tier: str = ""
    """What isolates code that is run."""


class Acted(Strict):
    """What an attempt has done so far: what its gateway has to know again in another process."""

    provenance: Provenance
    actions: tuple[ActionTaken, ...] = ()
    calls: int = 0
    used: dict[int, int] = Field(default_factory=dict)
    """How many calls went to each of the tool grants, by its index."""


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
        self._answered = answered
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

    @property
    def acted(self) -> Acted:
        """What another process needs to go on with the attempt."""
        calls = self._calls - 1  # the call that waits is made again
        return Acted(provenance=self.provenance, actions=self.actions, calls=calls, used=dict(self._used))

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
            self._check_approved(judged, call, control)
            if self._said_no(call):
                return self._refuse_by_person(call, span)
            return await self._read(judged, call, span)
        return await self._change(judged, call, control, span)

    async def _read(self, judged: Judged, call: Call, span: ToolSpan) -> Observation:
        self._used[judged.grant] += 1
        try:
            outcome = await self._outside.tools[call.spec.name].call(call.arguments, self._context(call))
        except ToolError as problem:
            return self._failed(call, "failed", str(problem), None, span)
        return self._succeeded(call, "done", outcome, None, span)

    async def _change(self, judged: Judged, call: Call, control: Control, span: ToolSpan) -> Observation | None:
        """Make an effect, unless it was made before; None where the policy changed before it was begun."""
        assigned = self._chain.assignment
        key = effect_key(assigned.job, assigned.task, call.spec.name, call.arguments)
        record = await self._ledger.record_of(key)
        move = next_move(record, call.spec.effect, probe=call.spec.probe)
        if move == "probe":
            move = await self._probed(call, key)
            record = await self._ledger.record_of(key)
        if move == "reuse" and record is not None:
            return self._succeeded(call, "reused", record.outcome, key, span)
        if move == "ask":
            settled = await self._settled_by_person(judged, call, control, key)
            if settled is not None:
                return self._told(call, settled, key, span)
        else:
            self._check_approved(judged, call, control)
            if self._said_no(call):
                return self._refuse_by_person(call, span)
        return await self._make(judged, call, control, key, span)

    async def _probed(self, call: Call, key: str) -> Literal["reuse", "run", "ask"]:
        """Ask the tool what became of an effect; what it cannot tell goes to a person."""
        try:
            outcome = await self._outside.tools[call.spec.name].probe(call.arguments, self._context(call))
        except ToolError as problem:
            await self._ledger.in_doubt(key, self._hidden(str(problem)))
            return "ask"
        if outcome is NOT_DONE:
            return "run"
        await self._ledger.done(key, self._outside.hide(outcome))
        return "reuse"

    async def _make(self, judged: Judged, call: Call, control: Control, key: str, span: ToolSpan) -> Observation | None:
        """Log the intent, make sure that nothing changed, make the effect and log what came of it."""
        await self._ledger.intend(call.spec, key, digest_of(call.arguments))
        try:
            now = await self._outside.control()
            await self._chain.hold()
        except AttemptLost:
            await self._ledger.done(key, "not begun: the attempt was stopped", failed=True)
            raise
        if now.newest != control.newest:
            await self._ledger.done(key, "not begun: what is allowed changed meanwhile", failed=True)
            return None
        self._used[judged.grant] += 1
        self._answered = None
        return await self._act(call, key, span)

    async def _act(self, call: Call, key: str, span: ToolSpan) -> Observation:
        try:
            outcome = await self._outside.tools[call.spec.name].call(call.arguments, self._context(call))
        except ToolError as problem:
            reason = self._hidden(str(problem))
            if problem.nothing_changed:
                await self._ledger.done(key, reason, failed=True)
                return self._failed(call, "failed", reason, key, span)
            await self._ledger.in_doubt(key, reason)
            return self._failed(call, "in_doubt", f"it is not known whether it took place: {reason}", key, span)
        except BaseException:
            await self._ledger.in_doubt(key, "it was cancelled while it was under way")
            raise
        hidden = self._outside.hide(outcome)
        await self._ledger.done(key, hidden)
        return self._succeeded(call, "done", hidden, key, span)

    def _context(self, call: Call) -> ToolContext:
        assigned = self._chain.assignment
        key = effect_key(assigned.job, assigned.task, call.spec.name, call.arguments)
        return self._outside.context(key, partial(self._allow_url, call))

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

    def _check_approved(self, judged: Judged, call: Call, control: Control) -> None:
        """Return if the call may be made, or was answered with a no.

        :raises Suspended: a person has to be asked, or asked again since the policy changed
        """
        if judged.outcome != "ask" or self._said_no(call):
            return
        answered = self._answer_for(call, "approval")
        approval = answered.asked.approval if answered else None
        if approval is not None and approval.policy == control.policy_epoch:
            return
        name = self._chain.by
        text = f"May {name} call {call.spec.name} ({call.spec.effect})? It is asked because {judged.reason}."
        raise Suspended(Pending("approval", text, self._approval(judged, call, control)))

    async def _settled_by_person(self, judged: Judged, call: Call, control: Control, key: str) -> Record | str | None:
        """Return the effect as a person knows it, or why it stays in doubt; None where it was not made and may be.

        :raises Suspended: the person has to be asked
        """
        answered = self._answer_for(call, "doubt")
        if answered is None:
            await self._ledger.in_doubt(key, "whoever was to make it ended before it was recorded")
            text = f"Did {call.spec.name} take place? Whoever was to make it ended before it was recorded."
            raise Suspended(Pending("doubt", text, self._approval(judged, call, control), key))
        match answered.answer.answer:
            case "done":
                await self._ledger.done(key, {"confirmed": "a person says that it took place"})
                return await self._ledger.record_of(key)
            case "not_done":
                return None
            case _:
                return "nobody could say whether it took place, so it is not done again"

    def _told(self, call: Call, settled: Record | str, key: str, span: ToolSpan) -> Observation:
        if isinstance(settled, str):
            return self._failed(call, "in_doubt", settled, key, span)
        return self._succeeded(call, "reused", settled.outcome, key, span)

    def _answer_for(self, call: Call, about: Literal["approval", "doubt"]) -> Answered | None:
        """Return the answer that was given for exactly this call, if there is one."""
        answered = self._answered
        approval = answered.asked.approval if answered and answered.asked.about == about else None
        if approval is None or (approval.tool, approval.digest) != (call.spec.name, digest_of(call.arguments)):
            return None
        return answered

    def _said_no(self, call: Call) -> bool:
        answered = self._answer_for(call, "approval")
        return answered is not None and answered.answer.answer != "yes"

    def _approval(self, judged: Judged, call: Call, control: Control) -> Approval:
        return Approval(
            tool=call.spec.name,
            arguments=self._outside.hide(dict(call.arguments)),
            digest=digest_of(call.arguments),
            effect=call.spec.effect,
            rule=judged.rule,
            policy=control.policy_epoch,
        )

    def _refuse_by_person(self, call: Call, span: ToolSpan) -> Observation:
        note = self._answered.answer.note if self._answered else ""
        self._answered = None
        return self._refuse(call.spec.name, call.arguments, f"a person said no{f': {note}' if note else ''}", span)

    def _refuse(self, name: str, arguments: Mapping[str, Json], reason: str, span: ToolSpan) -> Observation:
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
        self._done.append(DoneCall(call.spec.name, call.spec.effect, call.arguments, call.spec))
        return Observation(text)

    def _action(self, call: Call, outcome: str, key: str | None) -> ActionTaken:
        return ActionTaken(
            tool=call.spec.name, arguments=self._outside.hide(dict(call.arguments)), outcome=outcome, key=key
        )

    def _hidden(self, text: str) -> str:
        return str(self._outside.hide(text))


def done_calls(actions: Sequence[ActionTaken], catalogue: Mapping[str, ToolSpec]) -> list[DoneCall]:
    """Return those of ``actions`` that were carried out, as principles of order look at them."""
    return [
        DoneCall(spec.name, spec.effect, action.arguments if isinstance(action.arguments, dict) else {}, spec)
        for action in actions
        if (spec := catalogue.get(action.tool)) is not None and action.outcome.startswith(_CARRIED_OUT)
    ]
