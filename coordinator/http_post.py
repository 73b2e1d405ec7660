"""One POST over HTTP/1.1, in time, to the place it was given; redirects are never followed.

Opens a connection for each request: deliveries are rare. Names and deadlines come from the caller.
"""

from __future__ import annotations

import asyncio
import ssl
from urllib.parse import SplitResult, urlsplit

import h11

MAX_ANSWER = 65_536
"""Bytes of an answer that are read; what it says beyond its status does not matter."""


class PostFailed(Exception):
    """The request was not taken; one sentence without secrets."""


def place(url: str) -> SplitResult:
    """`url` in parts. ValueError where it is no http or https URL, or names a user."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("is no http:// or https:// URL")
    if parts.username is not None or parts.fragment:
        raise ValueError("must not name a user, nor a fragment")
    _ = parts.port  # ValueError beyond 65535
    return parts


async def post(
    url: str, headers: dict[str, str], body: bytes, timeout_s: float, trust: ssl.SSLContext | None
) -> int:
    """Send `body`; the status, which is 2xx. Raises PostFailed, also after `timeout_s`."""
    parts = place(url)
    try:
        async with asyncio.timeout(timeout_s):
            status = await _exchange(parts, headers, body, trust)
    except TimeoutError:
        raise PostFailed(f"no answer within {timeout_s:g} s") from None
    except (OSError, h11.ProtocolError) as error:
        raise PostFailed(str(error) or type(error).__name__) from None
    if 300 <= status < 400:
        raise PostFailed(f"status {status}: redirects are not followed")
    if not 200 <= status < 300:
        raise PostFailed(f"status {status}")
    return status


async def _exchange(
    parts: SplitResult, headers: dict[str, str], body: bytes, trust: ssl.SSLContext | None
) -> int:
    host = parts.hostname or ""
    secure = parts.scheme == "https"
    reader, writer = await asyncio.open_connection(
        host, parts.port or (443 if secure else 80), ssl=trust if secure else None
    )
    try:
        link = h11.Connection(h11.CLIENT)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        fixed = {
            "Host": parts.netloc,
            "Content-Length": str(len(body)),
            "Connection": "close",
        }
        request = h11.Request(
            method="POST", target=target, headers=list({**fixed, **headers}.items())
        )
        for part in (request, h11.Data(body), h11.EndOfMessage()):
            writer.write(link.send(part) or b"")
        await writer.drain()
        read = 0
        while True:
            event = link.next_event()
            if isinstance(event, h11.Response):
                return int(event.status_code)
            if event is h11.NEED_DATA:
                data = await reader.read(MAX_ANSWER)
                read += len(data)
                if read > MAX_ANSWER:
                    raise PostFailed("the answer's head is too long")
                link.receive_data(data)
            elif isinstance(event, h11.ConnectionClosed):
                raise PostFailed("the connection ended without an answer")
    finally:
        writer.close()
