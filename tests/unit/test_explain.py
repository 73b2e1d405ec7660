"""What `gtm explain` says: the path, who is in, who is out and why."""

import json
from typing import Any

import pytest
from msgspec.structs import replace

from ctl.explain import explain
from gtm import codec
from gtm.model import Instance, Record
from gtm.ports import Question
from gtm.state import Member, PoolState, StoredZone, Why
from gtm.view import View
from resolver.place import Place, Unplaced
from tests.worlds import geography, instance, prefix_of, routes, world

PLACES = {
    b"\x01": Place(continent="AS", country="CN", asn=4134),
    b"\x08": Place(continent="NA", country="US"),
}


class Atlas:
    geography = geography(
        {
            prefix: place
            for octets, place in PLACES.items()
            for prefix in (prefix_of(octets, 4), prefix_of(octets, 16))
        }
    )

    def find(self, packed: bytes) -> Place:
        return PLACES.get(packed[:1], Place())


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


def rule(name: str, line: str, *tiers: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "lines": [line], "tiers": [{"pools": [pool]} for pool in tiers], **more}


def service(pools: dict[str, PoolState], *rules: dict[str, Any], **more: Any) -> View:
    plain = {"id": "gtm00000001", "zone": "z.test", "rules": list(rules), **more}
    records = (
        Record(name="out", type="CNAME", data=("www.example.org.",)),
        Record(name="*.wild", type="CNAME", data=("gtm00000001",)),
        Record(name="into", type="CNAME", data=("www.child",)),
        Record(name="child", type="NS", data=("ns.child",)),
        Record(name="old", type="DNAME", data=("wild",)),
    )
    return View(
        zones={"z.test": StoredZone(nameservers=("ns.example.net",))},
        records={"z.test": {"-": records}},
        instances={"shop": codec.convert(plain, Instance)},
        pools=pools,
    )


def test_after_widening_in_vain_the_clients_own_rule_answers_and_is_named() -> None:
    seen = service(
        {"a": pool("ipv4", ("192.0.2.1", "down")), "b": pool("ipv4", ("192.0.2.2", "down"))},
        rule("mainland", "country:CN", "a", on_exhausted="widen"),
        rule("world", "default", "b"),
    )
    told = ask(seen, "shop", "1.2.3.4")
    assert told["possible_answers"] == [["192.0.2.1"]]
    assert (told["rule"], told["line"], told["tier"]) == ("mainland", "country:CN", None)
    assert [(one["address"], one["in"]) for one in told["candidates"]] == [("192.0.2.1", True)]
    assert "rule mainland's when_all_down lowest_ordinal answers" in told["path"][-1]


def test_a_pin_is_said_with_the_tiers_that_it_passes_over() -> None:
    tiers = rule("all", "default", "b", "a", failover={"pinned": 2})
    told = ask(service(HEALTHY, tiers), "shop")
    assert told["path"] == [
        "rule all matches by line default", "tier 1 is passed over: tier 2 is pinned",
        "tier 2 serves (pinned)",
    ]  # fmt: skip


def test_all_down_under_a_pin_names_as_in_only_whom_the_policy_answers() -> None:
    pools = {
        "b": pool("ipv4", ("192.0.2.1", "up")),
        "a": pool("ipv4", ("192.0.2.1", "offline"), ("192.0.2.2", "down")),
        "c": pool("ipv4", ("192.0.2.2", "up")),
    }
    tiers = rule("all", "default", "b", "a", "c", failover={"pinned": 2})
    told = ask(service(pools, tiers), "shop")
    assert told["possible_answers"] == [["192.0.2.1"]]
    assert [(one["pool"], one["in"], one["why"]) for one in told["candidates"]] == [
        ("b", True, "up"),
        ("a", False, "mode offline: always out"),
        ("a", False, "judged down; lowest_ordinal answers another pool"),
        ("c", False, "up; lowest_ordinal answers another pool"),
    ]
    assert told["path"][1:3] == [
        "tier 1 is passed over: tier 2 is pinned",
        "tier 2 does not serve: pool a has 0 of 1 up, 1 needed",
    ]


def test_an_alias_that_leads_out_of_our_zones_is_told_as_what_dns_answers() -> None:
    told = ask(service(HEALTHY, rule("all", "default", "b")), "out.z.test")
    assert (told["qname"], told["through"]) == ("www.example.org", ["out.z.test"])
    assert "leads out of our zones" in told["path"][-1]
    assert told["possible_answers"] == [["CNAME www.example.org."]]


