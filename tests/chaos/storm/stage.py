"""A job in a storm: its team and items, its model, the command that runs it, and what was done to its processes."""

import json
import os
import re
import shutil
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.chaos.storm.points import Point
from tests.cli import Running, kill, running
from tests.oracle import Line, raw_log

from interlock.runtime.address import BrokerAddress
from interlock.runtime.broker import embedded_broker
from interlock.testing import Answer, Call, CallTool, Reply, ScriptedServer

__all__ = ["PARALLEL", "WORKERS", "Kill", "Stage", "staged"]

PARALLEL = 64
WORKERS = 4

_HERE = Path(__file__).parent
_TOOLS = _HERE.parent.parent / "integration" / "tools" / "box_tools.py"
_SOURCES = _HERE.parent.parent.parent / "src"
_AT_ONCE = 0.5
"""Seconds within which who looked into the log before may still ask a model."""
_SLOW = 2.5
"""Seconds of some answers: longer than two heartbeats of who holds a message."""


@dataclass(frozen=True, slots=True)
class Kill:
    """A process that was killed."""

    what: str
    at: float
    """Seconds since 1970."""
    pid: int


@dataclass
class Stage:
    """What a scenario plays on: a third of the items is acted on outside, a tenth of the first answers is wrong."""

    folder: Path
    items: int
    dice: Random
    server: ScriptedServer
    team: Path
    kills: list[Kill] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    broker: BrokerAddress | None = None
    """Where the log is; None: in the state folder."""

    @property
    def acting(self) -> int:
        """How many of the items are acted on; the others are answered."""
        return self.items // 3

    @property
    def answering(self) -> int:
        """How many of the items are answered."""
        return self.items - self.acting

    @property
    def state(self) -> Path:
        """The state folder of the commands."""
        return self.folder / ".interlock"

    @property
    def expected(self) -> dict[str, Any]:
        """The right output of each task."""
        answers = {f"answer:{n}": {"summary": f"item {n}"} for n in range(self.answering)}
        return {**answers, **{f"act:{n}": "acted" for n in range(self.acting)}, "headline": "All is done"}

    @property
    def made(self) -> list[dict[str, Any]]:
        """Each effect as it was seen outside."""
        outside = self.folder / "outside.log"
        return [json.loads(line) for line in outside.read_text().splitlines()] if outside.exists() else []

    @property
    def at_its_end(self) -> bool:
        """Whether the model was asked for the headline, which is the last thing."""
        return any(_attempt_of(call)[0] == "headline" for call in self.server.calls[-PARALLEL:])

    def last_act(self) -> tuple[int, int]:
        """Return how many bytes were written of effects outside, and the process that made the last one."""
        outside = self.folder / "outside.log"
        size = outside.stat().st_size if outside.exists() else 0
        if not size:
            return 0, 0
        with outside.open("rb") as told:
            told.seek(max(0, size - 4096))
            return size, int(json.loads(told.read().splitlines()[-1])["pid"])

    def arm(self, points: Iterable[Point]) -> None:
        """Have processes that are started from now on die at these points, once at each."""
        marks = self.folder / "marks"
        marks.mkdir(exist_ok=True)
        told = json.dumps([point.told() for point in points])
        self.env |= {"STORM_POINTS": told, "STORM_MARKS": str(marks)}

    @property
    def reached(self) -> dict[str, float]:
        """The points at which a process died, with the time, in seconds since 1970."""
        marks = (self.folder / "marks").glob("*") if (self.folder / "marks").exists() else ()
        return {mark.name.replace("-", " "): mark.stat().st_mtime for mark in marks}

    def strike(self, what: str, pids: Sequence[int]) -> None:
        """``kill -9`` processes, all of them before anything else happens."""
        for pid in pids:
            try:
                kill(pid)
            except ProcessLookupError:
                continue
            self.kills.append(Kill(what, time.time(), pid))
            with (self.folder / "kills.log").open("a") as told:
                told.write(f"{self.kills[-1].at} {pid} {what}\n")

    @asynccontextmanager
    async def command(self, *arguments: str) -> AsyncIterator[Running]:
        """Run ``interlock ARGUMENTS`` here."""
        async with running(*arguments, env=self.env, cwd=self.folder) as command:
            yield command

    @property
    def done(self) -> int:
        """How many answers the model has given, about."""
        return len(self.server.seen)

    def paid_again(self, lines: Sequence[Line]) -> list[tuple[str, float]]:
        """Return which model calls were made although the log had the result that they are for, and seconds since."""
        ahead = time.time() - time.monotonic()
        results = _results(lines)
        calls = ((_attempt_of(seen.call), seen.began + ahead) for seen in self.server.seen)
        late = ((key, at, results.get((f"{key[0]}:{key[1]}", key[2]))) for key, at in calls)
        since = ((f"{key[0]}:{key[1]}", at - known) for key, at, known in late if known is not None)
        return [(task, seconds) for task, seconds in since if seconds > _AT_ONCE]

    def recoveries(self, lines: Iterable[Line]) -> dict[int, float]:
        """Return, for each assignment that a killed worker held, how long it took until another one was handed it.

        Whether it held it still, the log tells: then nothing answers the assignment from before its death.
        """
        over = _answered(lines)
        died = {one.pid: one.at for one in self.kills if one.what == "worker"}
        found: dict[int, float] = {}
        for number, (_, pid, seq) in enumerate(handed := self._handed()):
            later = next((at for at, _, other in handed[number + 1 :] if other == seq), None)
            if seq and later is not None and pid in died and over.get(seq, later) > died[pid]:
                found[seq] = max(found.get(seq, 0.0), later - died[pid])
        return found

    async def log(self) -> list[Line]:
        """Return the log, once no command runs on the state folder any more."""
        if self.broker is not None:
            return await raw_log(self.broker)
        async with embedded_broker(self.state) as address:
            return await raw_log(address)

    def serving(self, pids: Iterable[int]) -> set[int]:
        """Return which of some workers take assignments."""
        return {pid for _, pid, seq in self._handed() if seq == 0} & set(pids)

    def _handed(self) -> list[tuple[float, int, int]]:
        """Return when which worker was handed which assignment."""
        path = self.folder / "handed.log"
        rows = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [(float(at), int(pid), int(seq)) for at, pid, seq in rows]


