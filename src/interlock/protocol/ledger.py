"""The effects ledger of a task: what was meant to be done outside, what came of it, and what may be done next. Pure.

An intent is logged before an effect and its outcome after it, both under a key that the same call of the same task
has in every attempt. So whoever goes on after a crash knows which effects were surely made, which surely were not, and
which nobody knows of.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Literal

from interlock.protocol.base import Json, canonical_json
from interlock.protocol.messages import EffectDone, EffectInDoubt, EffectIntended, Envelope
from interlock.protocol.state import EffectStatus
from interlock.protocol.tools import EffectClass

__all__ = ["Move", "Record", "digest_of", "effect_key", "fold_records", "next_move"]

Move = Literal["run", "reuse", "probe", "ask"]
"""What to do with a call that has an effect. ``run``: intend it and make it. ``reuse``: it was made, its outcome is
known. ``probe``: ask the tool whether it was made. ``ask``: only a person can find out."""

_KEY_DIGITS = 40


@dataclass(frozen=True, slots=True)
class Record:
    """What the log says of one effect."""

    key: str
    tool: str
    effect: EffectClass
    attempt: int
    """The attempt that meant to make it last."""
    follows: int = 0
    """What its newest intent answers: who reports on an earlier one knows no later entry of the chain."""
    status: EffectStatus = EffectStatus.INTENDED
    outcome: Json = None
    """What the tool returned; only where it is done or failed."""


def digest_of(arguments: Mapping[str, Json]) -> str:
    """Return the SHA-256 of the canonical JSON of ``arguments``, in hexadecimal."""
    return sha256(canonical_json(dict(arguments)).encode()).hexdigest()


def effect_key(job: str, task: str, tool: str, arguments: Mapping[str, Json]) -> str:
    """Return the idempotency key of a call: equal for the same call in every attempt of a task, and in no other task.

    A task is a step and, under ``for_each``, an item of it. Two items that ask for the same thing are two effects.
    """
    parts = canonical_json([job, task, tool, digest_of(arguments)])
    return sha256(parts.encode()).hexdigest()[:_KEY_DIGITS]


def fold_records(messages: Iterable[Envelope], records: Mapping[str, Record] | None = None) -> dict[str, Record]:
    """Return the records after ``messages`` of one task, by key, oldest message first. Other kinds are passed over."""
    known = dict(records or {})
    for message in messages:
        match message:
            case EffectIntended():
                if not _is_done(known.get(message.key)):
                    known[message.key] = Record(
                        message.key, message.tool, message.effect, message.attempt, message.answers
                    )
            case EffectDone() if message.failed and _is_earlier(message, known):
                pass  # the newest intent may be under way
            case EffectDone() if message.key in known and not _is_done(known[message.key]):
                status = EffectStatus.FAILED if message.failed else EffectStatus.DONE
                known[message.key] = replace(known[message.key], status=status, outcome=message.outcome)
            case EffectInDoubt() if message.key in known and not _is_done(known[message.key]):
                known[message.key] = replace(known[message.key], status=EffectStatus.IN_DOUBT)
            case _:
                pass
    return known


def next_move(record: Record | None, effect: EffectClass, *, probe: bool) -> Move:
    """Return what to do with a call of a tool of class ``effect``, given what the log says of it.

    ``probe`` is whether the tool can tell what became of a key. What may have been made is made again only where that
    changes nothing.
    """
    if record is None or record.status is EffectStatus.FAILED:
        return "run"
    if record.status is EffectStatus.DONE:
        return "reuse"
    if effect == "idempotent":
        return "run"
    return "probe" if probe else "ask"


def _is_earlier(message: EffectDone, known: Mapping[str, Record]) -> bool:
    """Whether ``message`` tells what came of an earlier intent than the newest one."""
    record = known.get(message.key)
    return record is not None and message.answers <= record.follows


def _is_done(record: Record | None) -> bool:
    return record is not None and record.status is EffectStatus.DONE
