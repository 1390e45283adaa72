"""The few requests of the JetStream API that the bus is made of."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from email.parser import HeaderParser
from typing import TYPE_CHECKING, Any

import anyio

from interlock.runtime._client import Heard
from interlock.runtime._wire import Wire
from interlock.runtime.bus_errors import BrokerComplaint, LeaderMissing, ReplyMissing

if TYPE_CHECKING:
    from tenacity import AsyncRetrying

NS_PER_SECOND = 1_000_000_000
SEQUENCE_WRONG = frozenset({10071, 10164})
"""Error codes of a publish whose expected last sequence is not the last one."""

_NO_INCREMENT = 10169
"""The code of a publish to a stream of counters that adds nothing."""

NO_ROOM = frozenset({10002, 10023, 10047, 10077})
"""Error codes of a publish for which the stream, the account or the server has no room."""

NO_CONSUMER = 10014
"""The code for a consumer that is not there."""

_NAME_IN_USE = 10058
_NO_PEERS = frozenset({10005, 10074})
"""Error codes of a stream with more replicas than there are nodes for."""

_NO_LEADER = 10008
_COPIES = 3
"""Replicas in a cluster, where nothing else is asked for: it takes the loss of one node."""

_NEAR_SECONDS = 3.0
"""A replica that talked to its leader so lately is there: it does so every second or two."""

_MAKE_SECONDS = 10.0
"""Making a stream takes seconds while a node is missing."""

_LEADER_SECONDS = 20.0
"""How long a stream may be without a leader before it is given up: an election takes 4 to 9 s."""

_LEADER_LOOK = 0.25
_NEVER = 2**62
"""A sequence that no stream comes to."""

_UNAVAILABLE = 503
_NO_MESSAGE = 10037
_HEADER_LINE = b"NATS/1.0\r\n"


@dataclass(frozen=True, slots=True)
class Raw:
    """A stored message as the broker returns it."""

    seq: int
    subject: str
    body: bytes
    headers: Mapping[str, str]
    time: int = 0
    """When the broker stored it, nanoseconds since 1970; 0: not told."""


async def api(
    wire: Wire, call: str, arguments: Mapping[str, Any] | None = None, seconds: float | None = None
) -> dict[str, Any]:
    """Return the answer to a request of the API, such as ``STREAM.INFO.NAME``; ``seconds`` as in ``Wire.request``.

    :raises BrokerComplaint: the answer is an error
    :raises LeaderMissing: the cluster cannot do it right now
    """
    subject = f"{wire.address.api}.{call}"
    reply = await wire.request(subject, json.dumps(arguments).encode() if arguments else b"", seconds=seconds)
    return answer_of(subject, reply)


def answer_of(subject: str, reply: Heard) -> dict[str, Any]:
    """Return the JSON that ``reply`` carries.

    :raises BrokerComplaint: it is an error
    :raises LeaderMissing: the cluster could not do it right now
    """
    answer: dict[str, Any] = json.loads(reply.data)
    if error := answer.get("error"):
        if error.get("err_code") == _NO_LEADER:
            raise LeaderMissing(subject, error.get("description", ""))
        raise BrokerComplaint(
            subject, error.get("err_code", 0), error.get("description", ""), temporary=error.get("code") == _UNAVAILABLE
        )
    return answer


async def ensure_stream(wire: Wire, config: Mapping[str, Any]) -> None:
    """Create a stream, unless there is one of that name: an operator may have made it with other settings.

    ``num_replicas`` None leaves it to the broker's cluster how many there are: three, or one where that has no room
    for three. A number is what the stream has afterwards, also where it was there with another one. In a cluster the
    stream has a leader on return: one that was just made, or whose node just went, takes nothing for some seconds.

    :raises BrokerComplaint: the cluster has fewer nodes than replicas are asked for, for one
    :raises LeaderMissing: it has had no leader for twenty seconds
    """
    if wire.in_cluster:
        await _patience()(_ensure_led, wire, config)
    else:
        await _ensure(wire, config)


def _patience() -> "AsyncRetrying":
    from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed  # noqa: PLC0415 -- rare

    return AsyncRetrying(
        retry=retry_if_exception_type((ReplyMissing, LeaderMissing)),
        stop=stop_after_delay(_LEADER_SECONDS),
        wait=wait_fixed(_LEADER_LOOK),
        sleep=anyio.sleep,
        reraise=True,
    )


async def _ensure_led(wire: Wire, config: Mapping[str, Any]) -> None:
    """Make a stream, and see that this node lets messages through to its leader: what a node knows of others is late.

    What is sent for that is refused by the leader, since it asks for a last message that there never will be.
    """
    await _ensure(wire, config)
    subject = str(config["subjects"][0]).replace(">", "probe")
    reply = await wire.request(subject, headers={"Nats-Expected-Last-Sequence": f"{_NEVER}"})
    try:
        answer_of(subject, reply)
    except BrokerComplaint as error:
        if error.code not in {*SEQUENCE_WRONG, _NO_INCREMENT}:
            raise


async def _ensure(wire: Wire, config: Mapping[str, Any]) -> None:
    wanted = config["num_replicas"]
    try:
        await _create(wire, {**config, "num_replicas": copies_wished(wire, wanted)})
    except BrokerComplaint as error:
        if wanted is None and error.code in _NO_PEERS:
            await _create(wire, {**config, "num_replicas": 1})
        elif error.code != _NAME_IN_USE:
            raise
        elif wanted is not None:
            await change_stream(wire, config["name"], {"num_replicas": wanted})


def copies_wished(wire: Wire, replicas: int | None) -> int:
    """Return how many replicas a stream should have where ``replicas`` are asked for, None: as many as suit."""
    return replicas or (_COPIES if wire.in_cluster else 1)


async def _create(wire: Wire, config: Mapping[str, Any]) -> None:
    await api(wire, f"STREAM.CREATE.{config['name']}", config, seconds=_MAKE_SECONDS)


async def lead(wire: Wire, stream: str) -> dict[str, Any]:
    """Return what a stream's leader says of it, if it can know that it leads: most replicas talked to it just now.

    A node that was cut off from the others believes for some ten seconds that it leads, and would answer from what it
    has, which may be old.

    :raises LeaderMissing: it cannot know
    """
    try:
        info = await api(wire, f"STREAM.INFO.{stream}")
    except ReplyMissing as error:
        raise LeaderMissing(stream, f"its leader does not answer ({error.reason})") from None
    replicas: list[dict[str, Any]] = (info.get("cluster") or {}).get("replicas") or []
    near = 1 + sum(not one.get("offline") and one.get("active", 0) < _NEAR_SECONDS * NS_PER_SECOND for one in replicas)
    if near * 2 <= 1 + len(replicas):
        raise LeaderMissing(stream, f"its leader is alone with {near - 1} of {len(replicas)} other replicas")
    return info


async def change_stream(wire: Wire, name: str, wanted: Mapping[str, Any]) -> None:
    """Give a stream that is there other settings, where it has not got them yet."""
    config: dict[str, Any] = (await api(wire, f"STREAM.INFO.{name}"))["config"]
    if any(config.get(key) != value for key, value in wanted.items()):
        await api(wire, f"STREAM.UPDATE.{name}", {**config, **wanted})


async def subjects_on(wire: Wire, stream: str, subjects: str) -> list[str]:
    """Return the subjects on a wildcard that have messages in a stream."""
    found: list[str] = []
    total = 1
    while len(found) < total:
        info = await api(wire, f"STREAM.INFO.{stream}", {"subjects_filter": subjects, "offset": len(found)})
        more = info["state"].get("subjects") or {}
        found += more
        total = info.get("total", 0) if more else 0
    return found


async def purge(wire: Wire, stream: str, subjects: str, before: int = 0) -> None:
    """Take the messages on a wildcard out of a stream, with ``before`` only those of lower sequences."""
    bound = {"seq": before} if before else {}
    await api(wire, f"STREAM.PURGE.{stream}", {"filter": subjects, **bound})


async def direct_get(wire: Wire, stream: str, query: Mapping[str, Any]) -> Raw | None:
    """Return the stored message at a sequence, or the first one on a subject from there on; None where there is none.

    Any replica may answer. It may lag behind, but what it has is so: a stream only grows at its end. What it has not is
    asked of the leader. The last message on a subject is not for this: there a replica's answer can be old.
    """
    reply = await wire.request(f"{wire.address.api}.DIRECT.GET.{stream}", json.dumps(query).encode())
    headers = reply.headers
    if "Status" in headers:
        return await _leader_get(wire, stream, query) if wire.in_cluster else None
    return Raw(int(headers["Nats-Sequence"]), headers["Nats-Subject"], reply.data, headers)


async def last_on(wire: Wire, stream: str, subjects: str) -> Raw | None:
    """Return the last stored message on a wildcard, from the stream's leader; None where there is none."""
    return await _leader_get(wire, stream, {"last_by_subj": subjects})


async def _leader_get(wire: Wire, stream: str, query: Mapping[str, Any]) -> Raw | None:
    try:
        message = (await api(wire, f"STREAM.MSG.GET.{stream}", query))["message"]
    except BrokerComplaint as error:
        if error.code == _NO_MESSAGE:
            return None
        raise
    body = base64.b64decode(message.get("data", ""))
    return Raw(message["seq"], message["subject"], body, _headers(base64.b64decode(message.get("hdrs", ""))))


def _headers(block: bytes) -> dict[str, str]:
    return dict(HeaderParser().parsestr(block.removeprefix(_HEADER_LINE).decode()).items())
