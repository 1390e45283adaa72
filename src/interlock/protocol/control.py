"""Control: what must stop, until when, and which of them bind whom. Pure.

An order is written to ``il.<ns>.control.<scope>``. The broker keeps the last one of each scope, so what was killed
stays killed, whoever restarts; its sequence in that stream is its epoch, a number that only rises. Publishing is
storing and telling at once: whoever supervises agents listens there.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Literal, TypeVar

from pydantic import AwareDatetime, Field, TypeAdapter, ValidationError

from interlock.protocol.base import Name, Strict
from interlock.protocol.errors import BodyNotJson, MessageInvalid
from interlock.protocol.lineage import is_within
from interlock.protocol.messages import JobSubmitted, Token
from interlock.protocol.permissions import Permissions
from interlock.protocol.principles import Principle

__all__ = [
    "NO_POLICY",
    "AgentScope",
    "AllScope",
    "Control",
    "ControlOrder",
    "JobScope",
    "Order",
    "Policy",
    "Scope",
    "TeamScope",
    "control_subject",
    "control_subjects",
    "decode_order",
    "decode_policy",
    "policy_subject",
    "standing",
    "stop_of",
    "stop_of_job",
]


_T = TypeVar("_T")


class AllScope(Strict):
    """Everything in the namespace."""

    of: Literal["all"] = "all"


class TeamScope(Strict):
    """Every job of a team."""

    of: Literal["team"] = "team"
    team: Name


class JobScope(Strict):
    """One job, and all jobs within it."""

    of: Literal["job"] = "job"
    job: Token


class AgentScope(Strict):
    """One agent of a team, in every job."""

    of: Literal["agent"] = "agent"
    team: Name
    agent: Name


Scope = Annotated[AllScope | TeamScope | JobScope | AgentScope, Field(discriminator="of")]
"""What an order is about."""


class ControlOrder(Strict):
    """Stop a scope, or let it go on."""

    v: Literal[1] = 1
    id: Token
    stop: bool
    """True: kill; False: resume."""
    scope: Scope
    reason: str = Field(default="", max_length=1000)
    at: AwareDatetime


class Policy(Strict):
    """What an operator lays down for every job of a namespace, whatever their teams say."""

    v: Literal[1] = 1
    id: Token
    at: AwareDatetime
    permissions: Permissions = Permissions()
    principles: tuple[Principle, ...] = ()
    base: str = "/"
    """The absolute folder that relative patterns count from."""


NO_POLICY = Policy(id="none", at=datetime(1970, 1, 1, tzinfo=UTC))
"""What stands where no operator laid anything down: it narrows nothing."""


@dataclass(frozen=True, slots=True)
class Control:
    """All that stands in the control stream at one moment."""

    orders: Mapping[str, "Order"] = field(default_factory=dict)
    """The last order of each scope, by subject."""
    policy: Policy = NO_POLICY
    policy_epoch: int = 0
    """The policy's sequence in the stream, a number that only rises; 0: nobody laid down any."""
    newest: int = 0
    """The last sequence of the stream: equal numbers mean that nothing changed."""


@dataclass(frozen=True, slots=True)
class Order:
    """An order as it stands in the control stream."""

    epoch: int
    order: ControlOrder


def control_subject(ns: str, scope: AllScope | TeamScope | JobScope | AgentScope) -> str:
    """Return the subject of the orders for ``scope``."""
    match scope:
        case AllScope():
            return f"il.{ns}.control.all"
        case TeamScope():
            return f"il.{ns}.control.team.{scope.team}"
        case JobScope():
            return f"il.{ns}.control.job.{scope.job}"
        case AgentScope():
            return f"il.{ns}.control.agent.{scope.team}.{scope.agent}"


def policy_subject(ns: str) -> str:
    """Return the subject of the operator's policy."""
    return f"il.{ns}.control.policy"


def control_subjects(ns: str) -> str:
    """Return the wildcard over all orders."""
    return f"il.{ns}.control.>"


def decode_order(body: bytes) -> ControlOrder:
    """Return the order that ``body`` is.

    :raises BodyNotJson: it is not JSON
    :raises MessageInvalid: wrong, missing or unknown fields
    """
    return _decode(_ORDER, body, "control order")


def decode_policy(body: bytes) -> Policy:
    """Return the policy that ``body`` is.

    :raises BodyNotJson: it is not JSON
    :raises MessageInvalid: wrong, missing or unknown fields
    """
    return _decode(_POLICY, body, "policy")


def _decode(adapter: TypeAdapter[_T], body: bytes, what: str) -> _T:
    try:
        return adapter.validate_json(body)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        if problems[0]["type"] == "json_invalid":
            raise BodyNotJson(problems[0]["msg"]) from None
        told = (f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in problems[:5])
        raise MessageInvalid(what, tuple(told)) from None


def standing(orders: Iterable[Order], ns: str) -> dict[str, Order]:
    """Return the last order of each scope, by subject, in whatever sequence they came in."""
    last: dict[str, Order] = {}
    for order in orders:
        subject = control_subject(ns, order.order.scope)
        if subject not in last or order.epoch > last[subject].epoch:
            last[subject] = order
    return last


def stop_of(orders: Mapping[str, Order], *, team: str, job: str, agent: str | None = None) -> Order | None:
    """Return the newest of the standing orders that stops a job, or an agent in it; None where nothing does.

    A resume lifts the kill of its own scope only: resuming a team leaves it killed where everything is.
    """
    stops = [one for one in orders.values() if one.order.stop and _covers(one.order.scope, team, job, agent)]
    return max(stops, key=lambda one: one.epoch, default=None)


def stop_of_job(orders: Mapping[str, Order], submitted: JobSubmitted) -> Order | None:
    """Return the newest of the standing orders that stops a job: itself, or what it does the work of.

    That is a team around its own, or the agent of such a team that the job does the work of.
    """
    team, job = submitted.team.team, submitted.job
    found = [stop_of(orders, team=team, job=job)]
    found += [stop_of(orders, team=one.team, job=job, agent=one.agent) for one in submitted.bounds]
    return max((one for one in found if one is not None), key=lambda one: one.epoch, default=None)


def _covers(scope: AllScope | TeamScope | JobScope | AgentScope, team: str, job: str, agent: str | None) -> bool:
    match scope:
        case AllScope():
            return True
        case TeamScope():
            return scope.team == team
        case JobScope():
            return is_within(job, scope.job)
        case AgentScope():
            return scope.team == team and scope.agent == agent


_ORDER: TypeAdapter[ControlOrder] = TypeAdapter(ControlOrder)
_POLICY: TypeAdapter[Policy] = TypeAdapter(Policy)