@asynccontextmanager
async def staged(folder: Path, items: int, dice: Random) -> AsyncIterator[Stage]:
    """Lay out a job in ``folder`` and serve its model."""
    shutil.copy(_TOOLS, folder)
    async with ScriptedServer(_reply) as server:
        stage = Stage(folder, items, dice, server, folder / "team.yaml")
        (folder / "items.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(stage.answering)))
        stage.team.write_text(json.dumps(_team(stage.acting), indent=1))
        path = os.pathsep.join([str(_HERE / "faults"), str(_SOURCES)])
        stage.env |= {"INTERLOCK_MODEL_URL": server.url, "PYTHONPATH": path, "STORM_HANDED": str(folder / "handed.log")}
        yield stage


def _team(acting: int) -> dict[str, Any]:
    """Return the team file: items that are answered, items that are acted on, and a headline over both."""
    short = {"by": "checker", "criteria": [{"check": "words", "max": 9}]}
    named = {"by": "checker", "criteria": [{"check": "contains", "field": "summary", "all": ["item"]}]}
    return {
        "interlock": 1,
        "team": "storm",
        "agents": {"reader": {"kind": "worker", "tools": ["box.send", "box.put"]}, "checker": {"kind": "verifier"}},
        "tools": {"modules": [_TOOLS.name]},
        "permissions": {"allow": ["box.*"]},
        "plan": [
            {
                "step": "act",
                "for_each": list(range(acting)),
                "agent": "reader",
                "do": "Act on {{ item }}.",
                "verify": short,
                "attempts": 8,
            },
            {
                "step": "answer",
                "for_each": {"jsonl": "items.jsonl"},
                "agent": "reader",
                "do": "Answer item {{ item.n }}.",
                "output": {"summary": "string"},
                "verify": named,
                "tools": [],
                "attempts": 8,
            },
            {
                "step": "headline",
                "agent": "reader",
                "do": "Headline over {{ steps.answer.outputs | length }} and {{ steps.act.outputs | length }}.",
                "verify": short,
                "tools": [],
            },
        ],
        "limits": {"parallel": PARALLEL, "question_seconds": 1},
    }


def _reply(call: Call) -> Reply:
    """Answer, act and conclude, now and then slowly, and each tenth time badly at first."""
    step, number, again = _attempt_of(call)[:3]
    delay = _SLOW if number % 40 == 7 else 0.04 + number * 37 % 100 / 1000
    if step == "headline":
        return Answer("All is done")
    bad = number % 10 == 3 and not again
    if step == "answer":
        return Answer({"summary": "nothing" if bad else f"item {number}"}, delay=delay)
    acts = ("box.send", "box.put")
    if (acted := len(call.observations)) < len(acts):
        return CallTool(acts[acted], {"what": f"thing {number}"})
    return Answer("one two three four five six seven eight nine ten" if bad else "acted", delay=delay)


def _results(lines: Iterable[Line]) -> dict[tuple[str, bool], float]:
    """Return when the log had the result of each task's first attempt, and of its last one where there were more."""
    done = [line for line in lines if line.kind == "result" and line.body.get("status", "done") == "done"]
    return {(line.task, line.attempt > 1): line.at for line in done}


def _answered(lines: Iterable[Line]) -> dict[int, float]:
    """Return when each assignment, by its sequence, was answered by a result or a question."""
    current: dict[str, int] = {}
    found: dict[int, float] = {}
    for line in lines:
        if line.kind == "assigned":
            current[line.task] = line.seq
        elif line.kind in {"result", "asked"} and line.task in current:
            found[current[line.task]] = line.at
    return found


def _attempt_of(call: Call) -> tuple[str, int, bool, int]:
    """Return what a call is about: the step, the item, whether it is tried again, and how many tools were called."""
    found = re.search(r"(Answer item|Act on) (\d+)\.", call.conversation)
    if found is None:
        return "headline", 0, False, 0
    step = "answer" if found[1] == "Answer item" else "act"
    return step, int(found[2]), "was not accepted" in call.conversation, len(call.observations)
