"""Command lines in one form: parsed into all the commands that a shell would run, and written anew from that.

Only what is certainly understood is accepted. What the shell gets is not the text that was parsed but a text made of
the parse, with every word quoted: where parser and shell would read the original in two ways, the shell never sees it.
"""

from interlock.agents.tools._shell_reading import Reading
from interlock.agents.tools._shell_words import MAX_COMMAND as _MAX_COMMAND
from interlock.agents.tools._shell_words import check_text
from interlock.agents.tools._shell_wrappers import NotUnderstood

__all__ = ["MAX_COMMAND", "CommandNotUnderstood", "normal_command"]

MAX_COMMAND = _MAX_COMMAND
"""The longest command line that is read, in characters."""


class CommandNotUnderstood(ValueError):
    """A command line that is not certainly understood. ``command`` is its text, ``reason`` what stands against it."""

    def __init__(self, command: str, reason: str) -> None:
        self.command = command
        self.reason = reason
        super().__init__(f"the command {command[:200]!r} cannot be judged: {reason}")


def normal_command(text: str) -> tuple[str, tuple[tuple[str, ...], ...]]:
    """Return a command line in its one form, and the words of every command that a shell runs for it.

    Redirections stand among the commands as ``> FILE`` and ``< FILE``, assignments as ``NAME=VALUE``.

    :raises CommandNotUnderstood: it is no command line, or holds something whose meaning is not certain.
    """
    try:
        check_text(text)
        reading = Reading(text, 0)
        line = reading.whole()
    except NotUnderstood as error:
        raise CommandNotUnderstood(text, str(error)) from None
    except RecursionError:
        raise CommandNotUnderstood(text, "it is nested too deeply") from None
    return line, tuple(reading.commands)
