import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.observability.context import (
    NotATraceparentError,
    TraceContext,
    is_fresh,
    job_traceparent,
    new_traceparent,
    parse_traceparent,
    root_of,
    task_traceparent,
    trace_id_of,
)

ROOT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
names = st.text(alphabet="abc-_:09", min_size=1, max_size=6)


def test_derived_ids_are_the_same_in_every_version_and_process() -> None:
    """The span ids of jobs and tasks are fixed by name, so that processes of different age agree on them."""
    assert job_traceparent(ROOT, "job-1") == "00-0af7651916cd43dd8448eb211c80319c-109c2b3ec9159935-01"
    assert task_traceparent(ROOT, "job-1", "read-0") == "00-0af7651916cd43dd8448eb211c80319c-3655bbe4ff83b268-01"


@given(st.lists(st.tuples(names, names), min_size=2, max_size=20, unique=True))
def test_different_tasks_have_different_spans(tasks: list[tuple[str, str]]) -> None:
    """No two tasks, and no task and job, share a span id."""
    spans = [task_traceparent(ROOT, job, task) for job, task in tasks]
    spans += [job_traceparent(ROOT, job) for job in {job for job, _ in tasks}]
    assert len(set(spans)) == len(spans)


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.booleans())
def test_text_and_context_say_the_same(trace_id: int, span_id: int, sampled: bool) -> None:
    """What is written as a traceparent is read back unchanged."""
    context = TraceContext(trace_id, span_id, sampled)
    assert parse_traceparent(str(context)) == context


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "00",
        ROOT.upper(),
        ROOT + "-more",
        ROOT + "\n",
        "ff" + ROOT[2:],
        "00-" + "0" * 32 + "-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01",
    ],
)
def test_what_is_no_traceparent_is_none(text: str | None) -> None:
    """Headers come from outside: what W3C does not allow is read as absent, never guessed at."""
    assert parse_traceparent(text) is None


def test_a_later_version_is_read_by_its_known_fields() -> None:
    """A traceparent of a version still to come may have more fields; the first four keep their meaning."""
    assert parse_traceparent("01" + ROOT[2:] + "-more") == parse_traceparent(ROOT)


def test_deriving_from_nonsense_says_what_would_be_right() -> None:
    """A caller that hands in no traceparent gets a typed error with the text and the form."""
    with pytest.raises(NotATraceparentError, match=r"'nonsense' is no traceparent; it must look like 00-"):
        job_traceparent("nonsense", "job-1")


def test_new_contexts_are_random_and_known_as_fresh() -> None:
    """A new trace has an id of its own, carries the decision to record, and names no existing span."""
    first, second = new_traceparent(sampled=True), new_traceparent(sampled=False)
    assert trace_id_of(first) != trace_id_of(second)
    assert (first[-2:], second[-2:]) == ("01", "00")
    contexts = [parse_traceparent(text) for text in (first, second, ROOT)]
    assert [is_fresh(context) for context in contexts if context] == [True, True, False]


def test_the_root_of_a_job_comes_from_its_message() -> None:
    """``Interlock-Root`` wins over ``traceparent``; without both, every reader computes the same fresh trace."""
    fresh = new_traceparent(sampled=True)
    assert root_of({"Interlock-Root": fresh, "traceparent": ROOT}, "job-1") == fresh
    assert root_of({"Interlock-Root": "junk", "traceparent": ROOT}, "job-1") == ROOT
    computed = root_of({}, "job-1")
    assert computed == root_of(None, "job-1") != root_of(None, "job-2")
    context = parse_traceparent(computed)
    assert context is not None
    assert is_fresh(context)
