"""One HTTP/2 exchange (RFC 9113) of a probe over its wire, by h2."""

from __future__ import annotations

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from ._wire import Stages, Wire
from .base import Reason, failed
from .http import MAX_BODY, MAX_HEAD, MAX_INFORMATIONAL, Request, Response

MAX_BYTES = 4 * MAX_BODY
"""Bytes read in one exchange, frames of every kind included."""


async def exchange(wire: Wire, request: Request, stages: Stages) -> Response:
    """Ask and read the answer; Fault for whatever the server does wrong."""
    machine = h2.connection.H2Connection(
        h2.config.H2Configuration(client_side=True, header_encoding=None)
    )
    machine.local_settings = h2.settings.Settings(
        client=True,
        initial_values={
            h2.settings.SettingCodes.ENABLE_PUSH: 0,
            h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEAD,
            h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: MAX_BODY,
        },
    )
    machine.initiate_connection()
    machine.send_headers(
        1,
        [
            (":method", request.method),
            (":scheme", request.scheme),
            (":authority", request.authority),
            (":path", request.path),
            *request.headers,
        ],
        end_stream=not request.body,
    )
    if request.body:  # at most 16 KiB: within the first window and one frame (RFC 9113, 6.5.2)
        machine.send_data(1, request.body, end_stream=True)
    await wire.send(machine.data_to_send())
    try:
        return await _read(machine, wire, stages)
    except h2.exceptions.DenialOfServiceError as error:
        raise failed(Reason.TOO_LARGE, str(error)) from error
    except h2.exceptions.ProtocolError as error:
        raise failed(Reason.PROTOCOL, str(error) or type(error).__name__) from error


async def _read(machine: h2.connection.H2Connection, wire: Wire, stages: Stages) -> Response:
    status, headers, body = 0, [], b""
    trailers: list[tuple[bytes, bytes]] = []
    heard, total, informational = False, 0, 0
    while True:
        data = await wire.receive()
        if not data:
            raise failed(Reason.CLOSED, "in the middle" if heard else "without an answer")
        total += len(data)
        if total > MAX_BYTES:
            raise failed(Reason.TOO_LARGE, f"more than {MAX_BYTES} bytes")
        for event in machine.receive_data(data):
            if isinstance(event, h2.events.InformationalResponseReceived):
                informational += 1
                if informational > MAX_INFORMATIONAL:
                    raise failed(Reason.PROTOCOL, "too many answers of class 1xx")
            elif isinstance(event, h2.events.ResponseReceived):
                heard = True
                stages.end("first_byte", "reading the body")
                pairs = [(bytes(name), bytes(value)) for name, value in event.headers or ()]
                status = next((int(v) for k, v in pairs if k == b":status"), 0)
                headers = [(k, v) for k, v in pairs if not k.startswith(b":")]
            elif isinstance(event, h2.events.TrailersReceived):
                trailers = [(bytes(name), bytes(value)) for name, value in event.headers or ()]
            elif isinstance(event, h2.events.DataReceived):
                body += event.data or b""
                machine.acknowledge_received_data(event.flow_controlled_length or 0, 1)
            elif isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated):
                raise failed(Reason.RESET, f"HTTP/2 error {event.error_code}")
            if isinstance(event, h2.events.StreamEnded) or len(body) >= MAX_BODY:
                stages.end("body", "done")
                return Response(status, headers, body[:MAX_BODY], trailers)
        if out := machine.data_to_send():
            await wire.send(out)
