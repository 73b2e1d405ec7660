"""Small real HTTP origins on loopback addresses, for the demo and for measurements.

Each listens on its own address and can be stopped (connections are then refused), struck dumb
(connections open and nothing ever comes) and started again. They run on one thread of their own,
so that whoever asks and waits does not hold them up.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from gtm.errors import StartError

T = TypeVar("T")

PORT_TRIES = 20
"""How many ports are tried until one is free on every address."""


class Origins:
    """HTTP origins at `addresses`, all on one port: `with Origins(addresses) as origins`."""

    def __init__(self, addresses: Iterable[str]) -> None:
        self.addresses = tuple(addresses)
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._servers: dict[str, asyncio.Server] = {}
        self._dumb: set[str] = set()
        self._links: dict[str, set[asyncio.StreamWriter]] = {one: set() for one in self.addresses}

    def __enter__(self) -> Origins:
        self._thread.start()
        try:
            for left in reversed(range(PORT_TRIES)):
                try:
                    self.start(*self.addresses)
                    break
                except OSError as error:
                    self.stop(*self.addresses)
                    self.port = 0
                    if not left:
                        raise StartError(
                            f"no port is free on all of {', '.join(self.addresses)} "
                            f"({error.strerror}): the whole of 127.0.0.0/8 must be loopback"
                        ) from None
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(*self.addresses)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def start(self, *addresses: str) -> None:
        """Let the origins at `addresses` answer; OSError where the port is taken."""
        self._do(self._start(addresses))

    def stop(self, *addresses: str) -> None:
        """Let the origins at `addresses` refuse connections; open ones are broken off."""
        self._do(self._stop(addresses))

    def mute(self, *addresses: str) -> None:
        """Let the origins at `addresses` accept connections and never answer."""
        self._dumb |= set(addresses)

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _start(self, addresses: Iterable[str]) -> None:
        for address in addresses:
            self._dumb.discard(address)
            if address in self._servers:
                continue
            links = self._links[address]

            async def serve(
                reader: asyncio.StreamReader,
                writer: asyncio.StreamWriter,
                address: str = address,
                links: set[asyncio.StreamWriter] = links,
            ) -> None:
                links.add(writer)
                try:
                    await reader.readuntil(b"\r\n\r\n")
                    if address in self._dumb:
                        await reader.read()  # until the other side gives up
                    else:
                        await _answer(writer, address)
                except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                    pass
                finally:
                    links.discard(writer)
                    writer.close()

            server = await asyncio.start_server(serve, address, self.port)
            self._servers[address] = server
            self.port = self.port or server.sockets[0].getsockname()[1]

    async def _stop(self, addresses: Iterable[str]) -> None:
        for address in addresses:
            server = self._servers.pop(address, None)
            if server is not None:
                server.close()
            for writer in tuple(self._links[address]):
                writer.transport.abort()


async def _answer(writer: asyncio.StreamWriter, address: str) -> None:
    body = f"origin {address}\n".encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
