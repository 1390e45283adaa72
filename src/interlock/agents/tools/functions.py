"""Functions marked ``@tool`` as tools: their signature becomes the spec, and their calls get what they ask for."""

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import anyio.to_thread
from pydantic import BaseModel, ConfigDict, Field, PydanticUserError, ValidationError, create_model
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticSerializationError, to_jsonable_python

from interlock.agents.tools.calling import Tool
from interlock.agents.tools.errors import ToolArgumentsInvalid, ToolDeclarationInvalid
from interlock.agents.tools.secrets import Secrets
from interlock.agents.tools.tool import Declaration, IdempotencyKey, Secret, ToolContext, declaration_of
from interlock.protocol.base import Json
from interlock.protocol.tools import ArgumentKind, ToolSpec

__all__ = ["function_tool"]

_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)
_KIND_OF_FORMAT: dict[str, ArgumentKind] = {"path": "path", "file-path": "path", "directory-path": "path", "uri": "url"}
_VARIADIC = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY}


def function_tool(
    function: Callable[..., Any], secrets: Secrets, *, module: str = "", where: str = "", **changes: Any
) -> Tool:
    """Return the tool that a function marked ``@tool`` is.

    :param module: the first part of its name, where its declaration gives none
    :param where: what errors call it
    :param changes: fields of its spec that depend on the team's settings
    :raises ToolDeclarationInvalid: it cannot be called with JSON arguments, or asks for what there is not
    """
    declaration = declaration_of(function)
    where = where or f"{function.__module__}.{function.__qualname__}"
    if declaration is None:
        raise ToolDeclarationInvalid(where, "it is not marked with @tool(effect=...)")
    signature = _Signature.of(function, where)
    name = declaration.name or f"{module}.{function.__name__}"
    spec = _spec(name, function, signature, declaration, where)
    probe = None if declaration.probe is None else _probe(declaration.probe, signature, where)
    asked = {*signature.secrets(), *(probe.signature.secrets() if probe else ())}
    if missing := sorted(asked - secrets.names):
        raise ToolDeclarationInvalid(where, f"it asks for the secret {missing[0]!r}, which secrets does not name")
    action = _FunctionAction(_Callable(function, signature), probe, spec.name, secrets)
    return Tool(spec.model_copy(update=changes), action, secrets)


@dataclass(frozen=True)
class _Signature:
    """The parameters of a function: arguments, and what it is given besides."""

    arguments: type[BaseModel]
    """A model with the fields ``a0``, ``a1`` and so on, so that no argument can be called like one of its methods."""
    names: tuple[str, ...]
    """The arguments in their order."""
    given: Mapping[str, object]
    """What each other parameter gets: an ``IdempotencyKey``, a ``Secret``, or the type ``ToolContext``."""
    defaults: Mapping[str, Json]

    @classmethod
    def of(cls, function: Callable[..., Any], where: str) -> "_Signature":
        try:
            hints = get_type_hints(function, include_extras=True)
        except Exception as error:  # annotations are code: anything can go wrong in them
            raise ToolDeclarationInvalid(where, f"its annotations cannot be read: {error}") from error
        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            raise ToolDeclarationInvalid(where, "it yields: a tool returns one outcome")
        fields: dict[str, Any] = {}
        given: dict[str, object] = {}
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind in _VARIADIC or name not in hints:
                problem = "needs a type" if parameter.kind not in _VARIADIC else "must be an ordinary one, with a name"
                raise ToolDeclarationInvalid(where, f"the parameter {name!r} {problem}")
            if marker := _marker(hints[name]):
                given[name] = marker
            else:
                default = ... if parameter.default is parameter.empty else parameter.default
                fields[name] = (Annotated[hints[name], Field(alias=name)], default)
        return cls(_model(fields, where), tuple(fields), given, _defaults(fields, where))

    def secrets(self) -> Iterator[str]:
        return (marker.name for marker in self.given.values() if isinstance(marker, Secret))

    def field(self, name: str) -> str:
        return f"a{self.names.index(name)}"


def _marker(hint: Any) -> object | None:
    if hint is ToolContext:
        return ToolContext
    metadata = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    return next((one for one in metadata if isinstance(one, (IdempotencyKey, Secret))), None)


def _model(fields: Mapping[str, Any], where: str) -> type[BaseModel]:
    try:
        numbered = {f"a{number}": field for number, field in enumerate(fields.values())}
        return create_model("Arguments", __config__=_STRICT, **numbered)
    except (PydanticUserError, TypeError, ValueError) as error:
        raise ToolDeclarationInvalid(where, f"its parameters cannot come from JSON: {error}") from error


def _defaults(fields: Mapping[str, Any], where: str) -> dict[str, Json]:
    try:
        return {name: to_jsonable_python(default) for name, (_, default) in fields.items() if default is not ...}
    except (PydanticSerializationError, ValueError) as error:
        raise ToolDeclarationInvalid(where, f"a default is no JSON: {error}") from error


