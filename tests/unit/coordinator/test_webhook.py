"""The webhook: alarms are posted in order, signed, until they are taken; a takeover repeats few."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from coordinator import webhook
from coordinator.election import Leadership
from coordinator.http_post import PostFailed, place, post
from coordinator.views import AlarmView
from coordinator.webhook import Webhook, delivery_id

SECRET = b"sixteen-bytes-or-more"


class Receiver:
    """An HTTP server that answers what it is told, and keeps what it took."""

    def __init__(self) -> None:
        self.answers: list[str] = []
        self.asked: list[tuple[dict[str, str], bytes]] = []
        self.taken: list[dict[str, Any]] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?x=1"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            lines = head.split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
            body = await reader.readexactly(int(headers["content-length"]))
            self.asked.append(({":": lines[0], **headers}, body))
            answer = self.answers.pop(0) if self.answers else "200 OK"
            if answer == "slow":
                await asyncio.sleep(60)
            if answer == "drop":
                return
            if answer.startswith("2"):
                self.taken.append(json.loads(body))
            more = "Location: http://127.0.0.1:1/\r\n" if answer.startswith("3") else ""
            writer.write(f"HTTP/1.1 {answer}\r\n{more}Content-Length: 0\r\n\r\n".encode())
            await writer.drain()
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def receiving(port: int = 0) -> AsyncIterator[Receiver]:
    made = Receiver()
    server = await asyncio.start_server(made.serve, "127.0.0.1", port)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()


class Led(Leadership):
    fence = 7  # type: ignore[assignment]


def alarm(name: str, since: float = 1000.0) -> AlarmView:
    return AlarmView(id=f"pool-unavailable/{name}", text=f"pool {name}", since=since)


@contextlib.asynccontextmanager
async def sending(
    url: str, *standing: AlarmView, led: Any = None, timeout_s: float = 5.0
) -> AsyncIterator[Webhook]:
    made = Webhook(
        url,
        SECRET,
        led or Led(),
        lambda: standing,
        source=lambda: "c1",
        wall_s=lambda: 5000.0,
        retry_s=(0.01, 0.05),
        timeout_s=timeout_s,
    )
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_delivery_is_signed_and_says_all(helpers: Any) -> None:
    async with receiving() as there, sending(there.url, alarm("a")) as made:
        made.alarmed("raise", alarm("a"), 1000.0)
        await helpers.until(lambda: there.taken)
    (headers, body), (told,) = there.asked[0], there.taken
    assert headers[":"] == "POST /hook?x=1 HTTP/1.1"
    assert told["event"] == headers["x-gtm-event"] == "raise"
    assert told["delivery"] == headers["x-gtm-delivery"]
    assert told["alarm"] == {
        "id": "pool-unavailable/a",
        "kind": "pool-unavailable",
        "severity": "critical",
        "text": "pool a",
        "since": 1000.0,
    }
    assert (told["standing"], told["source"]) == (["pool-unavailable/a"], "c1")
    fields = dict(part.split("=", 1) for part in headers["x-gtm-signature"].split(","))
    wanted = hmac.new(SECRET, fields["t"].encode() + b"." + body, hashlib.sha256).hexdigest()
    assert (fields["t"], fields["v1"]) == ("5000", wanted)


@pytest.mark.parametrize("trouble", ["500 No", "404 No", "302 Away", "drop", "slow"])
async def test_a_receiver_in_trouble_gets_the_same_delivery_again(
    helpers: Any, trouble: str
) -> None:
    async with receiving() as there, sending(there.url, timeout_s=0.3) as made:
        there.answers = [trouble, trouble]
        made.alarmed("raise", alarm("a"), 1000.0)
        made.alarmed("clear", alarm("a"), 1001.0)
        await helpers.until(lambda: len(there.taken) == 2)
    assert [one["event"] for one in there.taken] == ["raise", "clear"]
    ids = [headers["x-gtm-delivery"] for headers, _ in there.asked]
    assert ids[0] == ids[1] == ids[2] != ids[3]
    assert len(there.asked) == 4


async def test_a_receiver_that_is_gone_is_told_when_it_is_back(helpers: Any) -> None:
    async with receiving() as gone:
        port = gone.port
    async with sending(f"http://127.0.0.1:{port}/") as made:
        made.alarmed("raise", alarm("a"), 1000.0)
        failed = webhook.metrics.WEBHOOK_ATTEMPTS.labels("failed")
        before = failed._value.get()
        await helpers.until(lambda: failed._value.get() > before)
        async with receiving(port) as back:
            await helpers.until(lambda: back.taken)


async def test_only_the_leader_sends_and_a_new_one_repeats_what_was_raised_lately(
    helpers: Any,
) -> None:
    led = Led()
    led.__class__ = type("Follower", (Leadership,), {"fence": 0})
    lately, old = alarm("a", since=4900.0), alarm("b", since=100.0)
    async with receiving() as there, sending(there.url, lately, old, led=led) as made:
        made.alarmed("raise", lately, 4900.0)
        assert not made._waiting
        led.__class__ = Led
        made.alarmed("raise", alarm("c", since=4999.0), 4999.0)
        await helpers.until(lambda: len(there.taken) == 2)
    assert [one["alarm"]["id"] for one in there.taken] == [
        "pool-unavailable/a",
        "pool-unavailable/c",
    ]
    assert there.taken[0]["delivery"] == delivery_id("raise", lately, 4900.0)


def test_ids_are_the_same_for_the_same_event_alone() -> None:
    one = delivery_id("raise", alarm("a"), 1000.0)
    assert one == delivery_id("raise", alarm("a"), 1234.0)
    others = {
        delivery_id("clear", alarm("a"), 1000.0),
        delivery_id("raise", alarm("b"), 1000.0),
        delivery_id("raise", alarm("a", since=1001.0), 1001.0),
        delivery_id("update", alarm("a"), 1000.0),
        delivery_id("update", alarm("a"), 1001.0),
    }
    assert len({one, *others}) == 6


async def test_a_full_queue_gives_up_updates_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "MAX_WAITING", 3)
    made = Webhook("http://127.0.0.1:1/", b"", Led(), tuple, source=str, wall_s=lambda: 5000.0)
    for event, name in (("raise", "a"), ("update", "a"), ("raise", "b"), ("raise", "c")):
        made.alarmed(event, alarm(name), 1000.0)
    made.alarmed("raise", alarm("c"), 1000.0)  # waits already
    assert [(one.event, one.alarm.text) for one in made._waiting] == [
        ("raise", "pool a"),
        ("raise", "pool b"),
        ("raise", "pool c"),
    ]
    made.alarmed("raise", alarm("d"), 1000.0)
    assert [one.alarm.text for one in made._waiting] == ["pool b", "pool c", "pool d"]


async def test_what_nobody_takes_is_given_up_in_the_end(helpers: Any) -> None:
    async with receiving() as there, sending(there.url) as made:
        there.answers = ["500 No"] * 1000
        made.alarmed("raise", alarm("a"), 5000.0 - webhook.MAX_AGE_S - 1)
        await helpers.until(lambda: there.asked and not made._waiting)
    assert len(there.asked) == 1


@pytest.mark.parametrize(
    "url", ["ftp://x/", "http://", "x", "http://u:p@x/", "http://x:99999/", "http://x/#f"]
)
def test_an_url_that_cannot_be_posted_to_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        place(url)


async def test_an_endless_answer_is_given_up() -> None:
    async def babble(reader: Any, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while True:
                writer.write(b"HTTP/1.1 200 OK\r\n" if not writer.transport.is_closing() else b"")
                writer.write(b"X: " + b"y" * 8000 + b"\r\n")
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    with pytest.raises(PostFailed):
        await post(url, {}, b"{}", 5.0, None)
    server.close()


async def test_a_coordinator_posts_its_alarms(helpers: Any, tmp_path: Any) -> None:
    from gtm.memory import MemoryStore

    secret = tmp_path / "secret"
    secret.write_bytes(SECRET + b"\n")
    found: Callable[[], Any]
    async with (
        receiving() as there,
        helpers.coordinator(MemoryStore(), webhook=there.url, webhook_secret=str(secret)) as made,
    ):
        await helpers.until(lambda: made.leadership.fence)
        from coordinator.events import Troubled

        made.judge.handle(Troubled(found={"etcd-silent": "no etcd"}))
        found = lambda: [one["alarm"]["id"] for one in there.taken]  # noqa: E731
        await helpers.until(lambda: "etcd-silent" in found())
        made.judge.handle(Troubled(found={}))
        await helpers.until(lambda: there.taken[-1]["event"] == "clear")
