import socket
from typing import Any

import pytest
from pydantic import TypeAdapter

from interlock.agents.checks.registry import evaluate
from interlock.protocol.base import Json
from interlock.protocol.criteria import AnyCriterion, Criterion
from interlock.protocol.messages import CriterionVerdict

_ANY: TypeAdapter[AnyCriterion] = TypeAdapter(Criterion)

SLOW_PATTERN = r"^(a|a)*$"
SLOW_TEXT = "a" * 60 + "b"


async def look(output: Json, **criterion: Any) -> CriterionVerdict:
    return await evaluate(_ANY.validate_python(criterion), output)


async def holds(output: Json, **criterion: Any) -> bool | None:
    return (await look(output, **criterion)).holds


async def test_too_many_words_are_counted_out() -> None:
    """A text that is too long fails with its length, the bound and how many words to drop."""
    found = await look({"summary": "one " * 57}, check="words", field="summary", max=40)
    assert found.criterion == "words(summary)"
    assert found.holds is False
    assert found.evidence == "57 words, at most 40 allowed"
    assert found.change == "Use at most 40 words: drop 17."


async def test_too_few_words_are_counted_out() -> None:
    """A text that is too short fails with how many words to add."""
    found = await look("just one", check="words", min=3)
    assert (found.holds, found.evidence) == (False, "2 words, at least 3 needed")
    assert found.change == "Use at least 3 words: add 1."


async def test_the_one_word_has_no_plural() -> None:
    """Evidence is grammatical for a count of one."""
    assert (await look("word", check="words", max=1)).evidence == "1 word"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("... -- !?", 0),
        ("don't state-of-the-art", 2),
        ("rock \u2019n\u2019 roll\u2019s", 3),
        ("1,000.50 at 10:30 in v0.16.3", 5),
        ("and/or one,two end.Start", 6),
        ("e\u0301te\u0301 déjà", 2),
        ("co\u00adop\u200d co\u200bop", 3),
        ("中文字カタ", 5),
        ("한국어 단어", 2),
        ("слово и дело", 3),
        ("snake_case", 1),
    ],
)
async def test_words_are_what_people_count(text: str, count: int) -> None:
    """Compounds and numbers are one word, Han and kana characters one each, punctuation none, in any script."""
    assert await holds(text, check="words", min=count, max=count) is True
    assert await holds(text, check="words", min=count + 1) is False


async def test_words_that_only_a_dictionary_can_tell_are_undecided() -> None:
    """A Thai text is decided where every way to count it agrees, and else left open."""
    thai = "ภาษาไทย"
    assert await holds(thai, check="words", max=2) is None
    assert await holds(thai, check="words", max=40) is True
    assert await holds(thai, check="words", min=40) is False


async def test_characters_are_composed_code_points() -> None:
    """A letter counts the same whether its accent is written apart or not."""
    assert await holds("e\u0301a", check="characters", min=2, max=2) is True
    assert (await look("abc", check="characters", max=1)).change == "Use at most 1 character: drop 2."


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        ({}, 'no field "summary": it has no fields'),
        ({"title": "x"}, 'its fields are "title"'),
        ({"summary": 3}, "must be text, found a number"),
        ({"summary": None}, "found null"),
        ({"summary": True}, "found a boolean"),
        ({"summary": {"deeper": "x"}}, "found an object"),
        ({"summary": ["text", 3]}, "found an array"),
        ("text", 'there is text where "summary" should be'),
        (["x"], 'there is an array of 1 where "summary" should be'),
        (None, "there is null"),
    ],
)
@pytest.mark.parametrize(
    "criterion",
    [
        {"check": "words", "max": 400},
        {"check": "characters", "max": 400},
        {"check": "regex", "pattern": ""},
        {"check": "contains", "none": ["forbidden"]},
        {"check": "no_repetition"},
        {"check": "grounded", "source": "text"},
    ],
    ids=lambda criterion: criterion["check"],
)
async def test_a_field_without_text_fails(criterion: dict[str, Any], output: Json, problem: str) -> None:
    """No check of text holds of a field that is missing or holds no text, and the evidence says what is there."""
    if criterion["check"] == "regex":
        criterion = {**criterion, "pattern": "^"}
    found = await look(output, field="summary", **criterion)
    assert found.holds is False
    assert problem in found.evidence
    assert found.change


