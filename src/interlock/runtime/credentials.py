"""Who may do what at the broker. Pure: from the parties and their public keys to the accounts of a nats-server.

Each party has an account of its own, apart from that of the streams, and reaches into that one through as many narrow
openings as it has rights. Permissions alone would not do: whoever may ask the broker for anything names the subject
that the answer goes to, and in the account of the streams that could be somebody's verdict, or a kill order.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from interlock.agents.children import teams_of
from interlock.protocol.base import Role, role_of
from interlock.protocol.messages import JOB_TASK
from interlock.protocol.subjects import live_subject, sent_by
from interlock.protocol.team import Team
from interlock.runtime._names import (
    LANES,
    QueueKind,
    bucket,
    bucket_stream,
    budget_subject,
    control_stream,
    log_stream,
    queue_name,
    state_stream,
    state_subject,
)
from interlock.runtime.address import AGENT_API, API, inbox_of

__all__ = ["STREAMS", "Party", "PartyKind", "Right", "accounts", "parties_of", "rights_of"]

PartyKind = Literal["operator", "manager", "worker", "verifier", "team"]

STREAMS = "INTERLOCK"
"""The account of the streams, which operators work in."""

_NAME = re.compile(
    r"(?P<plain>operator|manager)|(?P<kind>worker|verifier|team)-(?P<role>[a-z][a-z0-9_-]*@[a-z][a-z0-9_-]*)"
)
_WORKER_SENDS = ("result", "asked", "intended", "done", "in_doubt")
_VERIFIER_SENDS = ("verdict",)
_TEAM_SENDS = ("result",)
_PLANNING = ("proposed", "accepted", "rejected", "expanded")


@dataclass(frozen=True, slots=True, order=True)
class Party:
    """Who logs in to the broker."""

    kind: PartyKind
    role: Role = ""
    """Of a worker or a verifier; empty: there is one of the kind."""

    @property
    def name(self) -> str:
        """Its name in files and in the broker's log, such as ``worker-reader@digest``."""
        return f"{self.kind}-{self.role}" if self.role else self.kind

    @classmethod
    def named(cls, name: str) -> "Party | None":
        """Return the party with this name; None where it is no party's."""
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        plain: Any = match["plain"]
        kind: Any = match["kind"]
        return cls(plain) if plain else cls(kind, match["role"])


@dataclass(frozen=True, slots=True)
class Right:
    """Something that a party may send."""

    subject: str
    """In the account of the streams; with wildcards."""
    many: bool = False
    """Whether one request gets many answers."""

    @property
    def sent_to(self) -> str:
        """The subject in the account of the party.

        The broker's API has another name there: under its own one each account has an API of its own.
        """
        return f"{AGENT_API}{self.subject.removeprefix(API)}" if self.subject.startswith(f"{API}.") else self.subject


def parties_of(teams: Iterable[Team]) -> tuple[Party, ...]:
    """Return who takes part where ``teams`` and those within them work, an operator and a manager among them."""
    agents = {
        Party(agent.kind, role_of(name, team.team))
        for outer in teams
        for team in teams_of(outer)
        for name, agent in team.agents.items()
        if agent.kind != "manager"
    }
    return (Party("operator"), Party("manager"), *sorted(agents))


def rights_of(party: Party, ns: str) -> tuple[Right, ...]:
    """Return all that ``party`` may send in the namespace ``ns``; an operator may do everything there is."""
    match party.kind:
        case "operator":
            return (Right(">"),)
        case "manager":
            own = (*_following(ns), *_managing(ns))
        case "worker":
            own = tuple(_serving(party.role, ns, "assigned", _WORKER_SENDS))
        case "verifier":
            own = tuple(_serving(party.role, ns, "result", _VERIFIER_SENDS))
        case "team":
            begins = Right(f"il.{ns}.log.*.*.{JOB_TASK}.submitted")
            own = (*_following(ns), begins, *_serving(party.role, ns, "assigned", _TEAM_SENDS))
    shared = (*_reading(ns), *_writing_bodies(ns), *_counting(ns))
    return (*shared, Right(state_subject(ns, f"node.{party.name}.*")), *own)


