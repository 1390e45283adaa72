"""Plans that the real vLLM's model makes: each is sound, or it is said clearly why there is none."""

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

from tests.teams import write_team
from tests.vllm.real import at, environment_of, finished

from interlock.backends.engines import Endpoint

_AT_ONCE = 10
_TRIES = 2
_THINGS = ("a poem", "a letter", "a list of rivers", "a menu", "a riddle")
_GOALS = [f"{verb} {thing}." for verb in ("Write", "Improve", "Check", "Explain") for thing in _THINGS]


def _team(server: Endpoint) -> dict[str, Any]:
    """Return a team that plans by itself; its answers are short, so that many of them are cut off."""
    return {
        "interlock": 1,
        "team": "desk",
        "description": "A small desk",
        "model": at(server, max_tokens=250, temperature=0.3, timeout=280),
        "agents": {
            "manager": {"kind": "manager"},
            "writer": {"kind": "worker", "description": "Writes short texts"},
            "checker": {"kind": "verifier", "description": "Checks what others wrote"},
        },
        "limits": {"plans": _TRIES},
    }


async def test_twenty_goals_have_a_sound_plan_or_a_clear_failure(server: Endpoint, tmp_path: Path) -> None:
    """Of 20 goals each ends within its tries: in steps that a team file may have, in an answer, or in reasons."""
    team, room = write_team(tmp_path, _team(server)), asyncio.Semaphore(_AT_ONCE)
    places = [tmp_path / f"plan-{number}" for number in range(len(_GOALS))]
    for place in places:
        place.mkdir()

    async def plan(goal: str, place: Path) -> str:
        async with room:
            done = await finished("plan", str(team), goal, "--json", env=environment_of(server), cwd=tmp_path)
        assert (done.status in {0, 1}, "Traceback" in done.err) == (True, False), done.err
        return await _judged(done.report, done.status, server, place)

    made = await asyncio.gather(*map(plan, _GOALS, places))
    print("made of 20 goals:", dict(Counter(made)))  # noqa: T201 -- what a person wants to know of a run
    assert len(made) == len(_GOALS)


async def _judged(report: dict[str, Any], status: int, server: Endpoint, folder: Path) -> str:
    """Return what was made of a goal, after looking at whether it is what it should be."""
    makes, rejected = report["makes"], report["rejected"]
    assert report["usage"]["calls"] >= 1
    assert all(reasons and all(reasons) for reasons in rejected), "a try that is rejected has its reasons"
    if makes is None:
        assert (status, len(rejected)) == (1, _TRIES)
    elif makes == "plan":
        assert (status, len(rejected) < _TRIES) == (0, True)
        await _runs(report["steps"], server, folder)
    else:
        assert report["text"].strip(), f"{makes} without a word"
        assert status == (0 if makes == "answer" else 1)
    return makes or "none"


async def _runs(steps: list[Any], server: Endpoint, folder: Path) -> None:
    """Hold a plan against what a person may write in a team file: the judge that knows nothing of planning."""
    team = write_team(folder, {**_team(server), "plan": steps})
    checked = await finished("check", str(team), env=environment_of(server), cwd=folder)
    assert checked.status == 0, f"{checked.err}\n{json.dumps(steps, indent=1)}"
