"""The engines that this machine runs for the agents of some teams, and what vLLM servers tell of one job."""

import logging
import os
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from interlock.backends.capabilities import CAPABILITIES
from interlock.backends.engines import LOCAL_URL_ENV, MODEL_URL_ENV, Endpoint, resolve_endpoint
from interlock.backends.errors import ModelError
from interlock.backends.vllm_metrics import VllmMetrics, read_metrics
from interlock.protocol.team import Team
from interlock.runtime.report import EngineReport, PrefixCacheReport
from interlock.runtime.staffing import models_used

_log = logging.getLogger(__name__)

__all__ = ["Gauges", "engines_for"]


@asynccontextmanager
async def engines_for(
    teams: Iterable[Team], say: Callable[[str], None], failed: Callable[[str], None]
) -> AsyncGenerator[Mapping[str, str]]:
    """Run the engines that agents of ``teams`` think with, as far as they are started here.

    Yields the environment for the agents' processes. ``failed`` is called with the reason when one is given up.

    :raises ModelError: an engine cannot be started
    """
    models = [settings for team in teams for _, settings in models_used(team)]
    environment = dict(os.environ)

    def given_up(failure: ModelError) -> None:
        _log.error("%s", failure)
        failed(str(failure).partition("\n")[0].partition(";")[0])

    async with AsyncExitStack() as stack:
        if not os.environ.get(MODEL_URL_ENV):
            if any(model.engine == "local" for model in models) and not os.environ.get(LOCAL_URL_ENV):
                from interlock.backends.local import local_engine, local_environ  # noqa: PLC0415 -- few teams have it

                say("starting the local model")
                environment |= local_environ(await stack.enter_async_context(local_engine()))
            if started := [model for model in models if model.engine == "vllm" and model.url is None]:
                from interlock.backends.vllm import vllm_servers  # noqa: PLC0415 -- few teams have it

                environment |= await stack.enter_async_context(vllm_servers(started, say=say, failed=given_up))
        yield environment


class Gauges:
    """What the vLLM servers of one job tell, from its beginning to its end.

    They tell of all that they do: what others ask them meanwhile is in it.
    """

    def __init__(self) -> None:
        self._endpoints: list[Endpoint] = []
        self._names: tuple[str, ...] = ()
        self._before: VllmMetrics | None = None
        self._after: VllmMetrics | None = None

    async def begin(self, team: Team, environment: Mapping[str, str]) -> None:
        """Read them before the job; where it thinks with no vLLM there is nothing to read."""
        models = [model for _, model in models_used(team) if CAPABILITIES[model.engine].metrics]
        self._endpoints = [resolve_endpoint(model, environment) for model in models]
        self._names = tuple(dict.fromkeys(endpoint.name or "" for endpoint in self._endpoints))
        self._before = await read_metrics(self._endpoints)

    async def end(self) -> None:
        """Read them after the job."""
        if self._before is not None:
            self._after = await read_metrics(self._endpoints)

    def report(self) -> EngineReport | None:
        """Return what they told; None: nothing."""
        if self._before is None or self._after is None:
            return None
        before, after = self._before, self._after
        # A server that was started again counts from 0.
        queries, hits = after.queries - before.queries, after.hits - before.hits
        if queries < 0 or hits < 0:
            queries, hits = after.queries, after.hits
        return EngineReport(
            name="vllm",
            models=self._names,
            prefix_cache=PrefixCacheReport(
                queries=queries, hits=hits, share=round(hits / queries, 4) if queries else None
            ),
            running=after.running,
            waiting=after.waiting,
        )
