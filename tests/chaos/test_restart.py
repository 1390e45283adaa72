"""What is killed stays killed, whatever is restarted and whatever old order comes again."""

from pathlib import Path

import pytest
from tests.chaos.hosts import agents_of
from tests.cli import alive, interlock, running
from tests.killable_broker import KillableBroker
from tests.teams import digest_team, summary, write_items, write_team
from tests.waiting import eventually

from interlock.protocol.control import TeamScope, control_subject
from interlock.runtime._jetstream import answer_of, last_on
from interlock.runtime.bus import Bus
from interlock.runtime.bus_errors import BrokerComplaint
from interlock.runtime.killswitch import command
from interlock.runtime.place import NAMESPACE
from interlock.testing import Hang, ScriptedServer

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(150)]

_SCOPE = TeamScope(team="digest")


async def test_killed_until_resumed_by_a_newer_order(tmp_path: Path, killable_broker: KillableBroker) -> None:
    """Killed agents stay so through kill -9 of command and broker and a stale resume; only a new resume lifts it."""
    write_items(tmp_path, 2)
    team = write_team(tmp_path, digest_team())
    broker = killable_broker.address
    env = {"INTERLOCK_NATS": broker.url, "INTERLOCK_NATS_KEYS": str(tmp_path / "killable" / "keys" / "operator.nk")}
    async with Bus.connect(broker, NAMESPACE, "test") as bus:
        await command(bus, _SCOPE, stop=True)
        await command(bus, _SCOPE, stop=False)
        stale = await last_on(bus._wire, f"IL_{NAMESPACE}_CONTROL", control_subject(NAMESPACE, _SCOPE))
    assert stale is not None
    async with ScriptedServer(Hang()) as model:
        env["INTERLOCK_MODEL_URL"] = model.url
        async with running("run", str(team), "go", env=env, cwd=tmp_path) as run:
            await model.until(lambda seen: len(seen.calls) >= 2)
            agents = agents_of(run)
            async with Bus.connect(broker, NAMESPACE, "test") as bus:
                await command(bus, _SCOPE, stop=True)
            run.process.kill()
            await killable_broker.kill()
            await run.process.wait()
        await eventually(lambda: not any(alive(pid) for pid in agents), 5)
    await killable_broker.restart()
    async with Bus.connect(broker, NAMESPACE, "test") as bus:
        subject = control_subject(NAMESPACE, _SCOPE)
        headers = {**stale.headers, "Nats-Msg-Id": "the broker has forgotten the first time"}
        with pytest.raises(BrokerComplaint, match="wrong last sequence"):
            answer_of(subject, await bus._wire.request(subject, stale.body, headers))
    async with ScriptedServer(summary) as model:
        env["INTERLOCK_MODEL_URL"] = model.url
        refused = await interlock("run", str(team), "go", env=env, cwd=tmp_path)
        assert refused.status == 4
        assert "team digest killed by order 3" in refused.err
        assert not model.calls
        resumed = await interlock("resume", "--team", "digest", env=env, cwd=tmp_path)
        assert "team digest resumed by order 4" in resumed.out
        done = await interlock("run", str(team), "go", env=env, cwd=tmp_path)
    assert done.status == 0, done.err
