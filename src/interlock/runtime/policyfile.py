"""Policy files: what an operator lays down for every job of a namespace, each mistake shown with its place."""

import json
import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from interlock.protocol.base import Strict
from interlock.protocol.control import Policy
from interlock.protocol.permissions import Permissions, RuleInvalid, parse_rule
from interlock.protocol.principles import Principle, PrincipleInvalid, parse_principle
from interlock.runtime.yaml_positions import Document, Location, Position, Problem, YamlInvalid, parse_yaml, read_text

__all__ = ["PolicyFileInvalid", "load_policy"]


class PolicyFileInvalid(ValueError):
    """A policy file with mistakes: ``problems`` are all of them, in the order of the file."""

    def __init__(self, path: Path, problems: Iterable[tuple[Position, str]]) -> None:
        self.problems = tuple(Problem(str(path), at.line, at.column, text) for at, text in sorted(set(problems)))
        super().__init__("\n".join(map(str, self.problems)))


class _PolicyFile(Strict):
    permissions: Permissions = Permissions()
    principles: tuple[Principle, ...] = ()


def load_policy(path: Path) -> Policy:
    """Return the policy of a YAML file with the keys ``permissions`` and ``principles``.

    Relative patterns in it count from its folder.

    :raises PolicyFileInvalid: it cannot be read, is no YAML, or says something that is no rule or principle
    """
    try:
        document = parse_yaml(read_text(path))
    except YamlInvalid as error:
        raise PolicyFileInvalid(path, [(error.position, str(error))]) from error
    if document.problems:
        raise PolicyFileInvalid(path, document.problems)
    try:
        file = _PolicyFile.model_validate_json(json.dumps(document.value))
    except ValidationError as error:
        raise PolicyFileInvalid(path, _shape_problems(error, document)) from None
    problems = list(_meaning_problems(file, document))
    if problems:
        raise PolicyFileInvalid(path, problems)
    return Policy(
        id=uuid.uuid4().hex,
        at=datetime.now(UTC),
        permissions=file.permissions,
        principles=file.principles,
        base=str(path.resolve().parent),
    )


def _shape_problems(error: ValidationError, document: Document) -> Iterator[tuple[Position, str]]:
    for one in error.errors(include_url=False):
        location = _place(one["loc"], document)
        if one["type"] == "extra_forbidden":
            known = ", ".join(_PolicyFile.model_fields if len(one["loc"]) == 1 else Permissions.model_fields)
            yield document.at_key(location), f"unknown key {one['loc'][-1]!r}: known here: {known}"
        else:
            yield document.at(location), one["msg"]


def _place(loc: Location, document: Document) -> Location:
    """Return where in the document an error is: pydantic's location without the names of union members."""
    place: Location = ()
    for part in loc:
        if (*place, part) in document.positions:
            place = (*place, part)
    return place


def _meaning_problems(file: _PolicyFile, document: Document) -> Iterator[tuple[Position, str]]:
    for outcome in ("allow", "ask", "deny"):
        for index, rule in enumerate(getattr(file.permissions, outcome)):
            try:
                parse_rule(rule)
            except RuleInvalid as error:
                yield document.at(("permissions", outcome, index)), str(error)
    for index, principle in enumerate(file.principles):
        try:
            parse_principle(principle)
        except PrincipleInvalid as error:
            yield document.at(("principles", index)), str(error)
