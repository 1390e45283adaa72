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
from interlock.protocol.tools import EffectClass, ToolSpec

__all__ = ["Move", "Record", "digest_of", "effect_key", "fold_records", "next_move", "place_of"]

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
    follows: int
    """What the newest intent answers; the later an effect was meant, the higher."""
    place: str = ""
    """Equal for effects of a tool that go to the same place; empty where that is not known."""
    status: EffectStatus = EffectStatus.INTENDED
    outcome: Json = None
    """What the tool returned; only where it is done or failed."""
    reason: str = ""
    """Why it is in doubt, where somebody said so."""


def digest_of(arguments: Mapping[str, Json]) -> str:
    """Return the SHA-256 of the canonical JSON of ``arguments``, in hexadecimal."""
    return sha256(canonical_json(dict(arguments)).encode()).hexdigest()


def effect_key(job: str, task: str, tool: str, arguments: Mapping[str, Json]) -> str:
    """Return the idempotency key of a call: equal for the same call in every attempt of a task, and in no other task.

    A task is a step and, under ``for_each``, an item of it. Two items that ask for the same thing are two effects.
    """
    parts = canonical_json([job, task, tool, digest_of(arguments)])
    return sha256(parts.encode()).hexdigest()[:_KEY_DIGITS]


def place_of(spec: ToolSpec, arguments: Mapping[str, Json]) -> str:
    """Return the digest of those ``arguments`` that say where a call's effect goes; empty where the tool has none."""
    places = {name: arguments[name] for name in spec.destinations if name in arguments}
    return digest_of(places) if places else ""


def fold_records(messages: Iterable[Envelope], records: Mapping[str, Record] | None = None) -> dict[str, Record]:
    """Return the records after ``messages`` of one task, by key, oldest message first. Other kinds are passed over."""
    known = dict(records or {})
    for message in messages:
        match message:
            case EffectIntended():
                known[message.key] = _intended(known.get(message.key), message)
            case EffectDone() | EffectInDoubt() if message.key in known:
                known[message.key] = _recorded(known[message.key], message)
            case _:
                pass
    return known


def next_move(records: Mapping[str, Record], key: str, effect: EffectClass, *, probe: bool) -> Move:
    """Return what to do with a call of a tool of class ``effect``, given what the log says of the task's effects.

    ``probe`` is whether the tool can tell what became of a key. What may have been made is made again only where that
    changes nothing.
    """
    record = records.get(key)
    if record is None or record.status is EffectStatus.FAILED:
        return "run"
    if record.status is EffectStatus.DONE:
        return "run" if effect == "idempotent" and _overtaken(record, records) else "reuse"
    if effect == "idempotent":
        return "run"
    return "probe" if probe else "ask"


def _intended(record: Record | None, message: EffectIntended) -> Record:
    """Return the record after an intent. What is known to be done stays so: it is only made once more."""
    if record is not None and record.status is EffectStatus.DONE:
        return replace(record, attempt=message.attempt, follows=message.answers)
    return Record(message.key, message.tool, message.effect, message.attempt, message.answers, message.place)


def _recorded(record: Record, message: EffectDone | EffectInDoubt) -> Record:
    if record.status is EffectStatus.DONE:
        return record
    if isinstance(message, EffectInDoubt):
        return replace(record, status=EffectStatus.IN_DOUBT, reason=message.reason)
    if message.failed and message.answers <= record.follows:
        return record  # it tells of an earlier intent; the newest one may be under way
    status = EffectStatus.FAILED if message.failed else EffectStatus.DONE
    return replace(record, status=status, outcome=message.outcome)


def _overtaken(record: Record, records: Mapping[str, Record]) -> bool:
    """Return whether the same tool did something else at the same place since, which may have undone the effect.

    A file that was written, written anew and is to be written as at first has to be written.
    """
    return any(
        (one.tool, one.place) == (record.tool, record.place) and one.follows > record.follows
        for one in records.values()
        if one.place and one.status is not EffectStatus.FAILED
    )
