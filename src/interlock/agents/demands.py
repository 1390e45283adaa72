"""What a criterion demands, in words: one line for the worker whose answer has to keep to it."""

from interlock.agents.checks.finding import writable
from interlock.protocol.base import canonical_json
from interlock.protocol.criteria import (
    AnyCriterion,
    CharactersCheck,
    CommandCriterion,
    ContainsCheck,
    GroundedCheck,
    JsonSchemaCheck,
    JudgeCriterion,
    NoRepetitionCheck,
    OneOfCheck,
    RegexCheck,
    SchemaCriterion,
    WordsCheck,
)

__all__ = ["demand", "one_line"]

_FieldCriterion = (
    WordsCheck
    | CharactersCheck
    | RegexCheck
    | OneOfCheck
    | ContainsCheck
    | NoRepetitionCheck
    | GroundedCheck
    | JsonSchemaCheck
)


def demand(criterion: AnyCriterion) -> str:
    """Return what ``criterion`` demands, as one line for a worker."""
    match criterion:
        case CommandCriterion() | JudgeCriterion() | SchemaCriterion():
            return _whole_demand(criterion)
        case _:
            where = f"{criterion.field}: " if criterion.field else ""
            return one_line(f"{where}{_field_demand(criterion)}")


def one_line(text: str) -> str:
    """Return ``text`` on one line, so that nothing in it can pass for a line of the prompt."""
    return " ".join(writable(text).split())


def _whole_demand(criterion: CommandCriterion | JudgeCriterion | SchemaCriterion) -> str:
    match criterion:
        case JudgeCriterion():
            return one_line(criterion.judge)
        case SchemaCriterion():
            return f"valid against the JSON Schema {canonical_json(criterion.schema_)}"
        case CommandCriterion():
            return one_line(f"accepted by the command {' '.join(map(_without_folder, criterion.command))}")


def _without_folder(word: str) -> str:
    """Return a word of a command; of an absolute path only the name: a machine's folders say nothing to a model."""
    return word.rpartition("/")[2] if word.startswith("/") else word


def _field_demand(criterion: _FieldCriterion) -> str:
    match criterion:
        case WordsCheck() | CharactersCheck():
            return _bounds(criterion)
        case RegexCheck():
            return f"matches the regular expression {criterion.pattern}"
        case OneOfCheck():
            return f"exactly one of {', '.join(map(canonical_json, criterion.values))}"
        case ContainsCheck():
            return _contents(criterion)
        case JsonSchemaCheck():
            return f"valid against the JSON Schema {canonical_json(criterion.schema_)}"
        case _:
            return _style(criterion)


def _style(criterion: NoRepetitionCheck | GroundedCheck) -> str:
    match criterion:
        case NoRepetitionCheck():
            return f"no sentence twice, and do not repeat the same {criterion.words} words"
        case GroundedCheck():
            return f"only what the given text says, in its words{', and only its numbers' if criterion.numbers else ''}"


def _bounds(criterion: WordsCheck | CharactersCheck) -> str:
    if criterion.max is None:
        return f"at least {criterion.min} {criterion.check}"
    if criterion.min == 0:
        return f"at most {criterion.max} {criterion.check}"
    return f"between {criterion.min} and {criterion.max} {criterion.check}"


def _contents(criterion: ContainsCheck) -> str:
    parts = [
        ("contains", criterion.all, "and"),
        ("contains", criterion.any, "or"),
        ("does not contain", criterion.none, "or"),
    ]
    told = [f"{verb} {f' {word} '.join(map(canonical_json, texts))}" for verb, texts, word in parts if texts]
    return "; ".join(told)
