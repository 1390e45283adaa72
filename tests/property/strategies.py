"""Hypothesis strategies for every message, derived from the models: a new kind or field is covered by itself."""

import types
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from hypothesis import strategies as st
from pydantic import AwareDatetime, BaseModel, JsonValue, ValidationError
from pydantic.fields import FieldInfo

from interlock.protocol.messages import VERSION, Envelope

__all__ = ["json_values", "messages_of", "model_of"]

_FEW = 3
_BOUNDS = ("ge", "gt", "le", "lt", "min_length", "max_length", "pattern")

_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)

json_values = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=_FEW) | st.dictionaries(st.text(max_size=6), inner, max_size=_FEW)
)
"""Any JSON value."""

_zones = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))])
_datetimes = st.builds(datetime.fromtimestamp, st.integers(0, 2**32), _zones)


def messages_of(model: type[Envelope]) -> st.SearchStrategy[Envelope]:
    """Return a strategy for the messages of one kind, in the version of today."""
    return model_of(model).map(lambda message: message.model_copy(update={"v": VERSION}))


@cache
def model_of(model: type[BaseModel]) -> st.SearchStrategy[Any]:
    """Return a strategy for instances of ``model``, validated as from outside."""
    model.model_rebuild()  # pydantic resolves names of later classes when it first needs them
    required = {_key(name, field): _field(field) for name, field in model.model_fields.items() if field.is_required()}
    optional = {
        _key(name, field): _field(field) for name, field in model.model_fields.items() if not field.is_required()
    }
    return st.fixed_dictionaries(required, optional=optional).map(lambda fields: _built(model, fields)).filter(bool)


def _key(name: str, field: FieldInfo) -> str:
    return field.alias or name


def _built(model: type[BaseModel], fields: dict[str, Any]) -> BaseModel | None:
    try:
        return model(**fields)
    except ValidationError:  # fields that contradict each other, such as min above max
        return None


def _field(field: FieldInfo) -> st.SearchStrategy[Any]:
    return _values(field.annotation, _bounds(field.metadata))


def _bounds(metadata: Iterable[Any]) -> dict[str, Any]:
    """Return the constraints that pydantic keeps in many forms, by their names."""
    bounds: dict[str, Any] = {}
    for one in metadata:
        if isinstance(one, FieldInfo):
            bounds |= _bounds(one.metadata)
        bounds |= {name: getattr(one, name) for name in _BOUNDS if getattr(one, name, None) is not None}
    return bounds


def _values(annotation: Any, bounds: dict[str, Any]) -> st.SearchStrategy[Any]:
    if annotation is JsonValue:
        return json_values
    if annotation is AwareDatetime:
        return _datetimes
    if get_origin(annotation) is not None:
        return _generic(annotation, bounds)
    if annotation is type(None):
        return st.none()
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return st.deferred(lambda: model_of(annotation))
    return _plain(annotation, bounds)


def _generic(annotation: Any, bounds: dict[str, Any]) -> st.SearchStrategy[Any]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _values(arguments[0], bounds | _bounds(arguments[1:]))
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (Union, types.UnionType):
        return st.one_of([_values(one, bounds) for one in arguments])
    least = bounds.get("min_length", 0)
    if origin is tuple:
        return st.lists(_values(arguments[0], {}), min_size=least, max_size=_FEW).map(tuple)
    if origin is dict:
        key, value = (_values(one, {}) for one in arguments)
        return st.dictionaries(key, value, min_size=least, max_size=_FEW)
    raise NotImplementedError(annotation)


def _plain(annotation: Any, bounds: dict[str, Any]) -> st.SearchStrategy[Any]:
    low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
    if annotation is bool:
        return st.booleans()
    if annotation is int:
        return st.integers(low, high)
    if annotation is float:
        return st.floats(low, high, allow_nan=False, allow_infinity=False, exclude_min="gt" in bounds)
    if annotation is str and "pattern" in bounds:
        return st.from_regex(bounds["pattern"], fullmatch=True).filter(lambda text: not text.endswith("\n"))
    if annotation is str:
        return st.text(min_size=bounds.get("min_length", 0), max_size=min(12, bounds.get("max_length", 12)))
    raise NotImplementedError(annotation)
