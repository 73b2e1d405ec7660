"""The HTTP door and the logs."""

import asyncio
import json
import logging

import pytest
from prometheus_client import CollectorRegistry, Counter

from gtm import telemetry
from gtm.errors import StartError


async def ask(port: int, text: bytes) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]) if head else 0, body


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("gtm_test_things", "Things.", registry=registry).inc(3)
    return registry


async def test_the_door_shows_metrics_liveness_and_readiness(registry: CollectorRegistry) -> None:
    reason = ""
    door = telemetry.HttpDoor(lambda: reason, registry)
    port = await door.start("127.0.0.1", 0)
    try:
        get = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"
        assert (await ask(port, get % b"/livez")) == (200, b"ok\n")
        assert (await ask(port, get % b"/readyz"))[0] == 200
        reason = "no table yet"
        assert (await ask(port, get % b"/readyz")) == (503, b"not ready: no table yet\n")
        status, body = await ask(port, get % b"/metrics?x=1")
        assert (status, b"gtm_test_things_total 3.0" in body) == (200, True)
        assert (await ask(port, get % b"/"))[0] == 404
        assert (await ask(port, b"HEAD /livez HTTP/1.1\r\nHost: x\r\n\r\n")) == (200, b"")
        assert (await ask(port, b"nonsense\r\n\r\n"))[0] == 0
    finally:
        await door.close()


async def test_connections_beyond_the_bound_are_closed_at_once(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry, "MAX_CONNECTIONS", 2)
    door = telemetry.HttpDoor(lambda: "", registry)
    port = await door.start("127.0.0.1", 0)
    held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
    try:
        deadline = asyncio.get_running_loop().time() + 5
        while door._open < 2 and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
    finally:
        for _, writer in held:
            writer.close()
        await door.close()


async def test_a_taken_port_is_one_sentence(registry: CollectorRegistry) -> None:
    first = telemetry.HttpDoor(lambda: "", registry)
    port = await first.start("127.0.0.1", 0)
    try:
        with pytest.raises(StartError, match=f"cannot listen on 127.0.0.1:{port} for HTTP"):
            await telemetry.HttpDoor(lambda: "", registry).start("127.0.0.1", port)
    finally:
        await first.close()


def test_a_transition_is_one_json_line_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        telemetry.setup()
        telemetry.transition(logging.getLogger("resolver"), "table swapped", revision=7)
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    entry = json.loads(capsys.readouterr().err)
    assert (entry["part"], entry["event"], entry["revision"]) == ("resolver", "table swapped", 7)
