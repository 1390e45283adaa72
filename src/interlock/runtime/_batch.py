"""Atomic batches: many messages for chains of their own, let in all together or not at all, with one answer for all.

A batch (nats-server 2.12, ADR-50) costs a third of what its messages cost one by one, and no message of it stands in
the log without the others. The broker checks each against the end of its chain, as it does with single ones. But it
makes a folder for each batch, with files that it syncs and deletes again, so only many messages are worth one.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from interlock.runtime._jetstream import answer_of
from interlock.runtime._wire import Wire

_BATCH = "Nats-Batch-Id"
_POSITION = "Nats-Batch-Sequence"
_COMMIT = "Nats-Batch-Commit"

WORTH = 64
"""From so many messages on a batch costs less than its messages alone: a batch by itself takes 1 to 2 ms."""

MOST = 256
"""The most messages of a batch: the broker takes 1,000."""

MOST_BYTES = 4 * 1024 * 1024
"""The most that the bodies of a batch come to: the broker holds a batch in memory until it is whole."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A message as it goes to the broker."""

    subject: str
    body: bytes
    headers: Mapping[str, str]


async def publish_batch(wire: Wire, messages: Sequence[Ready]) -> list[int]:
    """Publish all of ``messages``, each of another chain, and return their sequences.

    :raises BrokerComplaint: the broker refuses one of them, and so all
    :raises ReplyMissing: all may have entered, or none
    :raises BrokerUnreachable: there is no connection, and none entered
    """
    batch = uuid.uuid4().hex
    for position, message in enumerate(messages[:-1], start=1):
        marked = {**message.headers, _BATCH: batch, _POSITION: str(position)}
        await wire.publish(message.subject, message.body, headers=marked)
    last = messages[-1]
    marked = {**last.headers, _BATCH: batch, _POSITION: str(len(messages)), _COMMIT: "1"}
    stored = int(answer_of(last.subject, await wire.request(last.subject, last.body, marked))["seq"])
    return list(range(stored - len(messages) + 1, stored + 1))


def portions(messages: Sequence[Ready]) -> list[Sequence[Ready]]:
    """Return ``messages`` in order, in portions that a batch can hold."""
    found: list[Sequence[Ready]] = []
    begin = size = 0
    for position, message in enumerate(messages):
        if position > begin and (position - begin >= MOST or size + len(message.body) > MOST_BYTES):
            found.append(messages[begin:position])
            begin, size = position, 0
        size += len(message.body)
    return [*found, messages[begin:]] if messages else []
