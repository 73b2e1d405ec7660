"""Logs by transition, metrics, and the small HTTP door that shows them. Decides nothing.

Metrics are prometheus-client's, named `gtm_<part>_<what>_<unit>`; HTTP is h11's. `/metrics`,
`/livez` (the loop turns) and `/readyz` (200 or 503 with the reason).
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import h11
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    disable_created_metrics,
    generate_latest,
)

from gtm.errors import StartError

MAX_CONNECTIONS = 64
"""HTTP connections at once; further ones are closed at once."""
REQUEST_TIMEOUT_S = 5.0
"""For a whole request on the HTTP door."""

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each counter


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "part": record.name,
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["cause"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


class _Plain(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        clock = datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3]
        fields = " ".join(f"{key}={value}" for key, value in getattr(record, "fields", {}).items())
        level = "" if record.levelno <= logging.INFO else f"{record.levelname} "
        line = f"{clock} {record.name}: {level}{record.getMessage()} {fields}".rstrip()
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def setup(level: str = "INFO") -> None:
    """Log to stderr: JSON lines off a terminal, plain ones on it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Plain() if sys.stderr.isatty() else _Json())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)


def transition(
    log: logging.Logger, event: str, /, level: int = logging.INFO, **fields: Any
) -> None:
    """Log one transition with its reasons as fields."""
    log.log(level, event, extra={"fields": fields})


class HttpDoor:
    """Serves `/metrics`, `/livez` and `/readyz` on one address.

    `ready()` returns "" when the part is ready, else the reason in words. `pages` has further
    targets and what gives their JSON.
    """

    def __init__(
        self,
        ready: Callable[[], str],
        registry: CollectorRegistry = REGISTRY,
        pages: Mapping[str, Callable[[], Any]] | None = None,
    ) -> None:
        self._ready = ready
        self._registry = registry
        self._pages = pages or {}
        self._server: asyncio.Server | None = None
        self._open = 0

    async def start(self, host: str, port: int, given: socket.socket | None = None) -> int:
        """Listen, on the bound socket `given` if any; returns the port. StartError: it is taken."""
        try:
            if given is not None:
                self._server = await asyncio.start_server(self._serve, sock=given)
            else:
                self._server = await asyncio.start_server(self._serve, host, port)
        except OSError as error:
            raise StartError(
                f"cannot listen on {host}:{port} for HTTP: {error.strerror}; choose another port"
            ) from error
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The descriptors of the sockets that it listens on."""
        return tuple(one.fileno() for one in self._server.sockets) if self._server else ()

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    def _answer(self, target: str) -> tuple[int, bytes, bytes]:
        path = target.partition("?")[0]
        if path in self._pages:
            return 200, b"application/json", json.dumps(self._pages[path]()).encode() + b"\n"
        match path:
            case "/metrics":
                return 200, CONTENT_TYPE_LATEST.encode(), generate_latest(self._registry)
            case "/livez":
                return 200, b"text/plain", b"ok\n"
            case "/readyz":
                reason = self._ready()
                body = f"not ready: {reason}\n" if reason else "ok\n"
                return (503 if reason else 200), b"text/plain; charset=utf-8", body.encode()
        here = ", ".join(("/metrics", "/livez", *self._pages))
        return 404, b"text/plain", f"only {here} and /readyz are here\n".encode()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= MAX_CONNECTIONS:
                async with asyncio.timeout(REQUEST_TIMEOUT_S):
                    await self._one(reader, writer)
        except (TimeoutError, OSError, h11.ProtocolError):
            pass
        finally:
            self._open -= 1
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER)
        request: h11.Request | None = None
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(4096))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
                break
        if request is None:
            return
        status, kind, body = self._answer(request.target.decode("ascii", "replace"))
        headers = [
            (b"content-type", kind),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        for out in (
            h11.Response(status_code=status, headers=headers),
            h11.Data(data=b"" if request.method == b"HEAD" else body),
            h11.EndOfMessage(),
        ):
            writer.write(connection.send(out) or b"")
        await writer.drain()
