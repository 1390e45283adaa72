"""The judge: one model call that says which sentences are true of an output, never trusted beyond its form."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from interlock.agents.answers import NotJson, embedded_json, parse_json
from interlock.agents.checks.finding import Finding, failed, held, quoted, undecided
from interlock.agents.prompts import judge_messages
from interlock.agents.thinking import NO_TRACING, seed_of, think
from interlock.backends.chat import ChatModel, ChatRequest
from interlock.backends.errors import ModelError
from interlock.observability.tracing import Tracing
from interlock.protocol.base import Json, Usage
from interlock.protocol.criteria import JudgeCriterion
from interlock.protocol.messages import TaskAssigned
from interlock.protocol.team import Agent, ModelSettings

__all__ = ["judge"]

_KEPT = 600
"""Characters of a judge's words that are kept."""


class _Opinion(BaseModel):
    """What the judge says of one sentence."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    evidence: Annotated[str, StringConstraints(strip_whitespace=True)]
    holds: bool
    change: Annotated[str, StringConstraints(strip_whitespace=True)]


async def judge(
    criteria: Sequence[JudgeCriterion],
    assignment: TaskAssigned,
    output: Json,
    agent: Agent,
    model: ChatModel | None,
    settings: ModelSettings,
    tracing: Tracing = NO_TRACING,
) -> tuple[list[Finding], Usage]:
    """Return a finding for each criterion, in their order, and what the call cost.

    A model that is missing or fails, an answer that is no JSON, that speaks of other sentences than it was asked
    about, or leaves one out, gives findings that are undecided.
    """
    if model is None:
        return [undecided("the verifier has no model to judge with")] * len(criteria), Usage()
    sentences = {f"c{number}": criterion.judge for number, criterion in enumerate(criteria, 1)}
    request = ChatRequest(
        messages=judge_messages(assignment, output, agent, sentences),
        temperature=0,
        max_tokens=settings.max_tokens,
        schema=_schema(sentences),
        schema_name="judgement",
        seed=seed_of(assignment.job, assignment.task, assignment.attempt, "judge"),
    )
    try:
        reply = await think(model, request, tracing, assignment.job)
    except ModelError as problem:
        return [undecided(f"the judge did not answer: {problem}")] * len(criteria), Usage()
    opinions = _opinions(reply.text, list(sentences))
    return [_finding(name, sentence, opinions, reply.text) for name, sentence in sentences.items()], reply.usage


def _schema(sentences: dict[str, str]) -> dict[str, Json]:
    """Return the schema of the judgement; the evidence comes first, so that the decision follows from it."""
    opinion: Json = {
        "type": "object",
        "properties": {"evidence": {"type": "string"}, "holds": {"type": "boolean"}, "change": {"type": "string"}},
        "required": ["evidence", "holds", "change"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": dict.fromkeys(sentences, opinion),
        "required": list(sentences),
        "additionalProperties": False,
    }


def _opinions(text: str, names: list[str]) -> dict[str, _Opinion]:
    """Return what is well-formed of the judgement; nothing at all where it names a sentence that nobody asked about."""
    try:
        return _read(parse_json(text), names)
    except NotJson:
        # Other words around it are forgiven only where the judgement is whole.
        whole = (found for found in (_read(value, names) for value in embedded_json(text)) if len(found) == len(names))
        return next(whole, {})


def _read(value: Json, names: list[str]) -> dict[str, _Opinion]:
    if not isinstance(value, dict) or not value.keys() <= set(names):
        return {}
    opinions = {}
    for name, given in value.items():
        try:
            opinions[name] = _Opinion.model_validate(given)
        except ValidationError:
            continue  # what is left out here is reported as undecided
    return opinions


def _finding(name: str, sentence: str, opinions: dict[str, _Opinion], text: str) -> Finding:
    opinion = opinions.get(name)
    if opinion is None:
        return undecided(f"the judge gave no usable answer to this; it wrote {quoted(text, 200)}")
    evidence = opinion.evidence[:_KEPT] or "the judge gave no evidence"
    if opinion.holds:
        return held(evidence)
    return failed(evidence, opinion.change[:_KEPT] or f"Make this true: {sentence}")
