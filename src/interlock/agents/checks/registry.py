"""The one way to evaluate a criterion that needs no model."""

import anyio.to_thread

from interlock.agents.checks.command import check_command
from interlock.agents.checks.counts import check_characters, check_words
from interlock.agents.checks.finding import Finding, failed, undecided
from interlock.agents.checks.grounded import check_grounded
from interlock.agents.checks.patterns import check_contains, check_one_of, check_regex
from interlock.agents.checks.repetition import check_no_repetition
from interlock.agents.checks.schema import check_schema
from interlock.agents.checks.values import FieldMissing, NotText, text_at, value_at
from interlock.protocol.base import Json
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
    criterion_label,
)
from interlock.protocol.messages import CriterionVerdict

__all__ = ["evaluate", "verdict_of"]


async def evaluate(criterion: AnyCriterion, output: Json) -> CriterionVerdict:
    """Return whether ``criterion`` holds of ``output``.

    A field that is missing or holds no text fails. What cannot be decided (a pattern that takes too long, a command
    that cannot start, a judge's sentence, which needs a model) has ``holds`` None.
    """
    try:
        finding = await _find(criterion, output)
    except FieldMissing as problem:
        finding = failed(str(problem), f"Give the field {problem.field}.")
    except NotText as problem:
        finding = failed(str(problem), f"Write {problem.field or 'the output'} as text.")
    return verdict_of(criterion_label(criterion), finding)


def verdict_of(label: str, finding: Finding) -> CriterionVerdict:
    """Return a finding as what a verdict says of the criterion called ``label``."""
    return CriterionVerdict(criterion=label, holds=finding.holds, evidence=finding.evidence, change=finding.change)


async def _find(criterion: AnyCriterion, output: Json) -> Finding:
    match criterion:
        case CommandCriterion():
            return await check_command(criterion, output)
        case JudgeCriterion():
            return undecided("only a model can judge this sentence")
        case RegexCheck():
            # A slow pattern must not hold up everything else of this process; searching releases the GIL.
            text = text_at(output, criterion.field, names=True)
            return await anyio.to_thread.run_sync(check_regex, criterion, text, abandon_on_cancel=True)
        case SchemaCriterion():
            return check_schema(criterion.schema_, output)
        case JsonSchemaCheck():
            return check_schema(criterion.schema_, value_at(output, criterion.field))
        case OneOfCheck():
            return check_one_of(criterion, value_at(output, criterion.field))
        case ContainsCheck():
            return check_contains(criterion, text_at(output, criterion.field, names=True))
        case _:
            return _measure(criterion, text_at(output, criterion.field))


def _measure(criterion: WordsCheck | CharactersCheck | NoRepetitionCheck | GroundedCheck, text: str) -> Finding:
    match criterion:
        case WordsCheck():
            return check_words(criterion, text)
        case CharactersCheck():
            return check_characters(criterion, text)
        case NoRepetitionCheck():
            return check_no_repetition(criterion, text)
        case GroundedCheck():
            return check_grounded(criterion, text)
