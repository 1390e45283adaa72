"""Tools for tests: each effect is one line of a file outside of the system, so that it can be counted afterwards."""

import json
import os
import time
from typing import Any

import anyio

from interlock.agents.tools.errors import ToolFailed
from interlock.agents.tools.tool import NOT_DONE, Key, ToolContext, tool

_LINGER = 0.01
"""Seconds that a tool takes from its effect to its return: what a test that kills has to hit."""


def _note(context: ToolContext, **what: Any) -> None:
    about = {"task": context.task, "attempt": context.attempt, "key": context.key, "pid": os.getpid()}
    line = json.dumps({**about, **what}) + "\n"
    descriptor = os.open(context.base / "outside.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, line.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    time.sleep(_LINGER)


@tool(effect="read", outside=False, name="box.look")
def look(what: str) -> str:
    """Look at something."""
    return f"saw {what}"


@tool(effect="idempotent", outside=False, name="box.put")
def put(what: str, key: Key, context: ToolContext) -> str:
    """Put something in the box; the same key again changes nothing."""
    _note(context, tool="box.put", what=what, given=key)
    return f"put {what}"


@tool(effect="idempotent", outside=False, name="box.write", destinations=("where",))
def write(where: str, what: str, context: ToolContext) -> str:
    """Write something somewhere."""
    _note(context, tool="box.write", what=f"{where}={what}")
    return f"wrote {what}"


@tool(effect="once", outside=False, name="box.send")
def send(what: str, context: ToolContext) -> str:
    """Send something, which must not be done twice."""
    _note(context, tool="box.send", what=what)
    return f"sent {what}"


@tool(effect="irreversible", outside=False, name="box.burn")
def burn(what: str, context: ToolContext) -> str:
    """Burn something."""
    _note(context, tool="box.burn", what=what)
    return f"burnt {what}"


def _was_shipped(key: str, context: ToolContext) -> Any:
    told, log = context.base / "probe", context.base / "outside.log"
    if not told.exists():
        lines = log.read_text().splitlines() if log.exists() else []
        return {"shipped": key} if any(json.loads(line)["key"] == key for line in lines) else NOT_DONE
    found = told.read_text()
    if found == "fail":
        raise ConnectionError("nobody answers")
    return {"shipped": key} if found == "done" else NOT_DONE


@tool(effect="once", outside=False, name="box.ship", probe=_was_shipped)
def ship(what: str, context: ToolContext) -> str:
    """Ship something; it can be found out later whether it went."""
    _note(context, tool="box.ship", what=what)
    return f"shipped {what}"


@tool(effect="once", outside=False, name="box.fail")
def fail(how: str, context: ToolContext) -> str:
    """Fail, before the effect (``clean``) or after it."""
    if how == "clean":
        raise ToolFailed("the box is shut")
    _note(context, tool="box.fail", what=how)
    raise ConnectionResetError("the line went dead")


@tool(effect="once", outside=False, name="box.hang")
async def hang(what: str, context: ToolContext) -> str:
    """Begin, and never come to an end."""
    _note(context, tool="box.hang", what=what)
    await anyio.sleep_forever()
    return what


@tool(effect="read", network=True, outside=False, name="box.follow", primary="url", kinds={"url": "url"})
async def follow(url: str, leads_to: str, context: ToolContext) -> str:
    """Fetch an address that leads on to another one."""
    await context.allow_url(leads_to)
    return f"fetched {url} from {leads_to}"
