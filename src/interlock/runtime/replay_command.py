"""What `interlock replay` does: shows a job's log step by step, from the broker or from an archive."""

import argparse
import json
from collections.abc import Callable, Iterable
from contextlib import aclosing

import anyio

from interlock.protocol.state import JobState
from interlock.runtime.commands import place_of
from interlock.runtime.place import Place
from interlock.runtime.replaying import Replay, Step, open_source, until
from interlock.runtime.show import one_line, print_state, still_read

__all__ = ["COMMANDS"]


def _replay(options: argparse.Namespace) -> int:
    if options.rerun:
        from interlock.runtime.rerunning import rerun_command  # noqa: PLC0415 -- it runs the whole job again

        return rerun_command(options)
    state = anyio.run(_show, place_of(options), options, backend_options={"use_uvloop": True})
    if state is not None and state.submitted is not None and not options.json:
        print_state(state)
    return 0


async def _show(place: Place, options: argparse.Namespace) -> JobState | None:
    """Print the steps and return the state at the end, None where nobody reads on."""
    replay, tell = Replay(), _as_json if options.json else _in_words
    async with open_source(place, options.job) as source, aclosing(source.records()) as batches:
        async for batch in batches:
            wanted = until(batch, options.until)
            if not still_read(_lines(map(replay.step, wanted), tell)):
                return None
            if len(wanted) < len(batch):
                break
    return replay.state


def _lines(steps: Iterable[Step], tell: Callable[[Step], str]) -> str:
    return "".join(f"{tell(step)}\n" for step in steps)


def _as_json(step: Step) -> str:
    return json.dumps(step.as_json(), ensure_ascii=False)


def _in_words(step: Step) -> str:
    about = "job" if step.task == "_" else step.task
    attempt = f" #{step.attempt}" if step.attempt else ""
    by = f" by {step.by}" if step.by else ""
    change = f"{step.before or '-'} -> {step.after or '-'}" if step.before != step.after else step.after
    told = "nobody can read it" if step.message is None else "refused" if step.refused else change
    return one_line(f"{step.seq:>6}  {step.at:%H:%M:%S.%f}  {about}{attempt}  {step.kind}{by}  {told}")


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {"replay": _replay}
