"""A scripted model to test teams with: a real OpenAI-compatible HTTP server whose answers a script decides.

A test runs its team against it and then looks at what the server saw::

    from interlock.testing import Fail, ScriptedServer, otherwise, when

    async def test_busy_model_is_asked_again():
        async with ScriptedServer([when("weather", Fail(429, retry_after=0), "sunny"), otherwise("no idea")]) as server:
            ...  # anything that talks to server.url
            assert [call.repeat for call in server.calls] == [1, 2]

An agent with tools is played by replies that are calls, such as ``CallTool("files.read", {"path": "a.txt"})``;
:class:`ScriptedServer` shows how.

From another process: ``python -m interlock.testing --script FILE.py:FUNCTION`` prints the URL as its first line.
A script may also be a file of YAML or JSON, ``--script FILE.yaml``: rules, each with ``when`` (left out: every
call) and ``reply``, or ``replies`` for the first, second, ... time::

    - when: Read the rules
      reply: {call: files.read, arguments: {path: rules.txt}}
    - when: no such file
      reply: {calls: [{call: files.list}, {call: files.read, arguments: {path: RULES}}]}
    - when: busy
      replies: [{fail: 429, retry_after: 0.1}, now I have time]
    - reply: {answer: {rules: 3}}
"""

from interlock.testing._script import (
    Answer,
    Call,
    CallTool,
    CallTools,
    Fail,
    Hang,
    HangUp,
    Malformed,
    Reply,
    Rule,
    Script,
    otherwise,
    when,
)
from interlock.testing._server import ScriptedServer, Seen

__all__ = [
    "Answer",
    "Call",
    "CallTool",
    "CallTools",
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