def accounts(keys: Mapping[Party, str], ns: str) -> dict[str, Any]:
    """Return the ``accounts`` of a nats-server's configuration for the parties with these public keys."""
    guests = sorted(party for party in keys if party.kind != "operator")
    exports: dict[Right, list[str]] = {}
    for party in guests:
        for right in rights_of(party, ns):
            exports.setdefault(right, []).append(party.name)
    return {
        STREAMS: {
            "jetstream": "enabled",
            "users": [{"nkey": key} for party, key in sorted(keys.items()) if party.kind == "operator"],
            "exports": [_export(right, names) for right, names in exports.items()],
        },
        **{party.name: _account(party, keys[party], ns) for party in guests},
    }


def _reading(ns: str) -> Iterator[Right]:
    for stream in (log_stream(ns), control_stream(ns), bucket_stream(ns)):
        yield Right(f"{API}.DIRECT.GET.{stream}")
    for stream in (log_stream(ns), control_stream(ns), bucket_stream(ns), state_stream(ns)):
        yield Right(f"{API}.STREAM.MSG.GET.{stream}")
    for stream in (control_stream(ns), state_stream(ns)):
        yield Right(f"{API}.STREAM.INFO.{stream}")


def _writing_bodies(ns: str) -> Iterator[Right]:
    yield from (Right(f"$O.{bucket(ns)}.{part}.*") for part in ("C", "M"))


def _counting(ns: str) -> Iterator[Right]:
    """Yield what it takes to pay for a request to a model: from the budget of a job, and from that of a step."""
    yield from (Right(budget_subject(ns, key)) for key in ("*.*", "*.*.*"))


def _following(ns: str) -> Iterator[Right]:
    """Yield what it takes to read the log as it grows: a consumer of one's own, made anew with each connection."""
    yield Right(f"{API}.CONSUMER.CREATE.{log_stream(ns)}.*.>")
    yield Right(f"{API}.CONSUMER.MSG.NEXT.{log_stream(ns)}.*", many=True)


def _managing(ns: str) -> Iterator[Right]:
    yield from (Right(f"il.{ns}.log.*.*.{JOB_TASK}.{kind}") for kind in _PLANNING)
    yield Right(f"il.{ns}.log.*.*.{JOB_TASK}.asked.*")
    yield Right(f"il.{ns}.log.*.*.*.assigned.*")
    yield from (Right(f"il.{ns}.log.*.*.*.{kind}") for kind in ("closed", "answered"))
    yield from (Right(state_subject(ns, key)) for key in ("lease.*", "manager.*"))


def _serving(role: Role, ns: str, queue: QueueKind, sends: Iterable[str]) -> Iterator[Right]:
    """Yield what a role needs to take from its queues, which it finds there and cannot make, and to answer."""
    for lane in range(LANES + 1):
        consumer = f"{log_stream(ns)}.{queue_name(queue, role, lane)}"
        yield Right(f"{API}.CONSUMER.INFO.{consumer}")
        yield Right(f"{API}.CONSUMER.MSG.NEXT.{consumer}", many=True)
        yield Right(f"$JS.ACK.{consumer}.>")
    yield from (Right(sent_by(ns, kind, role)) for kind in sends)
    yield Right(live_subject(ns, "*", role, ">"))
    yield Right(state_subject(ns, f"alone.{role}.*"))


def _export(right: Right, names: list[str]) -> dict[str, Any]:
    replies = {"response_type": "stream"} if right.many else {}
    return {"service": right.subject, "accounts": names, **replies}


def _account(party: Party, key: str, ns: str) -> dict[str, Any]:
    rights = rights_of(party, ns)
    permissions = {
        "publish": {"allow": [right.sent_to for right in rights]},
        "subscribe": {"allow": [f"{inbox_of(key)}.>"]},
    }
    return {
        "users": [{"nkey": key, "permissions": permissions}],
        "imports": [_import(right) for right in rights],
    }


def _import(right: Right) -> dict[str, Any]:
    renamed = {"to": right.sent_to} if right.sent_to != right.subject else {}
    return {"service": {"account": STREAMS, "subject": right.subject}, **renamed}
