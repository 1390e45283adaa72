"""What one team file defines, as plain data: agents, plan, budget and limits.

Whether the names in a team fit together is checked where the file is read (``interlock.runtime.teamfile``), with
positions; a team that travels in ``job.submitted`` has passed that check.
"""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from interlock.protocol.base import Json, Name, Strict
from interlock.protocol.criteria import Criterion

__all__ = [
    "TYPE_NAMES",
    "Agent",
    "Budget",
    "Engine",
    "Files",
    "ForEach",
    "Handover",
    "Input",
    "InputType",
    "JsonLines",
    "Limits",
    "ModelSettings",
    "OutputField",
    "Step",
    "Team",
    "TypeName",
    "Verify",
    "output_schema",
]

Engine = Literal["openai", "local"]
"""How a model is reached: ``openai`` is any OpenAI-compatible URL, ``local`` a small model started on this machine."""

TypeName = Literal["string", "integer", "number", "boolean", "string[]", "number[]", "integer[]"]
TYPE_NAMES: tuple[TypeName, ...] = ("string", "integer", "number", "boolean", "string[]", "number[]", "integer[]")

InputType = Literal["string", "number", "integer", "boolean", "object", "array", "files", "jsonl"]


class ModelSettings(Strict):
    """Which model an agent thinks with."""

    engine: Engine = "openai"
    name: str | None = None
    """The model's name as its server knows it; left out: the first that the server lists."""
    url: str | None = None
    """Base URL of an OpenAI-compatible API, such as ``http://host:8000/v1``. Only for the engine ``openai``."""
    api_key_env: str = "INTERLOCK_API_KEY"
    """The environment variable that holds the key; a key never stands in a team file."""
    temperature: float = Field(default=0.2, ge=0, le=2)
    max_tokens: int = Field(default=1024, ge=1)
    """The most completion tokens of one answer."""
    timeout: float = Field(default=120, gt=0)
    """Seconds that one request may take, its retries not included."""


class Agent(Strict):
    """A member of a team."""

    kind: Literal["manager", "worker", "verifier"]
    description: str = ""
    prompt: str = ""
    """What the agent is told about itself, in every conversation."""
    strategy: Literal["direct", "cot"] = "direct"
    """How a worker thinks: ``direct`` answers at once, ``cot`` writes its reasoning first."""
    redo: Literal["revise", "fresh"] = "revise"
    """What a worker is shown when it does a task again: ``revise`` its last answer and the objections, ``fresh`` the
    objections only. Small models copy what they are shown."""
    model: ModelSettings | None = None
    """Left out: the team's model."""


class Input(Strict):
    """Something that whoever submits a job gives to it."""

    type: InputType = "string"
    """``files`` is one or several globs and becomes a list of ``{path, name, text}``; ``jsonl`` is a file of JSON
    lines and becomes a list of its values."""
    description: str = ""
    default: Json = None
    required: bool = True
    """Whether a job without this input is refused; an input with a default never is."""


_Globs = Annotated[
    Annotated[str, Tag("one")] | Annotated[tuple[str, ...], Tag("several")],
    Discriminator(lambda value: "several" if isinstance(value, (list, tuple)) else "one"),
]


class Files(Strict):
    """Items from files: each becomes ``{path, name, text}``, sorted by path."""

    files: _Globs
    """Globs relative to the team file; ``**`` crosses folders."""


class JsonLines(Strict):
    """Items from a file with one JSON value a line."""

    jsonl: str
    """A path relative to the team file."""


class Verify(Strict):
    """Who checks the results of a step, and for what."""

    by: Name | None = None
    """A verifier of the team; left out: its only verifier."""
    criteria: tuple[Criterion, ...] = ()
    """What must hold, besides the step's ``output`` schema, which always must."""


class Handover(Strict):
    """Another agent takes over a task that the first one could not do."""

    agent: Name
    attempts: int = Field(default=1, ge=1, le=20)


_OnFailure = Annotated[
    Annotated[Literal["fail"], Tag("fail")] | Annotated[Handover, Tag("handover")],
    Discriminator(lambda value: "handover" if isinstance(value, (dict, Handover)) else "fail"),
]

OutputField = Annotated[
    Annotated[TypeName, Tag("type")] | Annotated[dict[str, Json], Tag("schema")],
    Discriminator(lambda value: "schema" if isinstance(value, dict) else "type"),
]
"""The type of one output field: a type name, or a JSON Schema."""


def _for_each_kind(value: Any) -> str:
    if isinstance(value, dict):
        return "jsonl" if "jsonl" in value else "files"
    match value:
        case Files():
            return "files"
        case JsonLines():
            return "jsonl"
        case str():
            return "expression"
        case _:
            return "list"


ForEach = Annotated[
    Annotated[str, Tag("expression")]
    | Annotated[tuple[Json, ...], Tag("list")]
    | Annotated[Files, Tag("files")]
    | Annotated[JsonLines, Tag("jsonl")],
    Discriminator(_for_each_kind),
]
"""What a step runs once for each of: a template that gives a list, a list, files, or JSON lines."""


class Step(Strict):
    """A node of the plan: one task, or one for each item."""

    step: Name
    agent: Name
    do: str = Field(min_length=1)
    """The instruction: a template over ``inputs``, ``goal`` and ``steps``; under ``for_each`` also ``item`` and
    ``index``."""
    for_each: ForEach | None = None
    """A template that gives a list, a list, files, or JSON lines."""
    needs: tuple[Name, ...] = ()
    """Steps that must be over before; those that a template names (``steps.x``) are added by themselves."""
    output: dict[Name, OutputField] | None = Field(default=None, min_length=1)
    """The fields of a structured result; left out: the result is text."""
    verify: Verify = Verify()
    attempts: int = Field(default=3, ge=1, le=20)
    """How often the step's agent may try before ``on_failure``."""
    timeout: float = Field(default=600, gt=0)
    """Seconds that one attempt may take once a worker has begun it."""
    on_failure: _OnFailure = "fail"
    """What happens once the attempts are used up."""


class Budget(Strict):
    """What a job may use up; it ends with what it has when one of these runs out."""

    seconds: float | None = Field(default=None, gt=0)
    tokens: int | None = Field(default=None, ge=1)
    """Prompt and completion tokens of all agents together."""
    calls: int | None = Field(default=None, ge=1)
    """Requests to models, of all agents together."""


class Limits(Strict):
    """How much of a job goes on at once."""

    parallel: int = Field(default=64, ge=1, le=10_000)
    """The most tasks of one job that are assigned and not yet closed."""


class Team(Strict):
    """One team file."""

    interlock: Literal[1]
    """The version of the team file's format."""
    team: Name
    description: str = ""
    model: ModelSettings = ModelSettings()
    agents: dict[Name, Agent] = Field(min_length=1)
    inputs: dict[Name, Input] = {}
    plan: tuple[Step, ...] = Field(min_length=1)
    result: str | None = None
    """A template for the job's result; left out: the outputs of the steps that no other step needs."""
    budget: Budget = Budget()
    limits: Limits = Limits()


def output_schema(step: Step) -> dict[str, Json] | None:
    """Return the JSON Schema of a step's structured output, or None where the output is text."""
    if step.output is None:
        return None
    return {
        "type": "object",
        "properties": {name: _field_schema(kind) for name, kind in step.output.items()},
        "required": list(step.output),
        "additionalProperties": False,
    }


def _field_schema(kind: OutputField) -> dict[str, Json]:
    if not isinstance(kind, str):
        return dict(kind)
    if kind.endswith("[]"):
        return {"type": "array", "items": {"type": kind.removesuffix("[]")}}
    return {"type": kind}
