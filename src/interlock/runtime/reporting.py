"""The report of a job of any size as JSON: written task by task, from one pass over the log.

What tasks came to stands in a temporary file until everything is known that a report has before its tasks.
"""

import tempfile
from array import array
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self, TextIO

from interlock.protocol.plan import task_id
from interlock.protocol.state import Entry, JobState, Phase, StepState
from interlock.runtime.lean import LeanFold
from interlock.runtime.report import EngineReport, overview_of, task_report, unbegun_report

__all__ = ["ReportWriter"]

_TASKS = '\n  "tasks": [],\n'
"""Where the tasks go: no text in a report has a line end, and nothing else begins two columns in with that name."""

_INDENT = "    "
_LENGTH = 8
"""Bytes of the length before each text of the file."""


class ReportWriter:
    """Takes the entries of a job in, then writes its report as ``Report.model_dump_json(indent=2)`` would.

    To be used as a context manager: the file is gone with the block.
    """

    def __init__(self) -> None:
        self._fold = LeanFold(small=0)
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 -- closed on leaving the block that this object manages
        self._places: dict[str, array[int]] = {}
        """By step and position of the item: where its text begins in the file, plus 1; 0: there is none."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def state(self) -> JobState:
        """The job so far; what closed tasks hold is forgotten."""
        return self._fold.state

    def take(self, entries: Iterable[Entry]) -> None:
        """Fold entries, and put away what they tell of tasks that are over.

        :raises OSError: there is no room for that
        """
        for entry in entries:
            task = self._fold.take(entry)
            if task is not None:
                self._put(task.step, task.index or 0, task_report(self.state, task).model_dump_json(indent=2))
                self._fold.forget()

    def write(self, out: TextIO, engine: EngineReport | None = None) -> None:
        """Write the report to ``out``, with a line end after it. Only for a job that has been submitted."""
        overview = overview_of(self.state, ()).model_copy(update={"engine": engine})
        before, _, after = overview.model_dump_json(indent=2).partition(_TASKS)
        out.write(before)
        separator = '\n  "tasks": ['
        for text in self._texts():
            out.write(f"{separator}\n{_INDENT}")
            out.write(text.replace("\n", f"\n{_INDENT}"))
            separator = ","
        out.write(f"\n  ],\n{after}\n" if separator == "," else f"{_TASKS}{after}\n")

    def _texts(self) -> Iterator[str]:
        for name in self.state.steps_ever:
            step = self.state.step_known(name)
            for index in [None] if step.spec.for_each is None else range(step.size or 0):
                yield self._text(step, index)

    def _text(self, step: StepState, index: int | None) -> str:
        name = task_id(step.spec.step, index)
        task = self.state.tasks.get(name)
        over = task.phase is Phase.CLOSED if task else self.state.step_of_settled(name) is not None
        if over and (text := self._get(step.spec.step, index or 0)) is not None:
            return text
        report = task_report(self.state, task) if task else unbegun_report(self.state, step, index)
        return report.model_dump_json(indent=2)

    def _put(self, step: str, index: int, text: str) -> None:
        places = self._places.setdefault(step, array("Q"))
        places.extend([0] * (index + 1 - len(places)))
        data = text.encode()
        places[index] = self._file.seek(0, 2) + 1
        self._file.write(len(data).to_bytes(_LENGTH, "big"))
        self._file.write(data)

    def _get(self, step: str, index: int) -> str | None:
        places = self._places.get(step)
        if places is None or index >= len(places) or not places[index]:
            return None
        self._file.seek(places[index] - 1)
        length = int.from_bytes(self._file.read(_LENGTH), "big")
        return self._file.read(length).decode()
