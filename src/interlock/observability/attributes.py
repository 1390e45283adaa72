"""Every name that tracing writes: message headers, span names, span attributes and events.

The names under ``gen_ai``, ``messaging``, ``error`` and ``server`` are those of the OpenTelemetry semantic conventions
(gen-ai spans, gen-ai agent spans, gen-ai events, messaging spans; release 1.41). Both groups are still marked as
in development there, and the Python package keeps them in a module that its makers call private, so they stand
here as constants: nothing to import, and a change of the conventions is one edit. ``interlock.*`` is ours.
"""

from typing import Final

__all__ = [
    "AGENT_KIND",
    "ATTEMPT",
    "ATTEMPTS",
    "ERROR_TYPE",
    "EVENT_EVALUATION",
    "FAILED_CRITERIA",
    "GEN_AI_AGENT_NAME",
    "GEN_AI_CONVERSATION_ID",
    "GEN_AI_EVALUATION_EXPLANATION",
    "GEN_AI_EVALUATION_LABEL",
    "GEN_AI_EVALUATION_NAME",
    "GEN_AI_FINISH_REASONS",
    "GEN_AI_INPUT_MESSAGES",
    "GEN_AI_INPUT_TOKENS",
    "GEN_AI_MAX_TOKENS",
    "GEN_AI_OPERATION_NAME",
    "GEN_AI_OUTPUT_MESSAGES",
    "GEN_AI_OUTPUT_TOKENS",
    "GEN_AI_PROVIDER_NAME",
    "GEN_AI_REQUEST_MODEL",
    "GEN_AI_RESPONSE_ID",
    "GEN_AI_RESPONSE_MODEL",
    "GEN_AI_SEED",
    "GEN_AI_TEMPERATURE",
    "GEN_AI_TOOL_ARGUMENTS",
    "GEN_AI_TOOL_CALL_ID",
    "GEN_AI_TOOL_NAME",
    "GEN_AI_TOOL_RESULT",
    "GEN_AI_TOOL_TYPE",
    "GEN_AI_WORKFLOW_NAME",
    "HEADER_ORIGIN",
    "HEADER_REPLACES",
    "HEADER_ROOT",
    "HEADER_TRACEPARENT",
    "HEADER_TRACESTATE",
    "JOB",
    "LINK",
    "MESSAGE_KIND",
    "MESSAGING_CONVERSATION_ID",
    "MESSAGING_DESTINATION",
    "MESSAGING_MESSAGE_ID",
    "MESSAGING_OPERATION_NAME",
    "MESSAGING_OPERATION_TYPE",
    "MESSAGING_SYSTEM",
    "OUTCOME",
    "REASON",
    "REDONE",
    "REDO_LINK",
    "RESULT_STATUS",
    "SANDBOX_TIER",
    "SERVER_ADDRESS",
    "SERVER_PORT",
    "STATUS",
    "STEP",
    "TAINT",
    "TASK",
    "TEAM",
    "TOOL_DECISION",
    "TOOL_EFFECT",
    "TOOL_RULE",
    "VERDICT",
]

HEADER_TRACEPARENT: Final = "traceparent"
"""W3C Trace Context: the span that sent the message."""
HEADER_TRACESTATE: Final = "tracestate"
HEADER_ROOT: Final = "Interlock-Root"
"""On ``job.submitted``: the traceparent that the job's span hangs below."""
HEADER_ORIGIN: Final = "Interlock-Origin"
"""On ``task.result`` and ``task.verdict``: the traceparent of the ``invoke_agent`` span that made it."""
HEADER_REPLACES: Final = "Interlock-Replaces"
"""On ``task.assigned`` of a redo: the ``Interlock-Origin`` of the attempt that is done again."""

