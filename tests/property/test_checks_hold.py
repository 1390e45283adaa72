import unicodedata
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from interlock.agents.checks.registry import evaluate
from interlock.agents.checks.text import content_words, count_words, forms_of, numbers_in, words_in
from interlock.agents.checks.values import same
from interlock.protocol.base import Json
from interlock.protocol.criteria import AnyCriterion, Criterion
from interlock.protocol.messages import CriterionVerdict

_ANY: TypeAdapter[AnyCriterion] = TypeAdapter(Criterion)

characters = st.characters() | st.sampled_from(list(" .,\n'-_%0123456789aes\u200b\u0301中"))
texts = st.text(characters, max_size=60)
names = st.sampled_from(["summary", "a", "0", "a.b"]) | texts
outputs = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
fields = st.none() | st.sampled_from(["summary", "a", "a.b", "a.0", "0", "", "..", "a.٣"])
sources = st.sampled_from(["", "The broker keeps 1,000 messages at 3.5 % of 中文分词 in 0.16.3.", "5 5 5"])

bounds = st.integers(0, 12)
criteria = st.one_of(
    st.fixed_dictionaries({"check": st.sampled_from(["words", "characters"]), "min": st.integers(1, 9)}),
    st.fixed_dictionaries({"check": st.just("regex"), "pattern": st.sampled_from(["a", r"^\w+$", "(", r"\p{Lu}"])}),
    st.fixed_dictionaries({"check": st.just("one_of"), "values": st.lists(outputs, min_size=1, max_size=3)}),
    st.fixed_dictionaries({"check": st.just("contains"), "all": st.lists(texts, min_size=1, max_size=3)}),
    st.fixed_dictionaries({"check": st.just("no_repetition"), "words": st.integers(2, 4)}),
    st.fixed_dictionaries({"check": st.just("grounded"), "source": sources | texts}),
    st.fixed_dictionaries({"check": st.just("json_schema"), "schema": st.sampled_from([{}, {"type": "string"}])}),
)
bounded = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


async def look(output: Json, **criterion: Any) -> CriterionVerdict:
    return await evaluate(_ANY.validate_python(criterion), output)


@bounded
@given(output=outputs, field=fields, criterion=criteria)
async def test_no_output_breaks_a_check(output: Json, field: str | None, criterion: dict[str, Any]) -> None:
    """Every check of every JSON output ends with a verdict that can be sent, has evidence, and a change if it fails."""
    found = await look(output, field=field, **criterion)
    assert found.evidence
    assert bool(found.change) is (found.holds is False)
    assert CriterionVerdict.model_validate_json(found.model_dump_json()) == found


@bounded
@given(text=texts, low=bounds, high=st.none() | bounds)
async def test_bounds_of_words_are_exact(text: str, low: int, high: int | None) -> None:
    """A text holds exactly where its number of words, where that can be told, lies within both bounds."""
    count = count_words(text)
    if (low == 0 and high is None) or (high is not None and high < low):
        return
    found = await look(text, check="words", min=low, max=high)
    ways = {low <= number and (high is None or number <= high) for number in (count.least, count.most)}
    assert found.holds is (ways.pop() if len(ways) == 1 else None)


@bounded
@given(text=texts, low=bounds, high=bounds)
async def test_bounds_of_characters_are_exact(text: str, low: int, high: int) -> None:
    """A text holds exactly where its number of composed characters lies within both bounds."""
    if high < low:
        return
    found = await look(text, check="characters", min=low, max=high)
    assert found.holds is (low <= len(unicodedata.normalize("NFC", text)) <= high)


plain_words = st.text(st.sampled_from("abcdefgé"), min_size=1, max_size=6)


@bounded
@given(words=st.lists(plain_words, max_size=30))
async def test_words_between_spaces_are_the_words(words: list[str]) -> None:
    """For plain words the count is what splitting at spaces gives."""
    assert words_in(" ".join(words)) == words


pieces = st.sampled_from(
    [
        *(
            "broker's",
            "1,000",
            "messages",
            "3.5%",
            "10-20 %",
            "5 per cent",
            "boxes",
            "policies.",
            "v0.16.3",
            "2024-05-01",
        ),
        *("it", "五个工人", "état", "nats-server", "(42)", "ภาษาไทย", "STRASSE", "straße", "ISO_8601", "\n3.", "7)"),
    ]
)


@bounded
@given(parts=st.lists(pieces, min_size=1, max_size=15), data=st.data())
async def test_a_part_of_the_source_is_grounded(parts: list[str], data: st.DataObject) -> None:
    """Whatever stands in the source is grounded in it, as far as it says anything at all."""
    first = data.draw(st.integers(0, len(parts) - 1))
    last = data.draw(st.integers(first + 1, len(parts)))
    text = " ".join(parts[first:last])
    found = await look(text, check="grounded", source=" ".join(parts), share=1)
    assert found.holds is bool(content_words(text) or numbers_in(text)), found.evidence


@bounded
@given(number=st.integers(1, 10**12), text=st.lists(plain_words, min_size=1, max_size=5))
async def test_a_number_from_nowhere_is_never_grounded(number: int, text: list[str]) -> None:
    """A number that the source does not have fails the text, however well its words are grounded, and is named."""
    source = " ".join(text)
    written = f"{number:,}"
    found = await look(f"{source} {written}", check="grounded", source=source, share=0.01)
    assert found.holds is False
    assert written in found.evidence
    same_number = await look(f"{number} {source}", check="grounded", source=f"{source} {written}", share=0.01)
    assert same_number.holds is True


@bounded
@given(forbidden=st.text(st.sampled_from("aB 中é"), min_size=1, max_size=5), around=texts)
async def test_what_is_forbidden_is_always_found(forbidden: str, around: str) -> None:
    """A text with a forbidden part fails, in whatever case, although it holds all that it must."""
    text = f"{around} {forbidden.swapcase()} {around}"
    assert (await look(text, check="contains", all=[forbidden], none=[forbidden])).holds is False


@bounded
@given(output=outputs)
async def test_a_value_is_one_of_itself(output: Json) -> None:
    """Every value equals itself and is valid against a schema that demands it."""
    assert same(output, output)
    assert (await look(output, check="one_of", values=[output])).holds is True
    assert (await look(output, schema={"const": output})).holds is True


@bounded
@given(words=st.lists(st.text(st.sampled_from("abcdefghij"), min_size=3, max_size=8), min_size=4, max_size=12))
async def test_saying_it_twice_is_repetition(words: list[str]) -> None:
    """Any text of four words and more that is said twice repeats itself."""
    text = " ".join(words)
    assert (await look(f"{text}, {text}", check="no_repetition")).holds is False
    assert (await look(f"{text}. {text}.", check="no_repetition")).holds is False


@given(word=st.text(st.sampled_from("abeisy"), min_size=1, max_size=8))
def test_a_word_and_its_plural_are_the_same(word: str) -> None:
    """A word and the word with an s have a form in common once they are long enough to tell."""
    if len(word) > 2:
        assert forms_of(word) & forms_of(word + "s")


@pytest.mark.parametrize("text", ["1" * 5000, "9" * 27 + ".5", "1," * 3000, "1.2.3" * 1000, "٣" * 40])
def test_numbers_of_any_length_are_read(text: str) -> None:
    """No number is too long to be compared."""
    assert numbers_in(text) == numbers_in(text)
    assert all(number.value for number in numbers_in(text))
