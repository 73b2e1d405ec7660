"""One bidirectional stream to one etcd endpoint, on a channel of its own.

Turns every way in which gRPC ends a stream (status, end, cancellation, a write that blocks) into
`StreamBroken`, and lets its owner wait for an answer with a deadline without losing a read. Watches
and lease keepalives sit on it; which endpoint comes next is theirs to decide.
"""

from __future__ import annotations

import asyncio
from typing import Any, Generic

import grpc
import grpc.aio

from .etcd_errors import Meaning
from .etcd_link import (
    CONNECT_MOST_S,
    Answered,
    Asked,
    Link,
    Method,
    NotReached,
    connected,
    status_of,
)
from .etcd_options import Endpoint


class StreamBroken(Exception):
    """The stream is over; `meaning` is what the endpoint said, `UNSURE` for nothing."""

    def __init__(self, reason: str, meaning: Meaning = Meaning.UNSURE) -> None:
        super().__init__(reason)
        self.meaning = meaning


class Stream(Generic[Asked, Answered]):
    """An open stream of `Asked` up and `Answered` down; `close` it whatever happened."""

    def __init__(self, link: Link, method: Method[Asked, Answered], to: Endpoint) -> None:
        self.to = to
        self.metadata: tuple[tuple[str, str], ...] = ()
        self._link, self._method = link, method
        self._channel = link.open(to)
        self._call: Any = None
        self._read: asyncio.Task[Any] | None = None

    async def open(self, most_s: float = CONNECT_MOST_S) -> None:
        """Connect, within `most_s` seconds, authenticate if needed, begin. Raises StreamBroken."""
        if not await connected(self._channel, most_s):
            raise StreamBroken(f"{self.to.url} does not accept a connection", Meaning.AGAIN)
        try:
            timeout_s = self._link.options.timeout_s
            self.metadata = await self._link.metadata(self._channel, timeout_s)
        except NotReached as error:
            raise StreamBroken(f"{self.to.url} {error}", Meaning.AGAIN) from None
        except grpc.aio.AioRpcError as error:
            raise self._broken(error) from None
        self._call = self._method.stream_on(self._channel)(metadata=self.metadata)

    async def send(self, request: Asked) -> None:
        """Write one request. Raises StreamBroken, also when it cannot be written in time."""
        try:
            async with asyncio.timeout(self._link.options.timeout_s):
                await self._call.write(request)
        except TimeoutError:
            raise StreamBroken(f"{self.to.url} takes no more requests") from None
        except grpc.aio.AioRpcError as error:
            raise self._broken(error) from None
        except asyncio.InvalidStateError:
            raise StreamBroken(f"{self.to.url} ended the stream") from None

    async def next(self, timeout_s: float, *others: asyncio.Future[Any]) -> Answered | None:
        """The next answer; None when `timeout_s` is over or one of `others` is done before it."""
        if self._read is None:
            self._read = asyncio.ensure_future(self._call.read())
        await asyncio.wait(
            {self._read, *others},
            timeout=max(0.0, timeout_s),
            return_when=asyncio.FIRST_COMPLETED,
        )
        if not self._read.done():
            return None
        read, self._read = self._read, None
        try:
            answer = read.result()
        except grpc.aio.AioRpcError as error:
            raise self._broken(error) from None
        except asyncio.CancelledError:
            raise StreamBroken(f"the stream from {self.to.url} was cancelled") from None
        if answer is grpc.aio.EOF:
            raise StreamBroken(f"{self.to.url} ended the stream")
        got: Answered = answer
        return got

    async def close(self) -> None:
        """End the stream and its connection."""
        if self._call is not None:
            self._call.cancel()
        if self._read is not None:
            self._read.cancel()
            await asyncio.wait({self._read})
            if not self._read.cancelled():
                self._read.exception()
        await self._channel.close()

    def _broken(self, error: Any) -> StreamBroken:
        meaning, words = status_of(error)
        return StreamBroken(f"{self.to.url}: {words}", meaning)
