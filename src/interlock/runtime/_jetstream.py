"""The few requests of the JetStream API that the bus is made of."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from email.parser import HeaderParser
from typing import Any

from nats.aio.msg import Msg

from interlock.runtime._wire import Wire
from interlock.runtime.bus_errors import BrokerComplaint

NS_PER_SECOND = 1_000_000_000
SEQUENCE_WRONG = frozenset({10071, 10164})
"""Error codes of a publish whose expected last sequence is not the last one."""

NO_ROOM = frozenset({10002, 10023, 10047, 10077})
"""Error codes of a publish for which the stream, the account or the server has no room."""

NO_CONSUMER = 10014
"""The code for a consumer that is not there."""

_NAME_IN_USE = 10058
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


async def api(wire: Wire, call: str, arguments: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the answer to a request of the API, such as ``STREAM.INFO.NAME``.

    :raises BrokerComplaint: the answer is an error
    """
    subject = f"{wire.address.api}.{call}"
    reply = await wire.request(subject, json.dumps(arguments).encode() if arguments else b"")
    return answer_of(subject, reply)


def answer_of(subject: str, reply: Msg) -> dict[str, Any]:
    """Return the JSON that ``reply`` carries.

    :raises BrokerComplaint: it is an error
    """
    answer: dict[str, Any] = json.loads(reply.data)
    if error := answer.get("error"):
        raise BrokerComplaint(
            subject, error.get("err_code", 0), error.get("description", ""), temporary=error.get("code") == _UNAVAILABLE
        )
    return answer


async def ensure_stream(wire: Wire, config: Mapping[str, Any]) -> None:
    """Create a stream, unless there is one of that name: an operator may have made it with other settings."""
    try:
        await api(wire, f"STREAM.CREATE.{config['name']}", config)
    except BrokerComplaint as error:
        if error.code != _NAME_IN_USE:
            raise


async def change_stream(wire: Wire, name: str, wanted: Mapping[str, Any]) -> None:
    """Give a stream that is there other settings, where it has not got them yet."""
    config: dict[str, Any] = (await api(wire, f"STREAM.INFO.{name}"))["config"]
    if any(config.get(key) != value for key, value in wanted.items()):
        await api(wire, f"STREAM.UPDATE.{name}", {**config, **wanted})


async def direct_get(wire: Wire, stream: str, query: Mapping[str, Any]) -> Raw | None:
    """Return one stored message, perhaps from a replica that lags behind; None where there is none."""
    reply = await wire.request(f"{wire.address.api}.DIRECT.GET.{stream}", json.dumps(query).encode())
    headers = dict(reply.headers or {})
    if "Status" in headers:
        return None
    return Raw(int(headers["Nats-Sequence"]), headers["Nats-Subject"], reply.data, headers)


async def last_on(wire: Wire, stream: str, subjects: str) -> Raw | None:
    """Return the last stored message on a wildcard, from the stream's leader; None where there is none."""
    try:
        message = (await api(wire, f"STREAM.MSG.GET.{stream}", {"last_by_subj": subjects}))["message"]
    except BrokerComplaint as error:
        if error.code == _NO_MESSAGE:
            return None
        raise
    body = base64.b64decode(message.get("data", ""))
    return Raw(message["seq"], message["subject"], body, _headers(base64.b64decode(message.get("hdrs", ""))))


def _headers(block: bytes) -> dict[str, str]:
    return dict(HeaderParser().parsestr(block.removeprefix(_HEADER_LINE).decode()).items())
