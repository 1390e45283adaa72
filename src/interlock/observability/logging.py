"""Logs of a process: one line a record on stderr, for people or as JSON. Nothing is set up on import.

``INTERLOCK_LOG`` is the level of our own records (debug, info or warning, which is the default); those of other
libraries show from warning on. ``INTERLOCK_LOG_FORMAT=json`` gives JSON lines.
"""

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TextIO

__all__ = ["configure_logging", "job_scope"]

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING}
_job: ContextVar[str] = ContextVar("interlock_log_job", default="")
_log = logging.getLogger(__name__)


def configure_logging(role: str, environ: Mapping[str, str] = os.environ, stream: TextIO | None = None) -> None:
    """Send the records of this process to ``stream`` (stderr by default), marked with its ``role``.

    Calling it again replaces what it set up before. A level that does not exist is taken for ``warning``, and said.
    """
    asked = environ.get("INTERLOCK_LOG", "").strip().lower() or "warning"
    handler = _Handler(stream or sys.stderr)
    handler.setFormatter(_Json(role) if environ.get("INTERLOCK_LOG_FORMAT") == "json" else _Text(role))
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    logging.getLogger("interlock").setLevel(_LEVELS.get(asked, logging.WARNING))
    if asked not in _LEVELS:
        _log.warning("INTERLOCK_LOG is %r; it can be %s", asked, ", ".join(_LEVELS))


@contextmanager
def job_scope(job: str) -> Iterator[None]:
    """Mark the records of the enclosed work, and of the tasks started in it, with ``job``."""
    token = _job.set(job)
    try:
        yield
    finally:
        _job.reset(token)


class _Handler(logging.StreamHandler[TextIO]):
    """A type of our own, so that setting up again finds what it has to replace."""


class _Text(logging.Formatter):
    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S.%f")[:-3]
        job = _job_of(record)
        where = f"{self._role}[{record.process}]" + (f" job={job}" if job else "")
        return _one_line(f"{moment} {record.levelname.lower()} {where} {record.name}: {self._said(record)}")

    def _said(self, record: logging.LogRecord) -> str:
        said = record.getMessage()
        return f"{said}\n{self.formatException(record.exc_info)}" if record.exc_info else said


class _Json(logging.Formatter):
    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, str | int | None] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "role": self._role,
            "pid": record.process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if job := _job_of(record):
            fields["job"] = job
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=True)


def _job_of(record: logging.LogRecord) -> str:
    """Return the job of ``record``: the one given by ``extra={"job": ...}``, or that of the scope."""
    return str(getattr(record, "job", "") or _job.get())


def _one_line(text: str) -> str:
    r"""Return ``text`` with control characters written out (``\n``, ``\x1b``): a record cannot pose as another one."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