@pytest.mark.parametrize("check", [{"check": "one_of", "values": [None]}, {"check": "json_schema", "schema": {}}])
async def test_a_missing_value_fails(check: dict[str, Any]) -> None:
    """A check of values never takes a field that is missing for null."""
    assert await holds({}, field="kind", **check) is False


async def test_fields_lie_deep_and_in_arrays() -> None:
    """``a.b`` goes into objects, ``a.0`` into arrays, and an array of texts is read as its lines."""
    output: Json = {"a": {"b": [{"c": "two words"}]}, "tags": ["one", "two three"]}
    assert await holds(output, check="words", field="a.b.0.c", min=2, max=2) is True
    assert await holds(output, check="words", field="a.b.1.c", max=9) is False
    assert await holds(output, check="words", field="tags", min=3, max=3) is True


async def test_a_whole_output_is_its_values() -> None:
    """Without a field a structured output is measured by its values, and nothing hides in names."""
    output: Json = {"summary": "two words", "n": 7, "ok": True, "none": None, "list": ["more"]}
    assert await holds(output, check="words", min=5, max=5) is True
    assert await holds({"secret": 1}, check="contains", none=["secret"]) is False
    assert await holds({"secret": 1}, check="regex", pattern="secret") is True


async def test_a_pattern_is_searched() -> None:
    """A pattern may match anywhere; where it does not, the text and the pattern are named."""
    assert await holds("see v1.2 here", check="regex", pattern=r"v\d\.\d") is True
    found = await look("nothing", check="regex", pattern=r"^\p{Lu}")
    assert found.holds is False
    assert found.evidence == r'the pattern "^\p{Lu}" is not found in "nothing"'


async def test_a_slow_pattern_is_undecided() -> None:
    """A pattern that explodes is stopped, and its criterion is not decided."""
    found = await look(SLOW_TEXT, check="regex", pattern=SLOW_PATTERN)
    assert found.holds is None
    assert "more than 1 s" in found.evidence


async def test_a_wrong_pattern_is_undecided() -> None:
    """What is no pattern decides nothing."""
    found = await look("x", check="regex", pattern="(")
    assert found.holds is None
    assert "is no pattern" in found.evidence


@pytest.mark.parametrize(
    ("value", "allowed", "expected"),
    [
        (" yes\n", ["yes", "no"], True),
        ("Yes", ["yes"], False),
        (1, [1.0], True),
        (True, [1], False),
        (0, [False], False),
        ([1, {"a": " x"}], [[1, {"a": "x"}]], True),
        ([1], [[1, 2]], False),
        ({"a": 1}, [{"a": True}], False),
        (None, [None], True),
    ],
)
async def test_one_of_compares_values(value: Json, allowed: list[Json], *, expected: bool) -> None:
    """Numbers are equal by value, texts without surrounding space, and a boolean is no number."""
    assert await holds({"kind": value}, check="one_of", field="kind", values=allowed) is expected


async def test_one_of_says_what_would_do() -> None:
    """The evidence shows the value, the change every allowed one."""
    found = await look("maybe", check="one_of", values=["yes", "no", 3])
    assert found.evidence == '"maybe" is none of "yes", "no", 3'
    assert found.change == 'Give exactly one of: "yes", "no", 3.'


@pytest.mark.parametrize(
    ("text", "criterion", "expected"),
    [
        ("The STRASSE is long", {"all": ["straße", "long"]}, True),
        ("caf\u00e9", {"all": ["CAFE\u0301"]}, True),
        ("line one\nline  two", {"all": ["one line two"]}, True),
        ("pass\u200bword", {"none": ["password"]}, False),
        ("only one", {"all": ["one", "two"]}, False),
        ("only one", {"any": ["one", "two"]}, True),
        ("only one", {"any": ["three", "two"]}, False),
        ("only one", {"none": ["two"]}, True),
        ("one two", {"all": ["one"], "any": ["two"], "none": ["ONE"]}, False),
    ],
)
async def test_contains_ignores_how_it_is_written(text: str, criterion: dict[str, Any], *, expected: bool) -> None:
    """Case, composition, line breaks and invisible characters make no difference; what is forbidden always counts."""
    assert await holds(text, check="contains", **criterion) is expected


