"""One HTTP/1.1 exchange (RFC 9112) of a probe over its wire.

An ordinary answer is read here at once: a head that came whole and holds nothing but plain fields,
with one Content-Length that is within the bound. Whatever is not plainly so is read by h11 from its
first byte on, and h11 alone decides what is wrong with an answer.
"""

from __future__ import annotations

import re

from ._wire import Stages, Wire
from .base import Reason, failed
from .http import MAX_BODY, MAX_HEAD, MAX_INFORMATIONAL, Request, Response

_STATUS = re.compile(rb"HTTP/1\.1 ([2-5][0-9][0-9]) [ -~]*")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*((?:[!-~](?:[ -~]*[!-~])?)?)[ \t]*")
_LENGTH = re.compile(rb"[0-9]{1,6}")
_BODILESS = frozenset((204, 304))


async def exchange(wire: Wire, request: Request, stages: Stages) -> Response:
    """Ask and read the answer; Fault for whatever the server does wrong."""
    await wire.send(written(request))
    data = await wire.receive()
    if not data:
        raise failed(Reason.CLOSED, "without an answer")
    stages.end("first_byte", "reading the head")
    if request.method == "HEAD" or (found := ordinary(data)) is None:
        return await _by_h11(wire, request, stages, data)
    status, headers, start, length = found
    stages.now = "reading the body"
    while len(data) < start + length:
        more = await wire.receive()
        if not more:
            return await _by_h11(wire, request, stages, data)
        data += more
    stages.end("body", "done")
    return Response(status, headers, data[start : start + length])


def written(request: Request) -> bytes:
    """A request as it goes out; every part was validated with the settings or made here."""
    fields = "".join(f"{name}: {value}\r\n" for name, value in request.headers)
    head = (
        f"{request.method} {request.path} HTTP/1.1\r\nhost: {request.authority}\r\n"
        f"{fields}connection: close\r\n\r\n"
    )
    return head.encode() + request.body


def ordinary(data: bytes) -> tuple[int, list[tuple[bytes, bytes]], int, int] | None:
    """Status, fields, where the body begins and its length; None where `data` is not ordinary."""
    end = data.find(b"\r\n\r\n", 0, MAX_HEAD)
    if end < 0:
        return None
    first, *lines = data[:end].split(b"\r\n")
    status = _STATUS.fullmatch(first)
    if status is None or int(status[1]) in _BODILESS:
        return None
    headers = []
    length = b""
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            return None
        name = field[1].lower()
        if name == b"transfer-encoding" or (name == b"content-length" and length):
            return None
        if name == b"content-length":
            length = field[2]
        headers.append((name, field[2]))
    if not _LENGTH.fullmatch(length) or int(length) > MAX_BODY:
        return None
    return int(status[1]), headers, end + 4, int(length)


async def _by_h11(wire: Wire, request: Request, stages: Stages, data: bytes) -> Response:
    """Read an answer that began with `data` by h11."""
    import h11

    machine = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
    machine.send(
        h11.Request(
            method=request.method,
            target=request.path,
            headers=[("host", request.authority), *request.headers, ("connection", "close")],
        )
    )
    if request.body:
        machine.send(h11.Data(data=request.body))
    machine.send(h11.EndOfMessage())
    machine.receive_data(data)
    informational = 0
    response: h11.Response | None = None
    body = b""
    try:
        while True:
            event = machine.next_event()
            if event is h11.NEED_DATA:
                machine.receive_data(await wire.receive())
            elif isinstance(event, h11.InformationalResponse):
                informational += 1
                if informational > MAX_INFORMATIONAL:
                    text = f"more than {MAX_INFORMATIONAL} answers of class 1xx"
                    raise failed(Reason.PROTOCOL, text)
            elif isinstance(event, h11.Response):
                response = event
                stages.now = "reading the body"
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) >= MAX_BODY:
                    break
            else:  # EndOfMessage; PAUSED and ConnectionClosed come after it only
                break
    except h11.RemoteProtocolError as error:
        reason = Reason.TOO_LARGE if error.error_status_hint == 431 else Reason.PROTOCOL
        raise failed(reason, str(error)) from error
    stages.end("body", "done")
    if response is None:
        raise failed(Reason.CLOSED, "without an answer")
    return Response(response.status_code, list(response.headers), bytes(body[:MAX_BODY]))
