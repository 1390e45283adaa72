"""A job whose manager made its plan is run again from its record: what its model answered is in the log."""

import pytest
from tests.integration.runtime.crew import ended, team_of
from tests.integration.runtime.serving import serving

from interlock.observability.tracing import Tracing
from interlock.protocol.base import Json
from interlock.protocol.messages import PlanProposed
from interlock.runtime.address import BrokerAddress
from interlock.runtime.bus import Bus
from interlock.runtime.client import submit, watch
from interlock.runtime.questions import give_answer
from interlock.runtime.replaying import Source
from interlock.runtime.rerunning import read_record, rerun
from interlock.testing import Call, ScriptedServer

pytestmark = pytest.mark.timeout(90)


def _step(name: str, word: str, **more: Json) -> dict[str, Json]:
    criteria: Json = [{"kind": "contains", "field": "", "value": word}]
    fields: dict[str, Json] = {"agent": "w", "do": f"Say {word}.", "needs": [], "for_each": "", "output": []}
    return {"step": name, **fields, "criteria": criteria, **more}


_ANSWERS: tuple[Json, ...] = (
    "I do not know yet.",
    {"makes": "question", "text": "Which word?", "steps": []},
    {"makes": "plan", "text": "", "steps": [_step("one", "hello"), _step("two", "never", needs=["one"])]},
    {
        "makes": "plan",
        "text": "another word",
        "keep": ["one"],
        "steps": [_step("three", "never", replaces="two", do="Shout.")],
    },
)


async def test_a_planned_job_is_made_again_as_it_was(
    bus: Bus, broker: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rejected proposal, a question, a plan and a new version of it come out the same, with no model to be asked."""
    plans = iter(_ANSWERS)

    def script(call: Call) -> str | dict[str, Json]:
        if "makes" not in str(call.schema):
            return f"{'never' if 'Shout.' in call.conversation else 'hello'} {call.number}"
        answer = next(plans, "no more")
        assert isinstance(answer, str | dict)
        return answer

    async with ScriptedServer(script) as server:
        with monkeypatch.context() as patch:
            patch.setenv("INTERLOCK_MODEL_URL", server.url)
            team = team_of()
            await submit(bus, Tracing(), team, "go", {}, "j1")
            async with serving(bus, broker, team):
                async for progress in watch(bus, "j1"):
                    if progress.state.question is not None:
                        break
                await give_answer(bus, "j1", "q-", "hello")
                state = await ended(bus, "j1")
    assert state.closed is not None
    assert (state.closed.status, state.version, state.proposals) == ("succeeded", 2, 4)
    record = await read_record(Source("j1", bus))
    report = await rerun(record)
    assert report.departures == ()
    assert report.taken == ()
    assert report.entries == len(record.entries)
    assert report.answered == len(server.calls)
    assert sum(isinstance(one.message, PlanProposed) for one in record.entries) == 4
