"""What `gtm explain` says: the path, who is in, who is out and why."""

import json
from typing import Any

import pytest

from ctl.explain import explain
from gtm import codec
from gtm.model import Instance, Record
from gtm.ports import Question
from gtm.state import Member, PoolState, StoredZone, Why
from gtm.view import View
from resolver.place import Place

PLACES = {
    b"\x01": Place(continent="AS", country="CN", asn=4134, country_leaf=8, asn_leaf=16),
    b"\x08": Place(continent="NA", country="US", country_leaf=9),
}


class Atlas:
    def find(self, packed: bytes) -> Place:
        return PLACES.get(packed[:1], Place(country_leaf=3))


def pool(family: str, *members: tuple[str, Why]) -> PoolState:
    return PoolState(
        type=family,  # type: ignore[arg-type]
        members=tuple(
            Member(value=value, why=why, answered=why in IN, counted=why in IN)
            for value, why in members
        ),
    )


IN = {"up", "online", "unmonitored", "unknown_as_up"}
RULES = [
    {"name": "mainland", "lines": ["country:CN"], "tiers": [{"pools": ["a"]}, {"pools": ["c"]}]},
    {"name": "world", "lines": ["default"], "tiers": [{"pools": ["b"]}, {"pools": ["c"]}]},
]


def view(**pools: PoolState) -> View:
    shop = {
        "id": "gtm00000001", "zone": "z.test", "domain": "www.example.com", "ttl": "30s",
        "rules": RULES,
    }  # fmt: skip
    off = {"id": "gtm00000002", "zone": "z.test", "enabled": False, "rules": RULES}
    records = (
        Record(name="mail", type="MX", data=("10 mx.example.com.",)),
        Record(name="www", type="CNAME", data=("gtm00000001",)),
    )
    return View(
        revision=7,
        zones={"z.test": StoredZone(nameservers=("ns.example.net",))},
        records={"z.test": {"-": records}},
        instances={
            "shop": codec.convert(shop, Instance),
            "off": codec.convert(off, Instance),
        },
        pools=pools,
    )


def ask(view: View, name: str, client: str = "", qtype: str = "A") -> dict[str, Any]:
    told: dict[str, Any] = json.loads(
        explain(view, Question(name=name, qtype=qtype, client=client), Atlas())
    )
    return told


HEALTHY = {
    "a": pool("ipv4", ("192.0.2.1", "up"), ("192.0.2.2", "down"), ("192.0.2.3", "offline")),
    "b": pool("ipv4", ("192.0.2.11", "up")),
    "c": pool("ipv4", ("192.0.2.21", "up")),
}


def test_the_path_names_line_rule_tier_and_everybody_who_is_out() -> None:
    told = ask(view(**HEALTHY), "gtm00000001.z.test", "1.2.3.4")
    assert (told["instance"], told["line"], told["rule"], told["tier"], told["pools"]) == (
        "shop", "country:CN", "mainland", 1, ["a"],
    )  # fmt: skip
    assert {one["address"]: (one["in"], one["why"]) for one in told["candidates"]} == {
        "192.0.2.1": (True, "up"),
        "192.0.2.2": (False, "judged down"),
        "192.0.2.3": (False, "mode offline: always out"),
        "192.0.2.21": (False, "up; tier 1 serves"),
    }
    assert (told["possible_answers"], told["ttl"], told["scope"]) == ([["192.0.2.1"]], 30, 8)
    assert told["revision"] == 7


@pytest.mark.parametrize(
    "name", ["shop", "www.example.com", "WWW.example.com.", "gtm00000001.z.test", "www.z.test"]
)
def test_an_instance_is_found_by_every_name_that_people_use(name: str) -> None:
    assert ask(view(**HEALTHY), name, "8.8.8.8")["possible_answers"] == [["192.0.2.11"]]


def test_a_failed_tier_is_said_and_the_next_one_serves() -> None:
    pools = HEALTHY | {"a": pool("ipv4", ("192.0.2.1", "down"))}
    told = ask(view(**pools), "shop", "1.2.3.4")
    assert (told["tier"], told["possible_answers"]) == (2, [["192.0.2.21"]])
    assert "tier 1 does not serve: pool a has 0 of 1 up, 1 needed" in told["path"]


def test_all_down_says_what_is_answered_and_why() -> None:
    pools = {name: pool("ipv4", (f"192.0.2.{n}", "down")) for n, name in enumerate("abc")}
    told = ask(view(**pools), "shop", "8.8.8.8")
    assert (told["tier"], told["possible_answers"]) == (None, [["192.0.2.1"]])
    assert "when_all_down lowest_ordinal" in told["path"][-1]
    assert told["candidates"][0]["why"] == "judged down, answered because all is down"


def test_a_pool_that_was_never_published_and_a_family_without_pools() -> None:
    told = ask(view(), "shop", "8.8.8.8")
    assert "never published" in told["path"][-1]
    told = ask(view(**HEALTHY), "shop", "8.8.8.8", "AAAA")
    assert told["possible_answers"] == [[]]
    assert "no tier has a pool of this family" in told["path"][-1]


def test_an_instance_that_is_switched_off_says_so() -> None:
    assert "NXDOMAIN" in ask(view(**HEALTHY), "off")["path"][-1]


def test_static_names_show_their_data() -> None:
    told = ask(view(**HEALTHY), "mail.z.test", qtype="MX")
    assert told["possible_answers"] == [["10 mx.example.com."]]
    assert "empty answer" in ask(view(**HEALTHY), "mail.z.test", qtype="TXT")["path"][-1]
    assert "NXDOMAIN" in ask(view(**HEALTHY), "nothing.z.test", qtype="TXT")["path"][-1]


def test_a_name_that_nobody_has_is_a_lookup_error_and_a_bad_client_a_value_error() -> None:
    with pytest.raises(LookupError, match=r"nothing is called other\.test"):
        ask(view(**HEALTHY), "other.test")
    with pytest.raises(ValueError, match="no IP address"):
        ask(view(**HEALTHY), "shop", "here")
