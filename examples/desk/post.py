"""The desk's post: letters leave by way of a folder, one file a letter, called by its idempotency key."""

import re
from pathlib import Path

from interlock.agents.tools.errors import ToolFailed
from interlock.agents.tools.tool import NOT_DONE, Key, NotDone, ToolContext, tool


def was_sent(key: Key, context: ToolContext) -> str | NotDone:
    """Say whether the letter with this key has left: whoever goes on after a crash asks before it sends again."""
    return _told(key) if _letter(context.base, key).exists() else NOT_DONE


@tool(effect="once", name="post.send", destinations=("to",), primary="to", outside=False, probe=was_sent)
def send(to: str, text: str, key: Key, context: ToolContext) -> str:
    """Send a letter. ``to`` is an address such as ann@example.org."""
    if re.fullmatch(r"[^@\s]+@[^@\s]+", to) is None:
        raise ToolFailed(f"{to!r} is no address: write NAME@HOST")
    letter = _letter(context.base, key)
    letter.parent.mkdir(exist_ok=True)
    letter.write_text(f"To: {to}\n\n{text}\n", encoding="utf-8")
    return _told(key)


def _letter(base: Path, key: str) -> Path:
    return base / "outbox" / f"{key}.txt"


def _told(key: str) -> str:
    return f"sent as {key[:8]}"
