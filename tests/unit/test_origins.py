"""The demo's origins: they answer, refuse when stopped, fall silent when muted, and come back."""

from __future__ import annotations

import contextlib
import socket

import pytest

from ctl.origins import Origins

ONE, OTHER = "127.12.1.1", "127.12.1.2"


def ask(address: str, port: int, timeout_s: float = 5.0) -> bytes:
    with socket.create_connection((address, port), timeout_s) as link:
        link.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        parts = []
        while part := link.recv(4096):
            parts.append(part)
        return b"".join(parts)


def test_an_origin_is_stopped_muted_and_started_without_touching_the_others() -> None:
    with Origins((ONE, OTHER)) as origins:
        assert ask(ONE, origins.port).endswith(b"origin 127.12.1.1\n")
        origins.stop(ONE)
        with pytest.raises(ConnectionRefusedError):
            ask(ONE, origins.port)
        origins.mute(OTHER)
        with pytest.raises(TimeoutError):
            ask(OTHER, origins.port, 0.2)
        origins.start(ONE, OTHER)
        assert ask(ONE, origins.port).startswith(b"HTTP/1.1 200 OK\r\n")
        assert ask(OTHER, origins.port).endswith(b"origin 127.12.1.2\n")


def test_an_open_connection_to_a_stopped_origin_is_broken_off() -> None:
    with Origins((ONE,)) as origins, socket.create_connection((ONE, origins.port), 5) as link:
        link.sendall(b"GET /")
        ask(ONE, origins.port)  # by now the first connection is served, too
        origins.stop(ONE)
        with contextlib.suppress(ConnectionResetError):
            assert link.recv(1) == b""
