"""Counters of a namespace: numbers that many add to at once, each of whom learns the total that he made.

The stream is a counter stream: the broker adds, so no two are told the same total. What was acknowledged survives a
killed broker. An addition whose acknowledgement got lost may have been made; who tries again makes it twice.
"""

from functools import partial

from interlock.runtime._jetstream import NO_ROOM, answer_of, ensure_stream, purge, subjects_on
from interlock.runtime._names import budget_stream, budget_subject
from interlock.runtime._wire import Wire
from interlock.runtime.bus_errors import BrokerComplaint, LogFull


class Counters:
    """The counters of one namespace. A key is a subject's tokens, such as ``JOB.calls``."""

    def __init__(self, wire: Wire, ns: str) -> None:
        self._wire = wire
        self._stream = budget_stream(ns)
        self._subject = partial(budget_subject, ns)

    async def ensure(self, replicas: int | None) -> None:
        """Make the stream unless it is there.

        :raises PublishDenied: these credentials make no streams
        """
        config = {
            "name": self._stream,
            "subjects": [self._subject(">")],
            "allow_msg_counter": True,
            "max_msgs_per_subject": 1,
            "num_replicas": replicas,
        }
        await ensure_stream(self._wire, config)

    async def add(self, key: str, amount: int) -> int:
        """Add ``amount``, which may be 0 or less, and return the total right after that.

        :raises BusError: the broker is out of reach, or does not let these credentials; it may have been added or not
        """
        subject = self._subject(key)
        reply = await self._wire.request(subject, headers={"Nats-Incr": f"{amount:+d}"})
        try:
            return int(answer_of(subject, reply)["val"])
        except BrokerComplaint as error:
            if error.code in NO_ROOM:
                raise LogFull(subject, error.text) from None
            raise

    async def jobs(self) -> set[str]:
        """Return the jobs that something was counted for.

        :raises BusError: the broker is out of reach, or lets these credentials not ask that
        """
        everything = self._subject(">")
        counted = await subjects_on(self._wire, self._stream, everything)
        return {subject.split(".")[everything.count(".")] for subject in counted}

    async def forget(self, job: str) -> None:
        """Take the counters of a job away: the next addition begins with nothing.

        :raises BusError: the broker is out of reach, or does not let these credentials
        """
        await purge(self._wire, self._stream, self._subject(f"{job}.>"))
