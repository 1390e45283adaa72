"""Managers, workers, a verifier and a person around a broker that loses, delays, repeats and reorders what it can.

Everything goes over the wire form: messages are encoded, the broker knows subjects and bytes only, and it compares the
expected sequence over a chain's wildcard as the real one does.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import Phase as Phases
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.property.test_subjects_hold import matches
from tests.unit.protocol.story import NOW, message_of, step, team_of

from interlock.protocol.codec import StoredBody, decode, encode
from interlock.protocol.commands import Command
from interlock.protocol.decide import decide
from interlock.protocol.machine import evolve, fold, settle
from interlock.protocol.messages import (
    CriterionVerdict,
    Envelope,
    JobClosed,
    JobRetried,
    JobSubmitted,
    QuestionAnswered,
    QuestionAsked,
    TaskAssigned,
    TaskClosed,
    TaskResult,
    TaskVerdict,
)
from interlock.protocol.retries import retry_objection
from interlock.protocol.state import Entry, JobState, Phase, TaskState
from interlock.protocol.subjects import chain_subjects, log_subject
from interlock.protocol.team import Budget, Handover

PARALLEL = 2
ITEMS = {"a": 3}
PLAN = (
    step("a", items=True, attempts=2, handover=Handover(agent="w2")),
    step("b", needs=("a",), attempts=2),
)
MOST_ATTEMPTS = {"a": 3, "b": 2}
MOST_RETRIES = 3
ROUNDS = 200
"""More than a job needs when everything works."""


class Refused(Exception):
    """The chain is at another sequence than the sender expects."""


class Broker:
    """A log with a compare-and-set over wildcards, and the network before it."""

    def __init__(self, *, compares: bool) -> None:
        self.compares = compares
        self.log: list[tuple[str, bytes]] = []
        self._read: dict[int, Entry] = {}

    def append(self, message: Envelope) -> int:
        """Store ``message`` and return its sequence, or refuse it."""
        if self.compares and self.last(chain_subjects(message.ns, message.job, message.task)) != message.answers:
            raise Refused
        self.log.append((log_subject(message), encode(message)))
        return len(self.log)

    def last(self, pattern: str) -> int:
        """Return the sequence of the last entry that ``pattern`` matches, or 0."""
        return next((seq for seq in range(len(self.log), 0, -1) if matches(pattern, self.log[seq - 1][0])), 0)

    def entry(self, seq: int) -> Entry:
        """Read one entry."""
        known = self._read.get(seq)
        if known is None:
            message = decode(self.log[seq - 1][1])
            assert not isinstance(message, StoredBody)
            known = self._read[seq] = Entry(seq, message)
        return known


@dataclass
class Manager:
    """Reads the log in order and folds what it wrote itself at once, as the coordinator does."""

    state: JobState = field(default_factory=JobState)
    read: int = 0


@dataclass
class Held:
    """A message in the hands of a process."""

    seq: int
    answer: Envelope | None = None


class Network(RuleBasedStateMachine):
    """The system under everything that a network and a crash can do to it."""

    compares = True

    @initialize()
    def submit(self) -> None:
        """Put a job into the log."""
        self.broker = Broker(compares=self.compares)
        self.managers = [Manager(), Manager()]
        self.crew: dict[str, list[Held | None]] = {"assigned": [None, None], "result": [None]}
        self.acked: set[int] = set()
        self.late: list[Envelope] = []
        self.killed = False
        self.now = NOW
        self.made = 0
        self.truth = JobState()
        self.lean = JobState()
        """The truth, where accepted items are settled at once."""
        self.retried = self.not_retried = 0
        self.team = team_of(PLAN, parallel=PARALLEL)
        self._publish(
            JobSubmitted(
                id=self._name(), ns="n", job="j", at=NOW, team=self.team, goal="g", budget=Budget(seconds=3_600)
            )
        )

    # What managers do

    @rule(who=st.integers(0, 1), entries=st.integers(1, 8))
    def a_manager_reads(self, who: int, entries: int) -> None:
        """Let a manager fold a few more entries of the log."""
        self._read(self.managers[who], entries)

    @rule(who=st.integers(0, 1), data=st.data())
    def a_manager_acts(self, who: int, data: st.DataObject) -> None:
        """Let a manager carry out some of what it decides on what it knows, in any order, with any luck."""
        manager = self.managers[who]
        commands = decide(manager.state, self.now, killed=data.draw(self._hears_of_the_kill()))
        if commands:
            for command in data.draw(st.lists(st.sampled_from(commands), unique_by=id, min_size=1)):
                self._carry_out(manager, command, data.draw(LUCK))

    @rule(who=st.integers(0, 1))
    def a_manager_dies(self, who: int) -> None:
        """Replace a manager by one that knows nothing."""
        self.managers[who] = Manager()

    # What workers and verifiers do

    @rule(kind=st.sampled_from(["assigned", "result"]), who=st.integers(0, 1), data=st.data())
    def a_message_is_delivered(self, kind: str, who: int, data: st.DataObject) -> None:
        """Deliver any message that was not acknowledged, for the first time or again."""
        crew = self.crew[kind]
        waiting = self._unacknowledged(kind)
        if waiting and crew[who % len(crew)] is None:
            crew[who % len(crew)] = Held(data.draw(st.sampled_from(waiting)))

    @rule(kind=st.sampled_from(["assigned", "result"]), who=st.integers(0, 1), data=st.data())
    def a_process_answers(self, kind: str, who: int, data: st.DataObject) -> None:
        """Publish a result or a verdict; one that did not get through is sent again as it was."""
        held = self.crew[kind][who % len(self.crew[kind])]
        if held is None:
            return
        if held.answer is None:
            outcome = data.draw(OUTPUTS if kind == "assigned" else VERDICTS)
            held.answer = self._answer(held.seq, outcome)
        self._send(held.answer, data.draw(LUCK))

    @rule(kind=st.sampled_from(["assigned", "result"]), who=st.integers(0, 1))
    def a_process_acknowledges(self, kind: str, who: int) -> None:
        """Acknowledge a message once its answer stands in the log or can no longer enter it."""
        crew = self.crew[kind]
        held = crew[who % len(crew)]
        if held is not None and held.answer is not None and self._settled(held.answer):
            self.acked.add(held.seq)
            crew[who % len(crew)] = None

    @rule(kind=st.sampled_from(["assigned", "result"]), who=st.integers(0, 1))
    def a_process_dies(self, kind: str, who: int) -> None:
        """Lose what a process had in its hands."""
        self.crew[kind][who % len(self.crew[kind])] = None

    # What a person does

    @rule(who=st.integers(0, 1), data=st.data())
    def a_person_answers(self, who: int, data: st.DataObject) -> None:
        """Answer a question that was open when it was looked at, perhaps long ago."""
        seen = self.managers[who].state
        if seen.asking:
            name = data.draw(st.sampled_from(sorted(seen.asking)))
            self._send(self._reply(seen.tasks[name], data.draw(st.sampled_from(["yes", "no"]))), data.draw(LUCK))

    @precondition(lambda self: self.retried < MOST_RETRIES)
    @rule(who=st.integers(0, 1), data=st.data())
    def an_operator_puts_tasks_back(self, who: int, data: st.DataObject) -> None:
        """Put back some of what was seen to have failed, perhaps long ago."""
        seen = self.managers[who].state
        failed = sorted(task.id for task in seen.tasks.values() if task.outcome in {"failed", "cancelled"})
        anyway: bool = data.draw(st.booleans())
        if failed and (anyway or not retry_objection(seen, failed[:1], self.now)):
            tasks: list[str] = data.draw(st.lists(st.sampled_from(failed), unique=True, min_size=1))
            common = {"id": self._name(), "ns": "n", "job": "j", "at": self.now, "answers": seen.head}
            self._send(JobRetried.model_validate({**common, "tasks": tuple(tasks)}), data.draw(LUCK))

    # What the network and the outside do

    @precondition(lambda self: self.late)
    @rule(data=st.data())
    def a_late_message_arrives(self, data: st.DataObject) -> None:
        """Deliver a message that was long on its way, once or twice, in any order."""
        message = data.draw(st.sampled_from(self.late))
        if data.draw(st.booleans()):
            self.late.remove(message)
        self._publish(message)

    @precondition(lambda self: len(self.broker.log) > 10)
    @rule(really=st.integers(0, 3))
    def the_job_is_killed(self, really: int) -> None:
        """Give a kill order now and then, of which managers hear late or not at all."""
        self.killed = self.killed or not really

    @rule(seconds=st.sampled_from([1, 1, 10, 10, 100, 1_000]))
    def time_passes(self, seconds: int) -> None:
        """Move the clock, perhaps past the deadline."""
        self.now += timedelta(seconds=seconds)

    @rule(data=st.data())
    def a_while_goes_well(self, data: st.DataObject) -> None:
        """Make progress, so that the rest happens late in a job as often as early."""
        for _ in range(data.draw(st.integers(1, 4))):
            self._one_good_round(data.draw(OUTPUTS), data.draw(VERDICTS))

    @rule(rounds=st.integers(1, 6))
    def a_while_goes_badly(self, rounds: int) -> None:
        """Let nothing pass, so that there is something to put back."""
        for _ in range(rounds):
            self._one_good_round("new", "fail")

    # What must hold

    @invariant()
    def the_machine_follows_the_log(self) -> None:
        """Nothing that the broker took is refused, and folding the log again gives the state that grew with it."""
        entries = [self.broker.entry(seq) for seq in range(1, len(self.broker.log) + 1)]
        assert self.truth.refused == self.not_retried
        assert not self.truth.disordered
        assert fold(entries) == self.truth
        assert fold(entries[len(entries) // 2 :], fold(entries[: len(entries) // 2])) == self.truth
        for entry in entries[-3:]:
            again = evolve(self.truth, entry)
            assert again == replace(self.truth, refused=self.truth.refused + 1), "an entry told twice changes nothing"

    @invariant()
    def settling_changes_nothing(self) -> None:
        """Forgetting accepted items changes no decision."""
        for killed in (None, "stop"):
            lean, full = (decide(one, self.now, killed=killed) for one in (self.lean, self.truth))
            assert lean == full or sorted(map(repr, lean)) == sorted(map(repr, full))
        assert all(task.outcome != "accepted" for task in self.lean.tasks.values() if task.index is not None)
        assert self.lean.usage == self.truth.usage

    @invariant()
    def a_manager_that_read_everything_knows_everything(self) -> None:
        """Folding one's own entries early leads to the same tasks."""
        for manager in self.managers:
            if manager.read == len(self.broker.log):
                assert manager.state.tasks == self.truth.tasks
                assert manager.state.steps == self.truth.steps
                assert manager.state.closed == self.truth.closed

    @invariant()
    def no_more_is_open_than_allowed(self) -> None:
        """Two managers together begin no more tasks than the limit of the job."""
        assert self.truth.open <= PARALLEL
        for task in self.truth.tasks.values():
            assert len(task.counting) <= MOST_ATTEMPTS[task.step]

    def teardown(self) -> None:
        """Let everything work from here on: the job must end, and its log must hold what it promises."""
        if not hasattr(self, "broker"):
            return
        for _ in range(ROUNDS):
            if self.truth.closed is not None:
                break
            self._one_good_round("new", "pass")
        assert self.truth.closed is not None, "the job does not end"
        self._check_log([self.broker.entry(seq).message for seq in range(1, len(self.broker.log) + 1)])

    def _one_good_round(self, output: str, verdict: str) -> None:
        manager = self.managers[0]
        self._read(manager, len(self.broker.log))
        for command in decide(manager.state, self.now, killed="stop" if self.killed else None):
            self._carry_out(manager, command, "fine")
        for name in sorted(self.truth.asking):
            self._publish(self._reply(self.truth.tasks[name], "yes"))
        for kind, outcome in (("assigned", output), ("result", verdict)):
            for seq in self._unacknowledged(kind):
                self._publish(self._answer(seq, outcome))
                self.acked.add(seq)

    def _check_log(self, log: list[Envelope]) -> None:
        last = next(one for one in reversed(log) if not isinstance(one, JobRetried))
        assert isinstance(last, JobClosed), "nothing enters after the job's end"
        passed = {(one.task, one.attempt) for one in log if isinstance(one, TaskVerdict) and one.verdict == "pass"}
        closed = [one for one in log if isinstance(one, TaskClosed)]
        for task, times in Counter(one.task for one in closed).items():
            assert times <= 1 + self.retried, f"{task} is closed once, and once more for each time that it was put back"
        for one in closed:
            assert one.outcome != "accepted" or (one.task, one.stands) in passed
        for kind in (TaskAssigned, TaskResult, TaskVerdict):
            told = [(one.task, one.attempt, getattr(one, "resumes", 0)) for one in log if isinstance(one, kind)]
            assert len(set(told)) == len(told), f"no attempt has two entries of {kind.__name__}"
        assert all(task.phase is Phase.CLOSED for task in self.truth.tasks.values())
        self._check_questions(log)

    def _check_questions(self, log: list[Envelope]) -> None:
        """Check that each question has one answer at most, and that each answer is used once, by its own attempt."""
        answers = [(seq, one) for seq, one in enumerate(log, 1) if isinstance(one, QuestionAnswered)]
        assert len({one.question for _, one in answers}) == len(answers)
        places = {(seq, one.task, one.attempt) for seq, one in answers}
        resumed = [(one.resumes, one.task, one.attempt) for one in log if isinstance(one, TaskAssigned) and one.resumes]
        assert len(set(resumed)) == len(resumed)
        assert set(resumed) <= places

    # How it is done

    def _name(self) -> str:
        self.made += 1
        return f"m{self.made}"

    def _hears_of_the_kill(self) -> st.SearchStrategy[str | None]:
        return st.sampled_from([None, "stop"]) if self.killed else st.none()

    def _read(self, manager: Manager, entries: int) -> None:
        for seq in range(manager.read + 1, min(manager.read + entries, len(self.broker.log)) + 1):
            manager.read = seq
            self._fold(manager, self.broker.entry(seq))
            if manager.read < seq:
                return

    def _fold(self, manager: Manager, entry: Entry) -> None:
        if entry.seq > manager.state.head_of(entry.message.task):
            manager.state = evolve(manager.state, entry)
        if manager.state.disordered:  # it wrote before it knew what was put back: it reads the log again
            manager.state, manager.read = JobState(), 0

    def _carry_out(self, manager: Manager, command: Command, luck: str) -> None:
        message = message_of(self.team, command, ITEMS, self._name())
        seq = self._send(message, luck)
        if seq is not None:
            self._fold(manager, self.broker.entry(seq))

    def _send(self, message: Envelope, luck: str) -> int | None:
        """Publish and return the sequence if the sender learns it."""
        if luck == "lost":
            return None
        if luck == "late":
            self.late.append(message)
            return None
        self._publish(message)
        if luck == "ack lost":
            self._publish(message)  # the client sends it again, and looks for its own id at the head
        head = self.broker.last(chain_subjects("n", "j", message.task))
        return head if head and self.broker.entry(head).message.id == message.id else None

    def _publish(self, message: Envelope) -> None:
        try:
            seq = self.broker.append(message)
        except Refused:
            return
        entry, before = self.broker.entry(seq), self.truth
        self.truth, self.lean = evolve(self.truth, entry), evolve(self.lean, entry)
        if isinstance(message, JobRetried):
            self.retried += 1
            self.not_retried += self.truth.refused - before.refused
        for task in tuple(self.lean.tasks):
            self.lean = settle(self.lean, task)

    def _unacknowledged(self, kind: str) -> list[int]:
        return [
            seq
            for seq, (subject, _) in enumerate(self.broker.log, 1)
            if subject.split(".")[6] == kind and seq not in self.acked
        ]

    def _settled(self, answer: Envelope) -> bool:
        head = self.broker.last(chain_subjects("n", "j", answer.task))
        return head != answer.answers

    def _answer(self, seq: int, outcome: str) -> Envelope:
        asked = self.broker.entry(seq).message
        common = {
            "id": self._name(),
            "ns": "n",
            "job": "j",
            "at": NOW,
            "task": asked.task,
            "attempt": asked.attempt,
            "answers": seq,
        }
        if isinstance(asked, TaskAssigned) and outcome == "ask" and not asked.resumes:
            later = self.now + timedelta(seconds=50)
            return QuestionAsked.model_validate(
                {**common, "by": asked.role, "question": f"q-{seq}", "text": "May it?", "expires": later}
            )
        if isinstance(asked, TaskAssigned):
            status = "gave_up" if outcome == "gave_up" else "done"
            output = f"{asked.task} {asked.attempt}" if outcome == "new" else "same"
            return TaskResult.model_validate(
                {**common, "by": asked.role, "role": "v@t", "status": status, "output": output}
            )
        found = CriterionVerdict(criterion="c", holds={"pass": True, "fail": False}.get(outcome), evidence=self._name())
        return TaskVerdict.model_validate({**common, "by": "v@t", "verdict": outcome, "criteria": (found,)})

    def _reply(self, task: TaskState, answer: str) -> QuestionAnswered:
        assert task.question is not None
        asked = task.question.asked
        return QuestionAnswered(
            id=self._name(),
            ns="n",
            job="j",
            at=NOW,
            task=task.id,
            attempt=asked.attempt,
            answers=task.head,
            question=asked.question,
            answer=answer,
        )


LUCK = st.sampled_from(["fine", "fine", "fine", "lost", "ack lost", "late"])
OUTPUTS = st.sampled_from(["new", "new", "ask", "same", "gave_up"])
VERDICTS = st.sampled_from(["pass", "pass", "fail", "uncertain"])

TestNetwork = Network.TestCase
TestNetwork.settings = settings(
    max_examples=100, stateful_step_count=80, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


class CarelessNetwork(Network):
    """The same with a broker that takes every entry."""

    compares = False


def test_without_the_compare_and_set_the_log_does_not_hold() -> None:
    """What the stateful test finds in a careless broker shows that it looks at the right things."""
    careless = settings(TestNetwork.settings, max_examples=200, database=None, phases=[Phases.generate])
    with pytest.raises(AssertionError):
        run_state_machine_as_test(CarelessNetwork, settings=careless)
