"""The team's secrets: where they come from, who gets them, and how they are kept out of every text.

Values are read once, when a worker process begins. Tools that declare a secret get it as a parameter; everything that
comes out of a tool, and every log record, goes through :meth:`Secrets.scrub` first.
"""

import json
import logging
import re
import traceback
from collections.abc import Iterable, Mapping

from interlock.agents.tools._scrub_forms import forms_of
from interlock.agents.tools.errors import SecretMissing, SecretTooWeak
from interlock.protocol.base import Json
from interlock.protocol.team import SecretSource

__all__ = ["NO_SECRETS", "SHORTEST", "Scrubbed", "ScrubbingFilter", "Secrets"]

SHORTEST = 8
"""How many characters a secret has at least: the ends of ordinary words must not be taken for one."""


class Secrets:
    """The secrets of one team by their names. Neither ``repr`` nor pickling shows a value."""

    def __init__(self, values: Mapping[str, str]) -> None:
        """Take ``values`` by name.

        :raises SecretTooWeak: a value is shorter than ``SHORTEST``, or stands in what would take its place
        """
        for name, value in values.items():
            if len(value) < SHORTEST:
                raise SecretTooWeak(name, f"is shorter than {SHORTEST} characters")
            if any(value in _mark(other) for other in values):
                raise SecretTooWeak(name, "is part of a secret's name")
        self._values = dict(values)
        self._known = frozenset(values)
        # A secret that begins with another one goes first, or its end would be left.
        self._names = sorted(values, key=lambda name: len(values[name]), reverse=True)
        groups = (f"({forms_of(values[name])})" for name in self._names)
        self._pattern = re.compile("|".join(groups)) if values else None

    @classmethod
    def from_environment(cls, sources: Mapping[str, SecretSource], environ: Mapping[str, str]) -> "Secrets":
        """Read the secrets that a team declares.

        :raises SecretMissing: the variable of one is not set, or empty
        :raises SecretTooWeak: a value is too short to be told from ordinary text
        """
        values = {name: environ.get(source.env, "") for name, source in sources.items()}
        for name, value in values.items():
            if not value:
                raise SecretMissing(name, sources[name].env)
        return cls(values)

    @classmethod
    def unread(cls, names: Iterable[str]) -> "Secrets":
        """Return what knows the names of secrets and none of their values, which is enough to describe tools."""
        known = cls({})
        known._known = frozenset(names)
        return known

    @property
    def names(self) -> frozenset[str]:
        """What the team calls its secrets."""
        return self._known

    def reveal(self, name: str) -> str:
        """Return the value of a secret. Only for what hands it to a tool that declares it.

        :raises KeyError: there is no such secret, or its value was not read
        """
        return self._values[name]

    def scrub(self, text: str) -> str:
        """Return ``text`` with ``[secret NAME]`` in place of every secret, whichever way it is encoded."""
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda found: _mark(self._names[(found.lastindex or 1) - 1]), text)

    def scrub_json(self, value: Json) -> Json:
        """Return ``value`` with every text in it scrubbed, keys too; a number that is a secret becomes a text."""
        if self._pattern is None:
            return value
        match value:
            case str():
                return self.scrub(value)
            case list():
                return [self.scrub_json(item) for item in value]
            case dict():
                return {self.scrub(key): self.scrub_json(item) for key, item in value.items()}
            case bool() | None:
                return value
            case _:
                text = json.dumps(value)
                scrubbed = self.scrub(text)
                return value if scrubbed == text else scrubbed

    def __repr__(self) -> str:
        return f"Secrets({', '.join(sorted(self._known))})"

    def __reduce__(self) -> str:
        raise TypeError("secrets are not pickled")


def _mark(name: str) -> str:
    return f"[secret {name}]"


NO_SECRETS = Secrets({})
"""Those of a team that has none."""


class ScrubbingFilter(logging.Filter):
    """Takes secrets out of log records. Add it to handlers: a logger's filters do not see what its children log."""

    def __init__(self, secrets: Secrets) -> None:
        super().__init__()
        self._secrets = secrets

    def filter(self, record: logging.LogRecord) -> bool:
        """Take the secrets out of the message, the exception and the texts of ``record``; every record passes."""
        record.msg, record.args = _message(record), ()
        if isinstance(record.exc_info, tuple) and record.exc_info[0] is not None:
            told = Scrubbed(self._secrets.scrub("".join(traceback.format_exception(*record.exc_info))))
            record.exc_info = (Scrubbed, told, None)
        for field, value in vars(record).items():
            if isinstance(value, str):
                record.__dict__[field] = self._secrets.scrub(value)
        return True


class Scrubbed(Exception):
    """Stands in a log record for an exception of which only the text is left, without secrets."""


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (
        TypeError,
        ValueError,
        KeyError,
    ):  # a mistake of who logs, which must not raise here
        return f"{record.msg} {record.args}"