async def test_contains_names_everything_at_once() -> None:
    """The evidence names what is forbidden first, then what is missing, and the change says what to do of each."""
    found = await look("bad text", check="contains", none=["bad"], all=["good"], any=["a1", "a2"])
    assert found.evidence == 'holds "bad", which it must not; lacks "good"; holds none of "a1", "a2"'
    assert found.change == 'Leave out "bad". Write "good" in it. Write at least one of "a1", "a2" in it.'


@pytest.mark.parametrize(
    ("text", "evidence"),
    [
        ("It works well. Really. it WORKS well!", 'the sentence "it WORKS well!" stands twice'),
        ("Yes. Yes.", 'the sentence "Yes." stands twice'),
        ("- same thing\n- same thing", 'the sentence "- same thing" stands twice'),
        ("二度目。違う。二度目。", 'the sentence "二度目。" stands twice'),
        ("the team runs the plan and the team runs the code", 'the words "the team runs the" occur 2 times'),
    ],
)
async def test_repetition_is_found(text: str, evidence: str) -> None:
    """A sentence or a run of words that comes again fails and is quoted."""
    found = await look(text, check="no_repetition")
    assert found.holds is False
    assert evidence in found.evidence


@pytest.mark.parametrize(
    "text", ["", "Dr. Smith met him. Dr. Jones did not.", "the team runs the plan, the team runs code"]
)
async def test_no_repetition_is_found_where_there_is_none(text: str) -> None:
    """Abbreviations and short common runs are no repetition."""
    assert await holds(text, check="no_repetition") is True


async def test_how_often_a_run_may_occur_is_set() -> None:
    """``words`` and ``max`` say which runs count and how often they may come."""
    text = "a b c, a b d, a b e"
    assert await holds(text, check="no_repetition", words=2, max=3) is True
    assert await holds(text, check="no_repetition", words=2, max=2) is False


SOURCE = (
    "The broker's streams keep 1,000 messages for 3.50 hours; 40% of clients use nats-server 2.12.1. "
    "Boxes and policies are checked by five workers. 中文分词很难。"
)


@pytest.mark.parametrize(
    "text",
    [
        "A broker keeps messages in a stream.",
        "1000 messages, 3.5 hours, 40 percent, nats-server 2.12.1",
        "The box and the policy are checked by 5 workers",
        "1. Messages\n2) Clients",
        "中文分词",
        "40 % of CLIENTS",
        "5",
    ],
)
async def test_what_the_source_says_is_grounded(text: str) -> None:
    """Case, plurals, possessives, the way to write a number and list markers make no difference, in any script."""
    found = await look(text, check="grounded", source=SOURCE, share=1)
    assert found.holds is True, found.evidence


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("The broker keeps 2000 messages", '"2000"'),
        ("The broker keeps 1000% messages", '"1000%"'),
        ("nats-server 2.12.2", '"2.12.2"'),
        ("messages for 3.05 hours", '"3.05"'),
        ("日本語の文章", '"日本"'),
        ("", "no content words"),
        ("It is what it is.", "no content words"),
    ],
)
async def test_what_the_source_does_not_say_is_not_grounded(text: str, named: str) -> None:
    """Numbers and words that the source does not have fail and are named; so does a text that says nothing."""
    found = await look(text, check="grounded", source=SOURCE)
    assert found.holds is False
    assert named in found.evidence
    assert found.change


async def test_the_share_of_words_decides() -> None:
    """The share of distinct content words that stand in the source is compared with the least share, inclusively."""
    text = "broker streams quantum unicorn messages"
    assert await holds(text, check="grounded", source=SOURCE, share=0.6) is True
    found = await look(text, check="grounded", source=SOURCE, share=0.61)
    assert found.holds is False
    assert "3 of 5 content words (60%)" in found.evidence
    assert '"quantum", "unicorn"' in found.evidence
    assert found.change == 'Use the source\'s own words instead of "quantum", "unicorn".'


