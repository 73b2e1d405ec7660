"""What explain says may be answered is what the responder answers, over all draws."""

from __future__ import annotations

import ipaddress
import json

import dnslib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ctl.explain import explain
from gtm.model import ClientLine
from gtm.ports import Question
from resolver.compiler import compile_table
from resolver.place import Place
from resolver.responder import respond
from tests.worlds import geography, instance, pool, routes, world

pytestmark = pytest.mark.usefixtures("each_responder")

POOLS = {
    "a": pool("192.0.2.1", "192.0.2.2"),
    "b": pool("192.0.2.3", "3*192.0.2.4", steering="weighted"),
    "s": pool("192.0.2.5", "192.0.2.6", "192.0.2.7", steering="sticky"),
    "q": pool("192.0.2.8", "192.0.2.9", down=["192.0.2.8"], steering="sequence"),
    "dead": pool("192.0.2.10", "192.0.2.11", down=["192.0.2.10", "192.0.2.11"]),
    "off": pool("192.0.2.12", offline=["192.0.2.12"]),
    "six": pool("2001:db8::1", "2001:db8::2"),
    "names": {
        "type": "domain",
        "members": [
            {"value": f"{name}.cdn.example", "answered": True, "counted": True, "why": "up"}
            for name in "xy"
        ],
    },
}
LINES = {
    "office": ClientLine(networks=("10.0.0.0/10",)),
    "europe": ClientLine(any_of=("country:DE",), not_=("office",)),
}
WHERE = geography(
    {
        "10.0.0.0/9": Place(continent="EU", country="DE"),
        "11.0.0.0/8": Place(continent="AS", country="CN", asn=4134),
    }
)
FALLBACKS = [
    "lowest_ordinal", "all", "last_good", "nodata", "servfail", {"pool": "b"},
    {"addresses": ["192.0.2.99", "2001:db8::99"]},
]  # fmt: skip


class Locator:
    """Where clients are in these tests."""

    geography = WHERE

    def find(self, packed: bytes) -> Place:
        return WHERE.find(packed)


tiers = st.one_of(
    st.fixed_dictionaries(
        {"pools": st.lists(st.sampled_from([*list(POOLS)[:-1], "unseen"]), min_size=1, max_size=2,
                           unique=True)},
        optional={
            "steering": st.sampled_from(["round_robin", "weighted", "sequence", "sticky"]),
            "min_available": st.sampled_from([1, 2, "all"]),
            "max_answers": st.integers(1, 3),
        },
    ),
    st.just({"pools": ["names"]}),
)  # fmt: skip
texts = st.sampled_from(["default", "country:CN", "office", "europe", "isp:telecom", "oversea"])
rules = st.fixed_dictionaries(
    {
        "lines": st.lists(texts, min_size=1, max_size=2, unique=True),
        "tiers": st.lists(tiers, min_size=1, max_size=2),
        "on_exhausted": st.sampled_from(["stop", "widen"]),
    }
)
clients = st.sampled_from(["10.1.2.3", "10.100.2.3", "11.1.2.3", "12.1.2.3"])


@settings(max_examples=150, deadline=None)
@given(
    st.lists(rules, min_size=1, max_size=3),
    st.sampled_from(FALLBACKS),
    st.sampled_from(["A", "AAAA"]),
    clients,
    st.integers(0, 2),
)
def test_every_possible_answer_is_given_and_no_other(
    rows: list[dict[str, object]], fallback: object, qtype: str, client: str, kept: int
) -> None:
    from gtm import codec
    from gtm.model import Instance
    from gtm.state import PoolState

    named = [{**row, "name": f"r{number}"} for number, row in enumerate(rows)]
    shop = codec.convert(
        {"id": "gtm1", "zone": "gtm.test", "access_names": ["shop.gtm.test"], "rules": named,
         "when_all_down": fallback},
        Instance,
    )  # fmt: skip
    pools = {
        name: codec.convert(dict(state), PoolState) if isinstance(state, dict) else state
        for name, state in POOLS.items()
    }
    view = world(pools=pools, instances={"shop": shop}, lines=LINES)
    if kept:
        view = replace(view, routes={"shop": routes("r0", "ipv4", kept, "")})
    told = json.loads(explain(view, Question(name="shop.gtm.test", qtype=qtype, client=client),
                              Locator()))  # fmt: skip
    query = bytes(dnslib.DNSRecord.question("shop.gtm.test", qtype).pack())
    table = compile_table(view, Locator())
    packed = ipaddress.ip_address(client).packed
    given_: set[tuple[str, ...]] = set()
    for number in range(256):
        reply = respond(table, query, packed, "udp", 0.0, number << 56 | 1)
        assert reply is not None
        read = dnslib.DNSRecord.parse(reply)
        given_.add(tuple(str(one.rdata).rstrip(".") for one in read.rr))
    assert given_ == {tuple(values) for values in told["possible_answers"]}
    inside = {one["address"] for one in told["candidates"] if one["in"]}
    answered = {value for values in given_ for value in values}
    if "addresses" not in (fallback if isinstance(fallback, dict) else {}):
        assert inside == answered


def test_the_pools_of_these_tests_are_read_as_written() -> None:
    assert instance(("w", ["default"], [["a"]])).rules[0].tiers[0].names() == ("a",)
