"""Subjects: each message has one, it can be read back, and each wildcard matches exactly what it is for."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.property.strategies import messages_of

from interlock.protocol.codec import kind_of
from interlock.protocol.messages import (
    JOB_TASK,
    MESSAGE_TYPES,
    EffectDone,
    EffectInDoubt,
    Envelope,
    JobSubmitted,
    TaskAssigned,
    TaskResult,
)
from interlock.protocol.subjects import (
    PARTITIONS,
    SubjectInvalid,
    assigned_subjects,
    chain_subjects,
    job_subjects,
    live_subject,
    log_subject,
    log_subjects,
    parse_log_subject,
    partition_of,
    queue_subjects,
    submitted_subjects,
)

quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

# Few values, so that messages often share some of their parts and not others.
NAMESPACES = st.sampled_from(["n", "n2"])
JOBS = st.sampled_from(["j", "j-1", "J"])
TASKS = st.sampled_from([JOB_TASK, "a", "a:0", "a:1", "a:10", "b"])
ROLES = st.sampled_from(["w@t", "w2@t", "w@t2"])
UNCHAINED = EffectDone | EffectInDoubt


def matches(pattern: str, subject: str) -> bool:
    """Match as NATS does: ``*`` is one token, ``>`` is one or more tokens at the end."""
    wanted, tokens = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        return len(tokens) >= len(wanted) and matches(".".join(wanted[:-1]), ".".join(tokens[: len(wanted) - 1]))
    return len(wanted) == len(tokens) and all(one in ("*", token) for one, token in zip(wanted, tokens, strict=True))


@st.composite
def addressed(draw: st.DrawFn) -> Envelope:
    """Draw a message of any kind whose address is made of few names."""
    message = draw(st.sampled_from(MESSAGE_TYPES).flatmap(messages_of))
    address: dict[str, str] = {"ns": draw(NAMESPACES), "job": draw(JOBS), "task": draw(TASKS)}
    if isinstance(message, TaskAssigned | TaskResult):
        address["role"] = draw(ROLES)
    return message.model_copy(update=address)


def role_in(message: Envelope) -> str | None:
    return message.role if isinstance(message, TaskAssigned | TaskResult) else None


@quick
@given(message=st.sampled_from(MESSAGE_TYPES).flatmap(messages_of))
def test_a_subject_is_read_back(message: Envelope) -> None:
    """The parts of a message's subject are the message's, and every token of it is one that NATS takes."""
    subject = log_subject(message)
    parts = parse_log_subject(subject)
    assert (parts.ns, parts.job, parts.task) == (message.ns, message.job, message.task)
    assert parts.part == partition_of(message.job) < PARTITIONS
    assert parts.kind == kind_of(type(message)).rpartition(".")[2]
    assert parts.role == role_in(message)
    assert parts.by == getattr(message, "by", None)
    assert parts.chained is not isinstance(message, UNCHAINED)
    assert all(token and not set(token) & set(" \t\r\n*>") for token in subject.split("."))


@quick
@given(message=addressed(), ns=NAMESPACES, job=JOBS, task=TASKS)
def test_a_chains_wildcard_matches_its_entries_and_no_others(message: Envelope, ns: str, job: str, task: str) -> None:
    """What the broker compares the sequence with is one task's chain, without what happened to effects."""
    own = (message.ns, message.job, message.task) == (ns, job, task)
    expected = own and not isinstance(message, UNCHAINED)
    assert matches(chain_subjects(ns, job, task), log_subject(message)) is expected


@quick
@given(message=addressed(), ns=NAMESPACES, job=JOBS, task=TASKS, role=ROLES)
def test_the_other_wildcards_match_what_they_are_for(
    message: Envelope, ns: str, job: str, task: str, role: str
) -> None:
    """Jobs, partitions, queues, first entries and assignments: each pattern finds exactly its own."""
    subject = log_subject(message)
    same_ns, same_job = message.ns == ns, (message.ns, message.job) == (ns, job)
    assigned = isinstance(message, TaskAssigned)
    assert matches(log_subjects(ns), subject) is same_ns
    assert matches(log_subjects(ns, 3), subject) is (same_ns and partition_of(message.job) == 3)
    assert matches(job_subjects(ns, job), subject) is same_job
    assert matches(assigned_subjects(ns, job, task), subject) is (same_job and message.task == task and assigned)
    first = isinstance(message, JobSubmitted) and message.task == JOB_TASK
    assert matches(submitted_subjects(ns), subject) is (same_ns and first)
    for kind, model in (("assigned", TaskAssigned), ("result", TaskResult)):
        queued = isinstance(message, model) and role_in(message) == role
        assert matches(queue_subjects(ns, kind, role), subject) is (same_ns and queued)
        assert matches(queue_subjects(ns, kind, role, job), subject) is (same_job and queued)


@quick
@given(message=addressed(), ns=NAMESPACES, job=JOBS)
def test_progress_is_no_part_of_the_log(message: Envelope, ns: str, job: str) -> None:
    """No wildcard over the log matches live progress, and live progress is no log subject."""
    live = live_subject(ns, job, "reader@team", "token")
    assert not any(matches(pattern, live) for pattern in (log_subjects(ns), job_subjects(ns, job)))
    assert not matches(live, log_subject(message))
    with pytest.raises(SubjectInvalid):
        parse_log_subject(live)


@given(
    text=st.text(max_size=40)
    | st.lists(st.sampled_from(["il", "log", "n", "3", "j", "", "a!", "*", "٣"])).map(".".join)
)
def test_any_text_is_a_subject_or_refused(text: str) -> None:
    """Reading a subject gives parts without holes or says that it is none."""
    try:
        parts = parse_log_subject(text)
    except SubjectInvalid:
        return
    assert all((parts.ns, parts.job, parts.kind))
    assert parts.role != ""


def test_partitions_are_the_same_everywhere() -> None:
    """The partition is written into every subject, so it must never depend on the machine or the run."""
    assert [partition_of(job) for job in ("j", "j-1", "0f3a", "_")] == [11, 1, 1, 8]
    assert {partition_of(f"job-{number}") for number in range(1_000)} == set(range(PARTITIONS))
