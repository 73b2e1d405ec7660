"""`gtm up` posts its alarms to a webhook over HTTPS, signed, when they come and when they go."""

from __future__ import annotations

import hashlib
import hmac
import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ctl.digs import poll
from ctl.origins import Origins
from ctl.running import Running
from tests.certificates import Authority

pytestmark = pytest.mark.integration

SECRET = b"sixteen-bytes-or-more"
ALARM = "pool-unavailable/only"
DEADLINE_S = 30.0
CONFIG = """\
zones: {{gtm.example.net: {{nameservers: [ns1.example.org]}}}}
checks: {{web: {{type: http, port: {port}, interval: 1s, timeout: 500ms, fall: 2, rise: 1}}}}
pools: {{only: {{type: ipv4, checks: [web], addresses: [{{value: 127.12.1.1}}]}}}}
instances:
  shop:
    id: gtm00000001
    rules: [{{name: all, lines: [default], tiers: [{{pools: [only]}}]}}]
"""


class Receiver:
    """An HTTPS server on loopback that takes every delivery; `taken` are those with a good sign."""

    def __init__(self, authority: Authority) -> None:
        self.taken: list[dict[str, Any]] = []
        self.unsigned: list[str] = []
        taken, unsigned = self.taken, self.unsigned

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                told = self.headers["X-Gtm-Signature"] or ""
                fields = dict(part.partition("=")[::2] for part in told.split(","))
                signed = fields.get("t", "").encode() + b"." + body
                wanted = hmac.new(SECRET, signed, hashlib.sha256).hexdigest()
                if hmac.compare_digest(wanted, fields.get("v1", "")):
                    taken.append(json.loads(body))
                else:
                    unsigned.append(told)
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"https://127.0.0.1:{self.server.server_port}/alarms"
        tls = authority.issue("gtm://coordinator/receiver", "127.0.0.1")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.cert, tls.key)
        self.server.socket = context.wrap_socket(
            self.server.socket, server_side=True, do_handshake_on_connect=False
        )

    def events(self) -> list[str]:
        """What became of the alarm, in the order in which it came."""
        return [one["event"] for one in self.taken if one["alarm"]["id"] == ALARM]


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    made = Receiver(Authority(tmp_path / "authority"))
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()
        thread.join()


def test_an_alarm_is_posted_when_it_comes_and_when_it_goes(
    receiver: Receiver, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET + b"\n")
    config = tmp_path / "mine.yaml"
    more = [
        f"--webhook={receiver.url}",
        f"--webhook-secret={secret}",
        f"--webhook-ca={tmp_path / 'authority' / 'ca.pem'}",
    ]
    with Origins(["127.12.1.1"]) as origins:
        config.write_text(CONFIG.format(port=origins.port))
        with Running(tmp_path / "up", config=config, resolvers=1, more=more):
            assert ALARM not in [one["alarm"]["id"] for one in receiver.taken]
            origins.stop("127.12.1.1")
            assert poll(lambda: "raise" in receiver.events(), DEADLINE_S), receiver.taken
            raised = next(one for one in receiver.taken if one["alarm"]["id"] == ALARM)
            assert raised["source"] == "coordinator"
            assert ALARM in raised["standing"]
            origins.start("127.12.1.1")
            assert poll(lambda: "clear" in receiver.events(), DEADLINE_S), receiver.taken
    events = receiver.events()
    assert (events[0], events[-1]) == ("raise", "clear")
    assert receiver.unsigned == []