GEN_AI_OPERATION_NAME: Final = "gen_ai.operation.name"
GEN_AI_PROVIDER_NAME: Final = "gen_ai.provider.name"
GEN_AI_AGENT_NAME: Final = "gen_ai.agent.name"
GEN_AI_WORKFLOW_NAME: Final = "gen_ai.workflow.name"
GEN_AI_CONVERSATION_ID: Final = "gen_ai.conversation.id"
GEN_AI_REQUEST_MODEL: Final = "gen_ai.request.model"
GEN_AI_TEMPERATURE: Final = "gen_ai.request.temperature"
GEN_AI_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
GEN_AI_SEED: Final = "gen_ai.request.seed"
GEN_AI_RESPONSE_ID: Final = "gen_ai.response.id"
GEN_AI_RESPONSE_MODEL: Final = "gen_ai.response.model"
GEN_AI_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
GEN_AI_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
GEN_AI_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
GEN_AI_INPUT_MESSAGES: Final = "gen_ai.input.messages"
GEN_AI_OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
GEN_AI_TOOL_NAME: Final = "gen_ai.tool.name"
GEN_AI_TOOL_TYPE: Final = "gen_ai.tool.type"
GEN_AI_TOOL_CALL_ID: Final = "gen_ai.tool.call.id"
GEN_AI_TOOL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
GEN_AI_TOOL_RESULT: Final = "gen_ai.tool.call.result"

EVENT_EVALUATION: Final = "gen_ai.evaluation.result"
"""The event on a verifier's span, one a criterion."""
GEN_AI_EVALUATION_NAME: Final = "gen_ai.evaluation.name"
GEN_AI_EVALUATION_LABEL: Final = "gen_ai.evaluation.score.label"
"""``pass``, ``fail`` or ``uncertain``."""
GEN_AI_EVALUATION_EXPLANATION: Final = "gen_ai.evaluation.explanation"

MESSAGING_SYSTEM: Final = "messaging.system"
MESSAGING_OPERATION_NAME: Final = "messaging.operation.name"
MESSAGING_OPERATION_TYPE: Final = "messaging.operation.type"
MESSAGING_DESTINATION: Final = "messaging.destination.name"
MESSAGING_MESSAGE_ID: Final = "messaging.message.id"
MESSAGING_CONVERSATION_ID: Final = "messaging.message.conversation_id"

ERROR_TYPE: Final = "error.type"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"

TEAM: Final = "interlock.team"
JOB: Final = "interlock.job"
TASK: Final = "interlock.task"
STEP: Final = "interlock.step"
ATTEMPT: Final = "interlock.attempt"
"""Which attempt a span worked on, from 1."""
ATTEMPTS: Final = "interlock.attempts"
"""How many attempts a task took."""
AGENT_KIND: Final = "interlock.agent.kind"
"""``manager``, ``worker`` or ``verifier``."""
MESSAGE_KIND: Final = "interlock.message.kind"
STATUS: Final = "interlock.job.status"
OUTCOME: Final = "interlock.task.outcome"
RESULT_STATUS: Final = "interlock.result.status"
VERDICT: Final = "interlock.verdict"
FAILED_CRITERIA: Final = "interlock.criteria.failed"
"""The labels of the criteria that do not hold or could not be decided."""
TOOL_EFFECT: Final = "interlock.tool.effect"
"""The tool's effect class: ``read``, ``idempotent``, ``once`` or ``irreversible``."""
TOOL_DECISION: Final = "interlock.tool.decision"
"""What the gateway said to a call: ``allow``, ``ask`` or ``deny``."""
TOOL_RULE: Final = "interlock.tool.rule"
"""The rule or principle that decided."""
SANDBOX_TIER: Final = "interlock.sandbox.tier"
"""What isolated the call from the machine."""
TAINT: Final = "interlock.taint"
"""The labels of the outside text in the context that the call was made from."""
REDONE: Final = "interlock.redone"
"""On a task's span: why each earlier attempt was done again, as ``attempt 1: words(summary)``."""
REASON: Final = "interlock.reason"
LINK: Final = "interlock.link"
"""On a span link: what the linked span is to this one."""
REDO_LINK: Final = "redo_of"
"""The value of ``LINK`` for the attempt that this one redoes."""
