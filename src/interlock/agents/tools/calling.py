"""A tool that can be called: whatever happens inside of it becomes a JSON outcome or one of a few typed errors."""

import json
import logging
import traceback
from collections.abc import Mapping
from typing import Any, Protocol

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from interlock.agents.toolbox import AttemptLost, Suspended
from interlock.agents.tools.errors import ToolArgumentsInvalid, ToolError, ToolFailed, ToolRefused, ToolUncertain
from interlock.agents.tools.secrets import NO_SECRETS, Secrets
from interlock.agents.tools.tool import NOT_DONE, NotDone, ToolContext
from interlock.protocol.base import Json, canonical_json
from interlock.protocol.tools import ToolSpec

__all__ = ["MAX_OUTCOME", "Action", "Tool"]

MAX_OUTCOME = 200_000
"""How many characters of JSON an outcome may have; of a longer one its beginning is kept."""

_json: TypeAdapter[Json] = TypeAdapter(Json)
_log = logging.getLogger(__name__)


class Action(Protocol):
    """What stands behind a tool: a function, or a server."""

    def complete(self, arguments: Mapping[str, Json]) -> dict[str, Json]:
        """Return the arguments with the defaults of those that are left out.

        :raises ToolArgumentsInvalid: they do not fit
        """
        ...

    async def run(self, arguments: Mapping[str, Json], context: ToolContext) -> object:
        """Do it, and return what came of it."""
        ...

    async def probe(self, arguments: Mapping[str, Json], context: ToolContext) -> object:
        """Return what the call with ``context.key`` returned, or ``NOT_DONE``."""
        ...


class Tool:
    """One tool of one worker process. Calls may overlap."""

    def __init__(self, spec: ToolSpec, action: Action, secrets: Secrets = NO_SECRETS) -> None:
        self.spec = spec
        """What is known of it, and what rules judge."""
        self._action = action
        self._secrets = secrets

    def __repr__(self) -> str:
        return f"Tool({self.spec.name!r}, {self.spec.effect!r})"

    def complete(self, arguments: Mapping[str, Json]) -> dict[str, Json]:
        """Return ``arguments`` with the defaults of those that are left out, so that rules see all that will be used.

        Nothing else is changed: a number that is given as a text is refused, not converted.

        :raises ToolArgumentsInvalid: they do not fit the tool's parameters
        """
        return self._action.complete(arguments)

    async def call(self, arguments: Mapping[str, Json], context: ToolContext) -> Json:
        """Do it, and return what came of it, without secrets.

        When cancelled, nobody knows whether the effect took place, unless the tool only reads; a function that is not
        async even runs on in its thread.

        :raises ToolArgumentsInvalid: the arguments do not fit; it did not run
        :raises ToolFailed: nothing was changed; also whatever went wrong in a tool that only reads
        :raises ToolRefused: nothing was changed; ``context.allow_url`` stood against it
        :raises ToolUncertain: anything else went wrong, so nobody knows
        """
        self.complete(arguments)
        try:
            return self._told(await self._action.run(arguments, context))
        except (Suspended, AttemptLost):
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 -- whatever a tool raises becomes one of the four
            failure = self._failure(error)
        raise failure  # outside of the handler: nothing of the original, which may hold secrets, hangs on to it

    async def probe(self, arguments: Mapping[str, Json], context: ToolContext) -> Json | NotDone:
        """Ask whether the call with ``context.key`` took place; return its outcome, or ``NOT_DONE``.

        :raises ToolUncertain: the tool cannot say, or has no probe
        """
        if not self.spec.probe:
            raise ToolUncertain("it has no probe", tool=self.spec.name)
        try:
            found = await self._action.probe(arguments, context)
            return NOT_DONE if found is NOT_DONE else self._told(found)
        except (Exception, SystemExit) as error:  # noqa: BLE001 -- as in call
            reason = self._reason(error)
        raise ToolUncertain(f"its probe failed: {reason}", tool=self.spec.name)

    def _told(self, outcome: object) -> Json:
        try:
            value = _json.validate_python(_sendable(to_jsonable_python(outcome)))
        except ValidationError as error:
            raise _NoJson(outcome, error.errors(include_url=False)[0]["msg"]) from None
        except (PydanticSerializationError, ValueError, RecursionError) as error:
            raise _NoJson(outcome, str(error)) from None
        return _bounded(self._secrets.scrub_json(value))

    def _failure(self, error: BaseException) -> ToolError:
        reason = self._reason(error)
        _log.info("%s: %s\n%s", self.spec.name, reason, self._secrets.scrub("".join(traceback.format_exception(error))))
        match error:
            case ToolArgumentsInvalid():
                return ToolArgumentsInvalid(self.spec.name, map(self._secrets.scrub, error.problems))
            case ToolRefused():
                return ToolRefused(reason, tool=self.spec.name)
            case ToolFailed():
                return ToolFailed(reason, tool=self.spec.name)
            case _ if self.spec.effect == "read":
                return ToolFailed(reason, tool=self.spec.name)
            case _:
                return ToolUncertain(reason, tool=self.spec.name)

    def _reason(self, error: BaseException) -> str:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        match error:
            case ToolError():
                reason = error.reason
            case _NoJson():
                reason = str(error)
            case _:
                reason = f"{type(error).__name__}: {error}"
        return self._secrets.scrub(reason)[:_REASON]


_REASON = 2_000


class _NoJson(Exception):
    """The tool ran, and what it returned cannot be told."""

    def __init__(self, outcome: object, problem: str) -> None:
        super().__init__(
            f"it ran, and returned something of the type {type(outcome).__name__} that is no JSON: {problem}"
        )


def _sendable(value: Any) -> Any:
    """Return ``value`` as messages can carry it: ``?`` for half characters, a text for infinite numbers."""
    text = json.dumps(value, ensure_ascii=False)
    return json.loads(text.encode("utf-8", "replace"), parse_constant=str)


def _bounded(value: Json) -> Json:
    text = canonical_json(value)
    if len(text) <= MAX_OUTCOME:
        return value
    return {"beginning": text[:MAX_OUTCOME], "characters": len(text)}
