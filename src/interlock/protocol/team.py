"""What one team file defines, as plain data: agents, plan, budget and limits.

Whether the names in a team fit together is checked where the file is read (``interlock.runtime.teamfile``), with
positions; a team that travels in ``job.submitted`` has passed that check.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from interlock.protocol.base import Json, Name, Strict
from interlock.protocol.criteria import Criterion
from interlock.protocol.permissions import Permissions
from interlock.protocol.principles import Principle
from interlock.protocol.tools import EffectClass, ToolName

__all__ = [
    "TYPE_NAMES",
    "Agent",
    "Autonomy",
    "Budget",
    "CodeTools",
    "Engine",
    "Files",
    "FilesTools",
    "ForEach",
    "Handover",
    "Input",
    "InputType",
    "JsonLines",
    "Limits",
    "McpServer",
    "ModelSettings",
    "OutputField",
    "PinnedTool",
    "SecretSource",
    "Step",
    "Team",
    "ToolSources",
    "ToolUse",
    "TypeName",
    "Verify",
    "WebTools",
    "output_schema",
    "pins_of",
    "tool_of",
]

Autonomy = Literal["suggest", "ask", "bounded"]
"""What agents may do without a person. ``suggest``: nothing, what they would do is only recorded. ``ask``: each effect
that is more than reading is asked for. ``bounded``: the rules decide."""

Engine = Literal["openai", "vllm", "local"]
"""How a model is reached: ``openai`` is any OpenAI-compatible URL, ``vllm`` a vLLM server, started on this machine
unless there is a URL, and ``local`` a small model started on this machine."""

TypeName = Literal["string", "integer", "number", "boolean", "string[]", "number[]", "integer[]"]
TYPE_NAMES: tuple[TypeName, ...] = ("string", "integer", "number", "boolean", "string[]", "number[]", "integer[]")

InputType = Literal["string", "number", "integer", "boolean", "object", "array", "files", "jsonl"]


_Urls = Annotated[
    Annotated[str, Tag("one")] | Annotated[tuple[str, ...], Tag("several"), Field(min_length=1)],
    Discriminator(lambda value: "several" if isinstance(value, (list, tuple)) else "one"),
]


class ModelSettings(Strict):
    """Which model an agent thinks with."""

    engine: Engine = "openai"
    name: str | None = None
    """The model's name as its server knows it; left out: the first that the server lists."""
    url: "_Urls | None" = None
    """Base URL of an OpenAI-compatible API, such as ``http://host:8000/v1``, or several that serve the same model.
    Not for the engine ``local``."""
    options: dict[str, Json] = {}
    """Options of the vLLM server by their names on its command line, such as ``max-model-len: 4096``. Only for the
    engine ``vllm`` without a URL."""
    api_key_env: str = "INTERLOCK_API_KEY"
    """The environment variable that holds the key; a key never stands in a team file."""
    temperature: float = Field(default=0.2, ge=0, le=2)
    max_tokens: int = Field(default=1024, ge=1)
    """The most completion tokens of one answer."""
    timeout: float = Field(default=120, gt=0)
    """Seconds that one request may take, its retries not included."""


class Agent(Strict):
    """A member of a team."""

    kind: Literal["manager", "worker", "verifier", "team"]
    """A ``team`` does each of its tasks as a job of its own, with a manager of its own."""
    team: "_TeamSource | None" = None
    """Only for a ``team``: its team file, relative to this one; in a job the team itself."""
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
    tools: "tuple[ToolUse, ...]" = ()
    """The tools that a worker may use; a step can name its own."""
    permissions: Permissions = Permissions()
    """The agent's own rules. They narrow those of the team."""


class Input(Strict):
    """Something that whoever submits a job gives to it."""

    type: InputType = "string"
    """``files`` is one or several globs and becomes a list of ``{path, name, text}``; ``jsonl`` is a file of JSON
    lines and becomes a list of its values."""
    description: str = ""
    default: Json = None
    required: bool = True
    """Whether a job without this input is refused; an input with a default never is."""
    outside: bool | None = None
    """Whether it is text from outside that may lie; left out: so it is for ``files`` and ``jsonl``, and no other."""


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


class PinnedTool(Strict):
    """A tool of which the plan fixes arguments."""

    tool: ToolName
    pin: dict[str, Json] = {}
    """The values that arguments must have. Texts are templates, as in ``do``."""
    times: int | None = Field(default=None, ge=1)
    """How many calls of one attempt; left out: as many as it likes."""


ToolUse = Annotated[
    Annotated[ToolName, Tag("name")] | Annotated[PinnedTool, Tag("pinned")],
    Discriminator(lambda value: "pinned" if isinstance(value, (dict, PinnedTool)) else "name"),
]
"""A tool by its name, or with arguments that the plan fixes."""


def tool_of(use: "str | PinnedTool") -> str:
    """Return the name of the tool that is used."""
    return use.tool if isinstance(use, PinnedTool) else use


def pins_of(use: "str | PinnedTool") -> Mapping[str, Json]:
    """Return the values that arguments of the tool must have."""
    return use.pin if isinstance(use, PinnedTool) else {}


class FilesTools(Strict):
    """Where ``files.read``, ``files.list`` and ``files.write`` may go at all; the rules decide within."""

    read: tuple[str, ...] = ()
    """Folders, relative to the team file."""
    write: tuple[str, ...] = ()
    """Folders that may be written to, and read."""


