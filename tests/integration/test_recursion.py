"""The vendor's picture: clients ask unbound, which follows delegations and a CNAME down to us."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import dns.edns
import dns.message
import dns.query
import dns.rcode
import pytest
import yaml
from msgspec.structs import replace

from ctl import recursion
from ctl.demo_recursion import moves
from ctl.digs import Question, ask, in_order, poll
from ctl.origins import Origins
from ctl.recursion import Recursion, World
from ctl.running import Running
from ctl.stage import ACCESS, NAME, TTL_S, A, B, C, Expected, configuration

pytestmark = pytest.mark.integration

EAST, WEST, BACK = "127.77.1.0/24", "127.77.2.0/24", "127.77.3.0/24"
EXPECTED = {EAST: A, WEST: B, BACK: C}
DEADLINE_S = 20.0


class Picture:
    """One gtm up, its origins and an unbound above it."""

    def __init__(self, origins: Origins, running: Running, stranger: Recursion) -> None:
        self.origins, self.running, self.stranger = origins, running, stranger
        self.server = str(stranger.world.recursive)

    def asked(self, client: str = "", name: str = NAME, qtype: str = "A"):
        return ask(self.server, Question(name, client, qtype, recurse=True))

    def ours(self, client: str) -> list[str]:
        return in_order(ask(self.running.dns[0], Question(NAME, client)).addresses)


def no_port_53(world: World) -> World:
    """The same world for a machine where port 53 is not to be had."""
    ports = iter(recursion.free_port(count=2) for _ in range(5))
    there = {
        name: recursion.Place("127.0.0.1", next(ports)) for name in world.__struct_fields__[1:]
    }
    return replace(world, delegated=False, **there)


@pytest.fixture(scope="module", params=["delegated", "told"])
def picture(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Picture]:
    if not recursion.program():
        pytest.skip("unbound is not installed (Debian package unbound)")
    world = World.found()
    if request.param == "told":
        world = no_port_53(world)
    elif not world.delegated:
        pytest.skip("port 53 can't be had on 127.53.0.0/16, so no delegation can lead to us")
    folder = tmp_path_factory.mktemp("recursion")
    with Origins((*A, *B, *C)) as origins:
        config = configuration(origins.port, world.ours.host)
        tiers = [[{"pools": [f"pool-{first}"]}, {"pools": ["pool-c"]}] for first in "abc"]
        config["instances"]["shop"]["rules"] = [
            {"name": "east", "lines": [f"network:{EAST}"], "tiers": tiers[0]},
            {"name": "west", "lines": [f"network:{WEST}"], "tiers": tiers[1]},
            {"name": "world", "lines": ["default"], "tiers": tiers[2][:1]},
        ]
        path = folder / "picture.yaml"
        path.write_text(yaml.safe_dump(config))
        with (
            Running(folder, config=path, regions=("r1",), at=str(world.ours)) as running,
            Recursion(folder / "recursion", world, NAME, ACCESS) as stranger,
        ):
            yield Picture(origins, running, stranger)


def test_the_cname_is_followed_to_the_right_address_by_the_network_that_the_client_gives(
    picture: Picture,
) -> None:
    for client, addresses in EXPECTED.items():
        answer = picture.asked(client)
        assert (answer.rcode, answer.through) == ("NOERROR", (ACCESS,))
        assert in_order(answer.addresses) == list(addresses)


def test_a_client_that_gives_no_network_is_placed_by_its_address(picture: Picture) -> None:
    host, _, port = picture.server.rpartition(":")
    for client, addresses in EXPECTED.items():
        query = dns.message.make_query(NAME, "A", use_edns=0)
        source = client.replace(".0/24", ".9")
        reply = dns.query.udp(query, host, port=int(port), source=source, timeout=5)
        assert reply.rcode() == dns.rcode.NOERROR
        assert in_order(rdata.address for rdata in reply.answer[-1]) == list(addresses)


def test_the_root_and_com_are_asked_for_their_own_and_delegations_lead_to_us(
    picture: Picture,
) -> None:
    assert picture.asked(EAST).rcode == "NOERROR"
    assert f"{NAME}. A" in picture.stranger.asked("example.com")
    for zone in ("", "com", "example.com"):  # no server above ours was asked for the access name
        assert not any(ACCESS in question for question in picture.stranger.asked(zone))
    if picture.stranger.world.delegated:
        assert "com. A" in picture.stranger.asked("")  # minimised names (RFC 9156)
        assert "gtm-000.test. A" in picture.stranger.asked("")
        assert "example.com. A" in picture.stranger.asked("com")


def test_names_that_we_do_not_have_are_told_apart(picture: Picture) -> None:
    assert picture.asked(name=ACCESS, qtype="TXT").rcode == "NOERROR"
    assert picture.asked(name="nothing.gtm-000.test").rcode == "NXDOMAIN"
    assert picture.asked(name="ns1.gtm-000.test").addresses == {picture.stranger.world.ours.host}


def test_an_answer_for_one_network_is_not_given_to_another(picture: Picture) -> None:
    """What unbound keeps of one client's place must not reach another's, in any order."""
    for client in (EAST, WEST, EAST, BACK, WEST, EAST):
        assert in_order(picture.asked(client).addresses) == list(EXPECTED[client])


def test_an_answer_is_kept_for_its_ttl_and_then_moves(picture: Picture) -> None:
    fresh = lambda: picture.asked(EAST).ttl == TTL_S  # noqa: E731
    assert poll(fresh, DEADLINE_S) is not None
    kept_at = time.monotonic()
    picture.origins.stop(*A)
    try:
        assert poll(lambda: picture.ours(EAST) == list(C), DEADLINE_S) is not None
        ours_at = time.monotonic()
        kept = picture.asked(EAST)
        if time.monotonic() - kept_at < TTL_S - 1:  # else a slow machine: nothing to see
            assert in_order(kept.addresses) == list(A)
            assert kept.ttl < TTL_S
        moved = lambda: in_order(picture.asked(EAST).addresses) == list(C)  # noqa: E731
        assert poll(moved, 2 * TTL_S + 2) is not None
        assert time.monotonic() - ours_at < 2 * TTL_S
        assert in_order(picture.asked(WEST).addresses) == list(B)
    finally:
        picture.origins.start(*A)
    back = lambda: in_order(picture.asked(EAST).addresses) == list(A)  # noqa: E731
    assert poll(back, DEADLINE_S + TTL_S) is not None


def test_the_demo_says_in_a_line_why_its_last_step_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = Expected((), ())
    moves(None, tmp_path, {}, lambda: 0.0, nothing, nothing)
    assert "left out    it needs unbound on the PATH" in capsys.readouterr().out
    monkeypatch.setattr(recursion, "program", lambda: "/bin/false")
    moves(World.found(), tmp_path, {}, lambda: 0.0, nothing, nothing)
    assert "left out    unbound does not run here: " in capsys.readouterr().out
