"""What a person at a terminal sees."""

import os
import pty
import re
import sys
from pathlib import Path

import anyio
from tests.cli import environment
from tests.teams import digest_team, item_of, summary, write_items, write_team

from interlock.testing import Answer, Call, ScriptedServer

_HIDE, _SHOW = "\x1b[?25l", "\x1b[?25h"


async def _read_all(terminal: int) -> str:
    """Return what was written to the other end until it was closed everywhere."""
    seen = bytearray()
    while True:
        await anyio.wait_readable(terminal)
        try:
            chunk = os.read(terminal, 65536)
        except OSError:  # how Linux tells that the other end is closed
            return seen.decode()
        seen += chunk
        if not chunk:
            return seen.decode()


async def test_the_live_view_shows_the_run_and_gives_the_terminal_back(tmp_path: Path) -> None:
    """In a terminal there is a table that is redrawn, the account below it, and the cursor is back at the end."""
    write_items(tmp_path, 3)
    team = write_team(tmp_path, digest_team())
    master, slave = pty.openpty()

    def one_wrong(call: Call) -> Answer:
        return summary(call, wrong_first=item_of(call) == 1, delay=0.3)

    async with ScriptedServer(one_wrong) as server:
        process = await anyio.open_process(
            [sys.executable, "-m", "interlock.runtime.cli", "run", str(team), "go"],
            stdin=slave,
            stderr=slave,
            env=environment({"INTERLOCK_MODEL_URL": server.url, "TERM": "xterm", "COLUMNS": "110"}),
            cwd=tmp_path,
            start_new_session=True,
        )
        try:
            os.close(slave)
            with anyio.fail_after(60):
                seen = await _read_all(master)
                assert await process.wait() == 0
            assert process.stdout is not None
            assert await process.stdout.receive() == b"All items are answered\n"
        finally:
            os.close(master)
            if process.returncode is None:
                process.kill()
            await process.aclose()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen)
    assert text.count("checking") > 1, "it is drawn more than once"
    assert re.search(r"summarise +│ +reader +│ +3 +│ +0 +│", text)
    assert "attempt 1 fail: contains(summary)" in text
    assert re.search(r"digest-\w+  succeeded  \d+ s, 5 calls", text), "the last drawing says how it ended"
    assert re.search(r"summarise:1 +reader +accepted after 2 attempts \(fail, pass\)", text)
    assert seen.rindex(_SHOW) > seen.rindex(_HIDE)
