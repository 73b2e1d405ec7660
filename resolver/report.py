"""What a resolver serves, told to every coordinator, for the eyes of operators only.

Decides who is told and when: every coordinator of the settings and every one that they name, each
by its own task, so that none that hangs delays another. Nothing on the query path waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

import grpc
import grpc.aio

from gtm import tls_files
from gtm.errors import StartError
from gtm.links import Tls, channel
from gtm.telemetry import transition
from gtm.v1 import operator_pb2, operator_pb2_grpc

PERIOD_S = 2.0
"""From report to report while nothing changes."""
TIMEOUT_S = 2.0
"""For one report, connecting included."""
MAX_COORDINATORS = 16
"""Coordinators that are told; further names are ignored."""

_log = logging.getLogger("resolver")


class Link:
    """One coordinator that is told: its task, and the coordinators that it named."""

    def __init__(self, address: str, to: grpc.aio.Channel, files: tls_files.Stamp) -> None:
        self.address = address
        self.channel = to
        self.files = files
        """The state of the certificates that it shows."""
        self.changed = asyncio.Event()
        self.named: tuple[str, ...] = ()
        self.reached: bool | None = None
        """Whether the last report arrived; None before the first."""
        self.task: asyncio.Task[None] | None = None


class Reporter:
    """Reports what `report()` says, at once after `changed()` and every `PERIOD_S`."""

    def __init__(
        self,
        coordinators: tuple[str, ...],
        tls: Tls,
        report: Callable[[], operator_pb2.ReportRequest],
        *,
        insecure: bool = False,
    ) -> None:
        self.links: dict[str, Link] = {}
        self._own, self._tls, self._insecure = coordinators, tls, insecure
        self._report = report
        self._unfit: set[str] = set()
        self._ending: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to report; StartError where a link of the settings is not allowed."""
        for address in self._own[:MAX_COORDINATORS]:
            self._add(address)

    def changed(self) -> None:
        """Say that there is something new to report."""
        for link in self.links.values():
            link.changed.set()

    @property
    def reached(self) -> int:
        """Coordinators that the last report arrived at."""
        return sum(link.reached is True for link in self.links.values())

    async def close(self) -> None:
        """End every link."""
        links = tuple(self.links.values())
        self.links.clear()
        for link in links:
            if link.task is not None:
                link.task.cancel()
        await asyncio.gather(*(link.task for link in links if link.task), return_exceptions=True)
        await asyncio.gather(
            *(link.channel.close() for link in links), *self._ending, return_exceptions=True
        )

    def _add(self, address: str) -> None:
        link = Link(address, *self._opened(address))
        link.task = asyncio.get_running_loop().create_task(self._keep_telling(link))
        self.links[address] = link

    def _opened(self, address: str) -> tuple[grpc.aio.Channel, tls_files.Stamp]:
        files = tls_files.stamp(self._tls)
        return channel(address, self._tls, insecure=self._insecure), files

    async def _renew(self, link: Link) -> None:
        """Show new certificates from the next report on; what can't be read changes nothing."""
        try:
            if tls_files.flaw(tls_files.read(self._tls)):
                return
            former = link.channel
            link.channel, link.files = self._opened(link.address)
        except StartError:
            return
        await former.close()

    async def _keep_telling(self, link: Link) -> None:
        """Tell for ever; a defect is logged and costs one report, not all that follow."""
        while True:
            try:
                await self._tell(link)
            except Exception:
                _log.exception("the reports to %s broke; they are begun again", link.address)
            await asyncio.sleep(PERIOD_S)

    async def _tell(self, link: Link) -> None:
        while True:
            link.changed.clear()
            if tls_files.stamp(self._tls) != link.files:
                await self._renew(link)
            stub = operator_pb2_grpc.ReplicasStub(link.channel)  # type: ignore[no-untyped-call]
            try:
                answer = await stub.Report(self._report(), timeout=TIMEOUT_S, wait_for_ready=True)
            except grpc.aio.AioRpcError as error:
                said = error.details() or error.code().name
                self._note(link, "; ".join(filter(None, (said, tls_files.hint(self._tls)))))
            else:
                self._note(link, "")
                link.named = tuple(answer.coordinators)
                self._follow_names()
            try:
                async with asyncio.timeout(PERIOD_S):
                    await link.changed.wait()
            except TimeoutError:
                pass

    def _note(self, link: Link, failure: str) -> None:
        """Log that a coordinator was lost or is back, once."""
        if failure and link.reached is not False:
            transition(
                _log, "coordinator does not hear us", logging.WARNING,
                coordinator=link.address, cause=failure,
            )  # fmt: skip
        elif not failure and link.reached is False:
            transition(_log, "coordinator hears us again", coordinator=link.address)
        link.reached = not failure

    def _follow_names(self) -> None:
        """Begin links to coordinators that were named, end those that nobody names any more."""
        wanted = self._wanted()
        for address in wanted:
            if address not in self.links:
                self._try(address)
        for address in [known for known in self.links if known not in wanted]:
            self._drop(self.links.pop(address))

    def _wanted(self) -> tuple[str, ...]:
        named: Iterable[str] = (name for link in self.links.values() for name in link.named)
        return tuple(dict.fromkeys((*self._own, *named)))[:MAX_COORDINATORS]

    def _try(self, address: str) -> None:
        if address in self._unfit:
            return
        try:
            self._add(address)
        except StartError as error:
            if len(self._unfit) < MAX_COORDINATORS:
                self._unfit.add(address)
            transition(_log, "coordinator can't be told", logging.WARNING, cause=error)

    def _drop(self, link: Link) -> None:
        async def end() -> None:
            await link.channel.close()

        if link.task is not None:
            link.task.cancel()
        ending = asyncio.get_running_loop().create_task(end())
        self._ending.add(ending)  # the loop alone would forget it
        ending.add_done_callback(self._ending.discard)