class WebTools(Strict):
    """Bounds of ``web.fetch``."""

    seconds: float = Field(default=20, gt=0)
    """How long one fetch may take, redirects included."""
    bytes: int = Field(default=2_000_000, ge=1)
    """The most that is read of a body."""
    private: tuple[str, ...] = ()
    """Networks (CIDR) that may be reached although they are private; none is by default."""


class CodeTools(Strict):
    """Bounds of ``python.run`` and ``shell.run``, which always run in a sandbox."""

    seconds: float = Field(default=30, gt=0)
    memory: int = Field(default=512, ge=16)
    """MiB."""
    read: tuple[str, ...] = ()
    """Folders, relative to the team file, that the code sees and cannot change."""
    write: tuple[str, ...] = ()
    """Folders that it may change."""


class McpServer(Strict):
    """Tools of an MCP server, called ``NAME.TOOL``."""

    command: tuple[str, ...] = ()
    """Started as a child process and spoken to over its standard input and output."""
    url: str | None = None
    """Or where it listens (streamable HTTP)."""
    effects: dict[str, EffectClass] = {}
    """What its tools do; one that is not listed counts as irreversible."""
    destinations: dict[str, tuple[str, ...]] = {}
    """Which arguments of a tool say where its effect goes."""
    env: tuple[str, ...] = ()
    """Names of the team's secrets that the server gets as environment variables."""


class SecretSource(Strict):
    """Where a secret is; its value never stands in a team file."""

    env: str
    """The environment variable that holds it."""


class ToolSources(Strict):
    """Where the team's tools come from."""

    modules: tuple[str, ...] = ()
    """Python files, relative to the team file, whose functions marked ``@tool`` are tools."""
    files: FilesTools = FilesTools()
    web: WebTools = WebTools()
    code: CodeTools = CodeTools()
    mcp: dict[Name, McpServer] = {}


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
    Annotated[Literal["fail", "replan"], Tag("word")] | Annotated[Handover, Tag("handover")],
    Discriminator(lambda value: "handover" if isinstance(value, (dict, Handover)) else "word"),
]
"""``replan``: the manager makes a new version of the plan."""

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
    tools: "tuple[ToolUse, ...] | None" = None
    """The tools of this step; left out: those of its agent."""
    outside: bool | None = None
    """Whether the items of ``for_each`` are text from outside that may lie; left out: so it is for files and JSON
    lines, and otherwise as for what the template names."""
    permissions: Permissions = Permissions()
    """The step's own rules. They narrow those of its agent and the team."""
    inputs: dict[Name, Json] = {}
    """Only where the agent is a team: the inputs of that team. Texts are templates, as in ``do``; one that is a single
    ``{{ expression }}`` gives the value itself."""
    budget: "Budget" = Field(default_factory=lambda: Budget())  # noqa: PLW0108 -- it is defined further down
    """What all tasks of the step together may use up."""


class Budget(Strict):
    """What a job, or a step of it, may use up; it ends with what it has when one of these runs out."""

    seconds: float | None = Field(default=None, gt=0)
    tokens: int | None = Field(default=None, ge=1)
    """Prompt and completion tokens of all agents together."""
    calls: int | None = Field(default=None, ge=1)
    """Requests to models, of all agents together."""


class Limits(Strict):
    """How much of a job goes on at once."""

    parallel: int = Field(default=64, ge=1, le=10_000)
    """The most tasks of one job that are assigned and not yet closed."""
    ahead: int = Field(default=0, ge=0, le=10_000)
    """How many more may be assigned, so that an agent that ends one finds the next at hand. A task is handed over three
    times before the next one begins in its place; with short tasks agents wait for that."""
    plans: int = Field(default=3, ge=1, le=20)
    """How often the manager may propose a plan before the job fails for want of one."""
    replans: int = Field(default=2, ge=0, le=20)
    """How often it may make a new version of a plan that came to nothing."""
    managers_span: int = Field(default=10, ge=1, le=100)
    """The most jobs of teams within the team that a job has at once."""
    depth: int = Field(default=3, ge=1, le=5)
    """How many levels of teams there are at most, this one included."""
    question_seconds: float = Field(default=3600, gt=0)
    """How long a person has for the answer to a question; afterwards its default counts, which is a no."""

    @property
    def open(self) -> int:
        """The most tasks that are assigned and not yet closed, those ahead included."""
        return self.parallel + self.ahead


class Team(Strict):
    """One team file."""

    interlock: Literal[1]
    """The version of the team file's format."""
    team: Name
    description: str = ""
    model: ModelSettings = ModelSettings()
    agents: dict[Name, Agent] = Field(min_length=1)
    inputs: dict[Name, Input] = {}
    plan: tuple[Step, ...] = ()
    """Left out: the manager plans from the goal."""
    result: str | None = None
    """A template for the job's result; left out: the outputs of the steps that no other step needs."""
    budget: Budget = Budget()
    limits: Limits = Limits()
    tools: ToolSources = ToolSources()
    secrets: dict[str, SecretSource] = {}
    """By the names that tools ask for."""
    permissions: Permissions = Permissions()
    """What tools may be called with which arguments; what no rule allows is denied."""
    principles: tuple[Principle, ...] = ()
    """What no plan, no rule and no person's answer overrides."""
    autonomy: Autonomy = "bounded"


_TeamSource = Annotated[
    Annotated[str, Tag("file")] | Annotated[Team, Tag("team")],
    Discriminator(lambda value: "file" if isinstance(value, str) else "team"),
]

for _model in (ModelSettings, Agent, Step, Team):
    _model.model_rebuild()


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
