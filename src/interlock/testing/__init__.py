"""A scripted model to test teams with: a real OpenAI-compatible HTTP server whose answers a script decides.

A test runs its team against it and then looks at what the server saw::

    from interlock.testing import Fail, ScriptedServer, otherwise, when

    async def test_busy_model_is_asked_again():
        async with ScriptedServer([when("weather", Fail(429, retry_after=0), "sunny"), otherwise("no idea")]) as server:
            ...  # anything that talks to server.url
            assert [call.repeat for call in server.calls] == [1, 2]

From another process: ``python -m interlock.testing --script FILE.py:FUNCTION`` prints the URL as its first line.
"""

from interlock.testing._script import Answer, Call, Fail, Hang, HangUp, Malformed, Reply, Rule, Script, otherwise, when
from interlock.testing._server import ScriptedServer, Seen

__all__ = [
    "Answer",
    "Call",
    "Fail",
    "Hang",
    "HangUp",
    "Malformed",
    "Reply",
    "Rule",
    "Script",
    "ScriptedServer",
    "Seen",
    "otherwise",
    "when",
]
