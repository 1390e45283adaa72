"""A job whose model is served by vLLM: started here, or several servers of which one is killed."""

import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import pytest
from tests.cli import alive, environment, interlock, running
from tests.fake_vllm import install
from tests.waiting import eventually

TEAM = """
interlock: 1
team: echo
model: {{engine: vllm, name: tiny/model{model}}}
agents:
  worker: {{kind: worker}}
  checker: {{kind: verifier}}
inputs:
  items: {{type: array}}
plan:
  - step: say
    for_each: "{{{{ inputs.items }}}}"
    agent: worker
    do: "Say yes to {{{{ item }}}}"
    verify: {{by: checker, criteria: [{{check: words, max: 3}}]}}
limits: {{parallel: 8}}
"""


def team(folder: Path, model: str = "") -> Path:
    path = folder / "team.yaml"
    path.write_text(TEAM.format(model=model))
    return path


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a command that finds the fake vLLM, and no other model."""
    path = f"{install(tmp_path).parent}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "FAKE_VLLM_PIDS": str(tmp_path / "pids")}


def pids(env: dict[str, str]) -> list[int]:
    return [int(pid) for pid in Path(env["FAKE_VLLM_PIDS"]).read_text().split()]


async def test_a_job_starts_its_server_and_tells_of_it(tmp_path: Path, env: dict[str, str]) -> None:
    """The server is there for the job alone, its coming up is told, and its cache stands in the report."""
    path = team(tmp_path, ", options: {max-model-len: 128}")
    done = await interlock("run", str(path), "--input", 'items=["a", "b", "c"]', "--json", env=env, cwd=tmp_path)
    assert done.status == 0, done.err
    assert "vllm tiny/model is ready after" in done.err
    engine = done.report["engine"]
    assert engine["name"] == "vllm"
    assert engine["models"] == ["tiny/model"]
    assert engine["prefix_cache"] == {"queries": 300, "hits": 160, "share": 0.5333}
    assert (engine["running"], engine["waiting"]) == (0, 0)
    assert len(pids(env)) == 2
    assert not any(map(alive, pids(env)))


async def test_a_wrong_option_ends_the_command_with_the_servers_words(tmp_path: Path, env: dict[str, str]) -> None:
    """There is no job then, and exit status 1."""
    path = team(tmp_path, ", options: {max-model-length: 128}")
    done = await interlock("run", str(path), "--input", 'items=["a"]', env=env, cwd=tmp_path)
    assert done.status == 1
    assert "unrecognized arguments: --max-model-length 128" in done.err
    assert "the vLLM server of 'tiny/model' ended with exit code 2 before it was ready" in done.err


async def test_no_vllm_is_said_before_anything_is_started(tmp_path: Path) -> None:
    """Where there is no vLLM, no broker is started for nothing."""
    env = {"PATH": str(tmp_path)}
    done = await interlock("run", str(team(tmp_path)), "--input", 'items=["a"]', env=env, cwd=tmp_path)
    assert (done.status, done.out) == (1, "")
    assert "neither the command vllm nor the Python package vllm" in done.err
    assert not (tmp_path / ".interlock").exists()


def _listens(port: int) -> bool:
    with socket.socket() as knocking:
        return knocking.connect_ex(("127.0.0.1", port)) == 0


@asynccontextmanager
async def server(folder: Path) -> AsyncIterator[tuple[int, str]]:
    """Run the fake vLLM at a port of its own; yield its process id and URL."""
    script = f"{folder / 'slow.py'}:script"
    (folder / "slow.py").write_text("from interlock.testing import Answer\nscript = Answer('yes', delay=0.05)\n")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = await anyio.open_process(
        [str(install(folder)), "serve", "tiny/model", "--host", "127.0.0.1", "--port", str(port)],
        env=environment({"FAKE_VLLM_SCRIPT": script}),
        stdin=None,
        stdout=None,
        stderr=None,
    )
    try:
        await eventually(lambda: _listens(port))
        yield process.pid, f"http://127.0.0.1:{port}/v1"
    finally:
        if process.returncode is None:
            process.terminate()
        with anyio.CancelScope(shield=True):
            await process.wait()


async def test_of_two_servers_one_is_killed_and_no_task_is_lost(tmp_path: Path) -> None:
    """Requests of a server that is killed with SIGKILL in the middle of a run go to the other one."""
    items = [f"item {number}" for number in range(60)]
    async with AsyncExitStack() as stack:
        (doomed, one), (_, other) = [await stack.enter_async_context(server(tmp_path)) for _ in range(2)]
        path = team(tmp_path, f", url: [{one}, {other}]")
        arguments = ["run", str(path), "--input", f"items={items}".replace("'", '"'), "--workers", "1", "--json"]
        async with running(*arguments, cwd=tmp_path) as command:
            await command.until("accepted")
            os.kill(doomed, signal.SIGKILL)
            done = await command.finish()
    assert done.status == 0, done.err
    report = done.report
    assert [task["status"] for task in report["tasks"]] == ["accepted"] * len(items)
    assert [task["attempts"] for task in report["tasks"]] == [1] * len(items), "no attempt was spent on it"
    assert report["usage"]["calls"] >= len(items)


async def test_a_machine_keeps_its_server_up_and_ends_it(tmp_path: Path, env: dict[str, str]) -> None:
    """Up, it has its server before it takes work; told to end in order, it ends that too."""
    path = team(tmp_path)
    async with running("up", str(path), env=env, cwd=tmp_path) as command:
        await command.until("is up")
        assert b"vllm tiny/model is ready after" in command.err
        assert all(map(alive, pids(env)))
        command.process.send_signal(signal.SIGTERM)
        done = await command.finish()
    assert done.status == 0, done.err
    assert not any(map(alive, pids(env)))


async def test_a_machine_can_be_ended_while_its_server_comes_up(tmp_path: Path, env: dict[str, str]) -> None:
    """The first wish is enough as long as there is nothing in hand; a job's command ends as well."""
    for arguments, status in ((["up"], 0), (["run", "--input", 'items=["a"]'], 4)):
        (tmp_path / "pids").unlink(missing_ok=True)
        path, slow = team(tmp_path), {**env, "FAKE_VLLM_DELAY": "300"}
        async with running(arguments[0], str(path), *arguments[1:], env=slow, cwd=tmp_path) as command:
            await command.until("starting vllm tiny/model")
            await eventually((tmp_path / "pids").exists)
            command.process.send_signal(signal.SIGINT)
            done = await command.finish()
        assert done.status == status, done.err
        assert not any(map(alive, pids(env)))
