"""`gtm up` with members that are names: resolved, probed, answered as CNAME or as addresses."""

from __future__ import annotations

import asyncio
from pathlib import Path

import dnslib
import pytest

from ctl.digs import poll
from ctl.origins import Origins
from ctl.running import Running
from tests.name_server import name_server

pytestmark = pytest.mark.integration

DEADLINE_S = 30.0
CONFIG = """\
zones: {{gtm.example.net: {{nameservers: [ns1.example.org]}}}}
regions: {{north: {{}}}}
checks:
  web: {{type: http, port: {port}, interval: 1s, timeout: 500ms}}
pools:
  names:
    type: domain
    checks: [web]
    steering: sequence
    addresses: [{{value: one.test}}, {{value: two.test}}]
  flat:
    type: domain
    flatten: true
    checks: [web]
    addresses: [{{value: one.test}}, {{value: two.test}}]
instances:
  shop:
    id: gtm00000001
    rules: [{{name: all, lines: [default], tiers: [{{pools: [names]}}]}}]
  flat:
    id: gtm00000002
    rules: [{{name: all, lines: [default], tiers: [{{pools: [flat]}}]}}]
"""


def asked(running: Running, name: str, kind: str) -> list[str]:
    """The answer of the first resolver as "TYPE data", sorted."""
    host, _, port = running.dns[0].rpartition(":")
    query = dnslib.DNSRecord.question(f"{name}.gtm.example.net", kind)
    reply = dnslib.DNSRecord.parse(query.send(host, int(port), timeout=2))
    return sorted(f"{dnslib.QTYPE[one.rtype]} {one.rdata}" for one in reply.rr)


async def test_names_are_probed_and_answered_as_aliases_and_as_addresses(tmp_path: Path) -> None:
    both = ("127.11.7.1", "127.11.7.2")
    async with name_server() as server:
        server.rows |= {"one.test": [f"A {both[0]}"], "two.test": [f"A {both[1]}"]}
        await asyncio.to_thread(scene, tmp_path, server.address, both)


def scene(folder: Path, server: str, both: tuple[str, str]) -> None:
    """Both origins up, then the first one away, then back."""
    one, two = both
    with Origins(both) as origins:
        config = folder / "mine.yaml"
        config.write_text(CONFIG.format(port=origins.port))
        more = [f"--resolver={server}"]
        with Running(folder, config=config, resolvers=1, more=more) as running:
            for kind in ("A", "AAAA", "MX"):
                assert asked(running, "gtm00000001", kind) == ["CNAME one.test."]
            assert asked(running, "gtm00000002", "A") == [f"A {one}", f"A {two}"]
            assert asked(running, "gtm00000002", "AAAA") == []
            origins.stop(one)
            for name, answer in (("gtm00000001", "CNAME two.test."), ("gtm00000002", f"A {two}")):
                become(running, name, answer)
            origins.start(one)
            become(running, "gtm00000001", "CNAME one.test.")


def become(running: Running, name: str, answer: str) -> None:
    """Wait until `answer` alone is what is told."""
    assert poll(lambda: asked(running, name, "A") == [answer], DEADLINE_S) is not None
