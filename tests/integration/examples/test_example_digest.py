"""The digest example, run for real on documents of the test's own."""

from pathlib import Path
from typing import Any

from tests.integration.examples.standins import FOLDER, answers_of, run, tasks_by_label

from interlock.testing import Call, ScriptedServer

TEAM = FOLDER / "digest" / "team.yaml"
DOCUMENTS = {
    "apples.md": "# Apples\n\nApples keep for months in a cool cellar, if none of them touches another one.\n",
    "layout.md": "# Garden\n\nThe layout of the garden is a square with four beds around an old well.\n",
    "pears.md": "# Pears\n\nPears ripen after they are picked, and they do not keep for longer than some weeks.\n",
}


async def test_what_passed_is_digested_and_the_rest_is_named(tmp_path: Path) -> None:
    """A made-up summary is done again, a hopeless document is left out by name, and the counts are true."""
    answer = answers_of("digest")

    def one_is_hopeless(call: Call) -> Any:
        if "Pears" in call.conversation:
            return {"summary": f"Number {call.number} in a list of {call.number + 900} exotic fruits from abroad."}
        return answer(call)

    for name, text in DOCUMENTS.items():
        (tmp_path / name).write_text(text)
    async with ScriptedServer(one_is_hopeless) as server:
        done = await run(TEAM, server.url, "Digest the garden", "--input", "documents=*.md", cwd=tmp_path)
        first, redone = (call for call in server.calls if "garden is" in call.conversation)
    assert done.status == 3, done.err
    tasks = tasks_by_label(done, "summarise")
    assert {label: (task["status"], task["attempts"]) for label, task in tasks.items()} == {
        "apples.md": ("accepted", 1),
        "layout.md": ("accepted", 2),
        "pears.md": ("failed", 4),
    }
    assert "was not accepted" not in first.conversation
    assert 'Leave out "250"' in redone.conversation
    result = done.report["result"].splitlines()
    assert [line.partition(":")[0] for line in result if line.startswith("-")] == ["- **apples.md**", "- **layout.md**"]
    assert "2 of 3 documents have a verified summary." in result
    assert any(line.startswith("Left out") and "pears.md" in line for line in result)