class _Schema(GenerateJsonSchema):
    """JSON Schema without titles, which would only say each name twice."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 -- pydantic's signature
        return False


def _spec(
    name: str, function: Callable[..., Any], signature: _Signature, declaration: Declaration, where: str
) -> ToolSpec:
    try:
        schema = signature.arguments.model_json_schema(schema_generator=_Schema)
    except PydanticUserError as error:
        raise ToolDeclarationInvalid(where, f"its parameters have no JSON Schema: {error}") from error
    schema.pop("title", None)
    for default_of, value in signature.defaults.items():
        schema["properties"][default_of]["default"] = value
    known = {*signature.names}
    named = {*declaration.kinds, *declaration.destinations, *filter(None, [declaration.primary])}
    if unknown := sorted(named - known):
        raise ToolDeclarationInvalid(where, f"its declaration names {unknown[0]!r}, which is no argument of it")
    try:
        return ToolSpec(
            name=name,
            description=inspect.getdoc(function) or "",
            parameters={"properties": {}, **json.loads(json.dumps(schema))},
            effect=declaration.effect,
            network=declaration.network,
            outside=declaration.outside,
            kinds={**_kinds(schema), **declaration.kinds},
            primary=declaration.primary or (signature.names[0] if len(known) == 1 else None),
            destinations=declaration.destinations,
            probe=declaration.probe is not None,
        )
    except ValidationError as error:
        problems = "; ".join(_problems(error))
        raise ToolDeclarationInvalid(where, f"{problems} (names are like tickets.create)") from error


def _kinds(schema: Mapping[str, Any]) -> dict[str, ArgumentKind]:
    formats = {name: one.get("format", "") for name, one in schema.get("properties", {}).items()}
    return {name: _KIND_OF_FORMAT[format_] for name, format_ in formats.items() if format_ in _KIND_OF_FORMAT}


@dataclass(frozen=True)
class _Callable:
    function: Callable[..., Any]
    signature: _Signature

    async def __call__(self, values: Mapping[str, Any]) -> object:
        if inspect.iscoroutinefunction(self.function):
            return await self.function(**values)
        outcome, error = await anyio.to_thread.run_sync(_caught, self.function, values, abandon_on_cancel=True)
        if error is not None:
            raise error
        return await outcome if inspect.isawaitable(outcome) else outcome  # an async function in a plain wrapper


def _caught(function: Callable[..., Any], values: Mapping[str, Any]) -> tuple[object, BaseException | None]:
    """Call ``function``, in a thread: StopIteration and SystemExit would not come out of it as what they are."""
    try:
        return function(**values), None
    except (Exception, SystemExit) as error:  # noqa: BLE001 -- handed on as it is
        return None, error


@dataclass(frozen=True)
class _FunctionAction:
    """The action of a tool that is a function."""

    body: _Callable
    prober: _Callable | None
    name: str
    secrets: Secrets

    def complete(self, arguments: Mapping[str, Json]) -> dict[str, Json]:
        self._parsed(arguments)
        return {**self.body.signature.defaults, **arguments}

    async def run(self, arguments: Mapping[str, Json], context: ToolContext) -> object:
        return await self.body({**self._parsed(arguments), **self._given(self.body.signature, context)})

    async def probe(self, arguments: Mapping[str, Json], context: ToolContext) -> object:
        if self.prober is None:
            raise NotImplementedError(f"{self.name} has no probe")
        parsed = self._parsed(arguments)
        wanted = {name: value for name, value in parsed.items() if name in self.prober.signature.names}
        return await self.prober({**wanted, **self._given(self.prober.signature, context)})

    def _parsed(self, arguments: Mapping[str, Json]) -> dict[str, Any]:
        signature = self.body.signature
        try:
            values = signature.arguments.model_validate_json(json.dumps(dict(arguments)))
        except ValidationError as error:
            raise ToolArgumentsInvalid(self.name, _problems(error)) from None
        return {name: getattr(values, signature.field(name)) for name in signature.names}

    def _given(self, signature: _Signature, context: ToolContext) -> dict[str, object]:
        return {name: self._gift(marker, context) for name, marker in signature.given.items()}

    def _gift(self, marker: object, context: ToolContext) -> object:
        match marker:
            case Secret(name=name):
                return self.secrets.reveal(name)
            case IdempotencyKey():
                return context.key
            case _:
                return context


def _problems(error: ValidationError) -> list[str]:
    return [f"{'.'.join(map(str, one['loc'])) or 'arguments'}: {one['msg']}" for one in error.errors(include_url=False)]


def _probe(function: Callable[..., Any], of: _Signature, where: str) -> _Callable:
    """Return the probe of a tool: its first parameter gets the key, the others the arguments of the same name."""
    where = f"the probe of {where}"
    signature = _Signature.of(function, where)
    if not any(isinstance(marker, IdempotencyKey) for marker in signature.given.values()):
        if not signature.names:
            raise ToolDeclarationInvalid(where, "it takes no key")
        key = signature.names[0]
        signature = replace(signature, names=signature.names[1:], given={**signature.given, key: IdempotencyKey()})
    if unknown := sorted({*signature.names} - {*of.names}):
        raise ToolDeclarationInvalid(where, f"its parameter {unknown[0]!r} is no argument of the tool")
    return _Callable(function, signature)
