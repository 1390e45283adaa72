"""The digest example on the real vLLM, which the run itself starts and ends."""

import json
import re
import shutil
from pathlib import Path

import pytest
from bench.vllm.serving import OPTIONS, environment
from tests.cli import alive, descendants
from tests.vllm.real import command

_EXAMPLE = Path(__file__).parents[2] / "examples" / "digest" / "team.yaml"
_DOCUMENTS = 6
_SECONDS = 300.0


@pytest.fixture
def team(built: Path, tmp_path: Path) -> Path:
    """Write the example with vLLM as its engine, and some of the project's documents beside it."""
    model = {"engine": "vllm", "name": str(built / "model"), "options": OPTIONS, "temperature": 0.2, "max_tokens": 120}
    text = _EXAMPLE.read_text(encoding="utf-8")
    changed = re.sub(r"^model: .*$", lambda _: f"model: {json.dumps(model)}", text, count=1, flags=re.MULTILINE)
    assert changed != text
    (tmp_path / "docs").mkdir()
    for document in sorted(_EXAMPLE.parents[2].glob("docs/*.md"))[:_DOCUMENTS]:
        shutil.copy(document, tmp_path / "docs")
    path = tmp_path / "team.yaml"
    path.write_text(changed.replace('default: ["../../README.md", "../../docs/*.md"]', 'default: ["docs/*.md"]'))
    return path


async def test_the_digest_runs_to_its_end_on_a_vllm_of_its_own(team: Path, built: Path, tmp_path: Path) -> None:
    """The run starts vLLM and says so, every document has its end, what was accepted is checked, and vLLM is gone."""
    async with command("run", str(team), "Digest it", "--json", env=environment(built), cwd=tmp_path) as run:
        await run.until("is ready after", _SECONDS)
        below = descendants(run.process.pid)
        done = await run.finish(_SECONDS)
    assert done.status in {0, 3}, done.err
    tasks = done.report["tasks"]
    assert len(tasks) == _DOCUMENTS
    assert {task["status"] for task in tasks} <= {"accepted", "failed"}
    accepted = [task for task in tasks if task["status"] == "accepted"]
    assert accepted, done.err
    assert all(task["verdicts"][-1]["verdict"] == "pass" for task in accepted)
    assert done.report["result"].startswith("# Digest")
    assert f"{len(accepted)} of {_DOCUMENTS} documents have a verified summary." in done.report["result"]
    assert done.report["usage"]["completion_tokens"] > 0
    assert not any(map(alive, below)), "something of vLLM or of the team was left behind"
