"""One HTTP/1.1 exchange (RFC 9112) of a probe over its wire, by h11."""

from __future__ import annotations

import h11

from ._wire import Stages, Wire
from .base import Reason, failed
from .http import MAX_BODY, MAX_HEAD, MAX_INFORMATIONAL, Request, Response


async def exchange(wire: Wire, request: Request, stages: Stages) -> Response:
    """Ask and read the answer; Fault for whatever the server does wrong."""
    machine = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
    head = h11.Request(
        method=request.method,
        target=request.path,
        headers=[("host", request.authority), *request.headers, ("connection", "close")],
    )
    out = machine.send(head) or b""
    if request.body:
        out += machine.send(h11.Data(data=request.body)) or b""
    out += machine.send(h11.EndOfMessage()) or b""
    await wire.send(out)
    try:
        return await _read(machine, wire, stages)
    except h11.RemoteProtocolError as error:
        reason = Reason.TOO_LARGE if error.error_status_hint == 431 else Reason.PROTOCOL
        raise failed(reason, str(error)) from error


async def _read(machine: h11.Connection, wire: Wire, stages: Stages) -> Response:
    heard = False
    informational = 0
    response: h11.Response | None = None
    body = b""
    while True:
        event = machine.next_event()
        if event is h11.NEED_DATA:
            data = await wire.receive()
            if not heard:
                if not data:
                    raise failed(Reason.CLOSED, "without an answer")
                heard = True
                stages.end("first_byte", "reading the head")
            machine.receive_data(data)
        elif isinstance(event, h11.InformationalResponse):
            informational += 1
            if informational > MAX_INFORMATIONAL:
                raise failed(Reason.PROTOCOL, f"more than {MAX_INFORMATIONAL} answers of class 1xx")
        elif isinstance(event, h11.Response):
            response = event
            stages.now = "reading the body"
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) >= MAX_BODY:
                break
        else:  # EndOfMessage; PAUSED and ConnectionClosed come after it only
            break
    stages.end("body", "done")
    if response is None:
        raise failed(Reason.CLOSED, "without an answer")
    return Response(response.status_code, list(response.headers), bytes(body[:MAX_BODY]))