@pytest.mark.parametrize("name", ["any.wild.z.test", "any.old.z.test"])
def test_wildcards_and_dnames_lead_to_instances_as_they_do_in_dns(name: str) -> None:
    told = ask(service(HEALTHY, rule("all", "default", "b")), name)
    assert (told["instance"], told["possible_answers"]) == ("shop", [["192.0.2.11"]])
    assert told["through"][0] == name


def test_a_name_below_a_delegation_is_a_referral_not_a_missing_name() -> None:
    told = ask(service(HEALTHY, rule("all", "default", "b")), "www.child.z.test")
    assert told["path"][-1] == "delegated at child.z.test: a referral to ns.child.z.test"


def test_behind_an_alias_a_delegation_is_a_referral_too() -> None:
    told = ask(service(HEALTHY, rule("all", "default", "b")), "into.z.test")
    assert told["through"] == ["into.z.test"]
    assert told["path"][-1] == (
        "delegated at child.z.test: the alias, and a referral to ns.child.z.test"
    )


def test_a_cname_that_a_dname_makes_may_be_asked_for() -> None:
    told = ask(service(HEALTHY, rule("all", "default", "b")), "any.old.z.test", qtype="CNAME")
    assert told["possible_answers"] == [["CNAME any.wild.z.test."]]


def test_types_that_are_not_stored_are_told_too_and_what_is_none_is_a_value_error() -> None:
    seen = service(HEALTHY, rule("all", "default", "b"))
    assert "minimal answer" in ask(seen, "z.test", qtype="ANY")["path"][-1]
    assert "ns.example.net" in ask(seen, "z.test", qtype="SOA")["possible_answers"][0][0]
    assert "without SOA" in ask(seen, "gtm00000001.z.test", qtype="SOA")["path"][-1]
    with pytest.raises(ValueError, match="'BLAH' is no record type"):
        ask(seen, "shop", qtype="BLAH")


def test_an_empty_answer_has_the_ttl_of_its_soa() -> None:
    told = ask(service(HEALTHY, rule("all", "default", "b"), ttl="1h"), "shop", qtype="AAAA")
    assert (told["possible_answers"], told["ttl"]) == ([[]], 30)
    assert told["ttl_from"] == "the zone's SOA minimum"


def test_where_the_ttl_comes_from_is_told() -> None:
    seen = service(HEALTHY, rule("all", "default", "b"))
    assert ask(seen, "shop")["ttl_from"] == "the instance's ttl"
    assert ask(seen, "z.test", qtype="SOA")["ttl_from"] == "the record"
    assert ask(seen, "nothing.z.test")["ttl_from"] == "the zone's SOA minimum"


def test_a_tier_that_is_kept_and_a_member_that_is_forced_are_told_as_such() -> None:
    view = world(
        pools={
            "first": pool("ipv4", ("192.0.2.1", "up")),
            "second": pool("ipv4", ("192.0.2.2", "up"), ("192.0.2.3", "up")),
        },
        instances={
            "shop": instance(
                ("w", ["default"], [["first"], ["second"]]), access_names=["shop.gtm.test"]
            )
        },
        routes={"shop": routes("w", "ipv4", 2, "")},
    )
    forced = replace(
        view.pools["second"].members[0],
        why="forced_down",
        judged="up",
        answered=False,
        counted=False,
    )
    members = (forced, *view.pools["second"].members[1:])
    second = replace(view.pools["second"], members=members)
    view = replace(view, pools={**view.pools, "second": second})
    told = json.loads(explain(view, Question(name="shop.gtm.test"), Unplaced()))
    assert told["path"][1] == (
        "tier 1 is available, but tier 2 is kept until the failback of its rule"
    )
    why = {one["address"]: one["why"] for one in told["candidates"]}
    assert why["192.0.2.2"] == "forced down by an operator; else up"
    assert why["192.0.2.1"] == "up; tier 2 serves"


def test_an_answer_by_name_is_explained_for_every_type() -> None:
    names = codec.convert(
        {
            "type": "domain",
            "members": [
                {"value": "a.cdn.example", "answered": True, "counted": True, "why": "unmonitored"}
            ],
        },
        PoolState,
    )
    shop = instance(("w", ["default"], [["names"]]), access_names=["shop.gtm.test"])
    view = world(pools={"names": names}, instances={"shop": shop})
    for qtype in ("A", "AAAA", "MX"):
        question = Question(name="shop.gtm.test", qtype=qtype)
        told = json.loads(explain(view, question, Unplaced()))
        assert told["possible_answers"] == [["a.cdn.example"]]
        assert [(one["address"], one["in"]) for one in told["candidates"]] == [
            ("a.cdn.example", True)
        ]
