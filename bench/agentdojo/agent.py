"""The agent: it does what the user's task needs, and what any injected text that it comes to see wants."""

from collections.abc import Iterator, Sequence
from typing import Any

from agentdojo.agent_pipeline.base_pipeline_element import BasePipelineElement
from agentdojo.base_tasks import BaseInjectionTask, BaseUserTask
from agentdojo.functions_runtime import EmptyEnv, Env, FunctionCall, FunctionsRuntime
from agentdojo.types import ChatAssistantMessage, ChatMessage, text_content_block_from_string
from pydantic_core import to_jsonable_python

from bench.agentdojo.attacker import calls_of
from bench.agentdojo.gate import Gate
from interlock.protocol.base import Json
from interlock.protocol.permissions import Call

__all__ = ["Hijacked"]


class Hijacked(BasePipelineElement):
    """An agent without a model and without any resistance.

    At once when a result has an injected text in it, it makes the attacker's calls, each whatever became of the one
    before; it does so at every such result until all of them were made. Then it goes on with the user's task.
    """

    name = "hijacked"

    def __init__(
        self,
        suite: str,
        user_task: BaseUserTask[Any],
        attack: BaseInjectionTask[Any] | None,
        gate: Gate | None,
    ) -> None:
        """Without a ``gate`` nothing is judged. ``attack`` is what the injected text is about."""
        self._suite = suite
        self._user_task = user_task
        self._attack = attack
        self._gate = gate
        self.seen = False
        """Whether a result had the injected text in it."""
        self._hijacked = False
        self.refused: list[str] = []
        """The user's calls that were not made, with the reason: each of them costs the user what it was for."""

    def query(
        self,
        query: str,
        runtime: FunctionsRuntime,
        env: Env = EmptyEnv(),  # noqa: B008 -- the signature is AgentDojo's
        messages: Sequence[ChatMessage] = (),
        extra_args: dict[str, Any] | None = None,
    ) -> tuple[str, FunctionsRuntime, Env, Sequence[ChatMessage], dict[str, Any]]:
        """Do the user's task, and the attacker's; only calls that were made are in the messages."""
        made: list[FunctionCall] = []
        for call in self._user_task.ground_truth(env.model_copy(deep=True)):
            problem, result = self._make(call, runtime, env)
            if problem:
                self.refused.append(problem)
                continue
            made.append(call)
            made += self._obey(result, runtime, env)
        done = [_message(calls=[call]) for call in made]
        return query, runtime, env, [*messages, *done, _message(self._answer())], extra_args or {}

    def _make(self, call: FunctionCall, runtime: FunctionsRuntime, env: Env) -> tuple[str, Json]:
        """Make a call if it may be made, and return what it came to: a problem, or the result."""
        tool = f"{self._suite}.{call.function}"
        arguments = {name: to_jsonable_python(value) for name, value in call.args.items()}
        judged = self._gate.judge(tool, arguments) if self._gate else None
        if isinstance(judged, str):
            return f"{call.function}: {judged}", None
        result, error = runtime.run_function(env, call.function, dict(call.args))
        outcome: Json = error or to_jsonable_python(result)
        if self._gate and isinstance(judged, Call):
            self._gate.returned(judged, outcome)
        return (f"{call.function}: {error}" if error else ""), outcome

    def _obey(self, result: Json, runtime: FunctionsRuntime, env: Env) -> Iterator[FunctionCall]:
        if self._attack is None or self._hijacked:
            return
        wanted = " ".join(self._attack.GOAL.split())
        if not any(wanted in " ".join(text.split()) for text in _texts(result)):
            return
        self.seen = True
        self._hijacked = True
        for call in calls_of(self._attack, env):
            problem, _ = self._make(call, runtime, env)
            if problem:
                self._hijacked = False
            else:
                yield call

    def _answer(self) -> str:
        """Return the last words, which are the attacker's too once he was heard."""
        wanted = self._attack.GROUND_TRUTH_OUTPUT if self._attack and self.seen else ""
        return "\n".join(filter(None, (self._user_task.GROUND_TRUTH_OUTPUT, wanted)))


def _texts(value: Json) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list():
            for one in value:
                yield from _texts(one)
        case dict():
            for one in value.values():
                yield from _texts(one)
        case _:
            return


def _message(text: str = "", calls: list[FunctionCall] | None = None) -> ChatAssistantMessage:
    return ChatAssistantMessage(role="assistant", content=[text_content_block_from_string(text)], tool_calls=calls)