async def test_numbers_can_be_left_to_others() -> None:
    """With ``numbers: false`` only the words count."""
    assert await holds("broker 77", check="grounded", source=SOURCE, numbers=False) is True
    assert await holds("77", check="grounded", source=SOURCE, numbers=False) is False


async def test_a_range_of_percentages_is_two_of_them() -> None:
    """Both ends of a range are percentages where its end says so."""
    assert await holds("10% and 20%", check="grounded", source="between 10-20 % of it") is True


async def test_a_schema_says_where_it_is_broken() -> None:
    """What is not valid is named with its place."""
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    assert await holds({"n": 1}, schema=schema) is True
    found = await look({"n": "x"}, schema=schema)
    assert (found.criterion, found.holds) == ("schema", False)
    assert found.evidence == "$.n: 'x' is not of type 'integer'"
    assert await holds({"a": {"n": 1.5}}, check="json_schema", field="a", schema=schema) is False


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"$ref": "http://127.0.0.1:9/schema.json"},
        {"$ref": "#/$defs/missing"},
        {"pattern": "("},
        {"pattern": SLOW_PATTERN},
        {"unevaluatedProperties": False, "patternProperties": {"a": True}},
    ],
    ids=["wrong", "remote", "dangling", "pattern", "slow", "unsafe"],
)
async def test_a_schema_that_cannot_be_applied_is_undecided(schema: dict[str, Json]) -> None:
    """A schema that is wrong, refers elsewhere or takes too long is never a pass, and nothing is fetched."""
    found = await look(SLOW_TEXT, schema=schema)
    assert found.holds is None
    assert "schema" in found.evidence


async def test_nothing_is_fetched() -> None:
    """A schema elsewhere is not even asked for."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        found = await look("x", schema={"$ref": f"http://127.0.0.1:{server.getsockname()[1]}/schema.json"})
        assert found.holds is None
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize(
    ("schema", "output", "expected"),
    [
        ({"pattern": "^a+$"}, "aa", True),
        ({"pattern": "^a+$"}, "ab", False),
        ({"patternProperties": {"^n": {"type": "integer"}}}, {"n1": "x"}, False),
        ({"patternProperties": {"^n": {"type": "integer"}}, "additionalProperties": False}, {"n1": 1}, True),
        ({"patternProperties": {"^n": True}, "additionalProperties": False}, {"m": 1}, False),
        ({"properties": {"a": True}, "additionalProperties": {"type": "string"}}, {"a": 1, "b": "x"}, True),
        ({"additionalProperties": {"type": "string"}}, {"b": 1}, False),
        ({"additionalProperties": False}, [1], True),
        ({"additionalProperties": True}, {"a": 1}, True),
    ],
)
async def test_the_safe_keywords_mean_what_they_should(
    schema: dict[str, Json], output: Json, *, expected: bool
) -> None:
    """Patterns and additional properties follow the draft, although they are searched with a time limit."""
    assert await holds(output, schema=schema) is expected


@pytest.mark.parametrize("keyword", [{"patternProperties": {SLOW_PATTERN: True}}, {"additionalProperties": False}])
async def test_a_slow_pattern_of_properties_is_undecided(keyword: dict[str, Any]) -> None:
    """No keyword searches names with a pattern that cannot be stopped."""
    schema = {**keyword, "patternProperties": {SLOW_PATTERN: True}}
    assert await holds({SLOW_TEXT: 1}, schema=schema) is None


async def test_a_judge_needs_a_model() -> None:
    """Code alone never decides a sentence for a judge."""
    found = await look("x", judge="It is polite")
    assert (found.criterion, found.holds) == ("judge: It is polite", None)


async def test_evidence_can_always_be_sent() -> None:
    """Evidence quotes half characters in a way that a message can carry, and is bounded."""
    found = await look("\ud800" * 10_000, check="regex", pattern="x")
    assert found.holds is False
    assert len(found.model_dump_json()) < 1000
