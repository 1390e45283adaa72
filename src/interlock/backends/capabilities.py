"""What each engine can do: one row an engine, so that no other code asks which engine it talks to."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from interlock.protocol.base import Json
from interlock.protocol.team import Engine

__all__ = ["CAPABILITIES", "Capabilities", "SchemaStyle", "ToolStyle", "response_format"]

SchemaStyle = Literal["json_schema", "json_object"]
"""How a request says which JSON Schema binds the answer."""

ToolStyle = Literal["native", "described"]
"""How an engine uses tools: ``native`` by the API's tool calls, ``described`` by words in the prompt and an answer
bound to the form of an action, for engines that know no tool calls."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do."""

    schema_style: SchemaStyle
    tool_style: ToolStyle
    """What is tried first; a server that refuses tool calls is served as ``described`` from then on."""
    parallel: int | None
    """The most requests that one process should have open at once; None: as many as it likes. A request that waits
    its turn here does not use up its time."""
    schema_limits: bool = False
    """Whether it refuses a request with a schema that it cannot bind an answer to, so that it is given less of it."""
    metrics: bool = False
    """Whether its server tells of its queue and its prefix cache at ``/metrics``, by vLLM's names."""


CAPABILITIES: Mapping[Engine, Capabilities] = MappingProxyType(
    {
        "openai": Capabilities(schema_style="json_schema", tool_style="native", parallel=None),
        "vllm": Capabilities(
            schema_style="json_schema", tool_style="native", parallel=None, schema_limits=True, metrics=True
        ),
        # llama-cpp-python shows tools to the model's chat template at most, and reads no calls out of answers.
        "local": Capabilities(schema_style="json_object", tool_style="described", parallel=1),
    }
)


def response_format(style: SchemaStyle, name: str, schema: dict[str, Json]) -> dict[str, Json]:
    """Return the value of ``response_format`` that binds an answer to ``schema``."""
    match style:
        case "json_schema":
            return {"type": "json_schema", "json_schema": {"name": name, "schema": schema, "strict": True}}
        case "json_object":
            return {"type": "json_object", "schema": schema}
