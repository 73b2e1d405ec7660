"""What RFCs demand, asked of a running system over real sockets: the table is in `cases`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance import cases, clients, servers
from tests.conformance.cases import Case

pytestmark = pytest.mark.integration

STEERED = {
    "zones": {"steer.test": {"nameservers": ["ns1.conf.test"]}},
    "pools": {
        "near": {"type": "ipv4", "addresses": [{"value": "198.51.100.1"}]},
        "far": {"type": "ipv4", "addresses": [{"value": "198.51.100.2"}]},
    },
    "instances": {
        "shop": {
            "zone": "steer.test",
            "access_names": ["shop.steer.test"],
            "ttl": "60s",
            "rules": [
                {
                    "name": "near",
                    "lines": ["network:192.0.2.0/24", "network:2001:db8::/32"],
                    "tiers": [{"pools": ["near"]}],
                },
                {"name": "far", "lines": ["default"], "tiers": [{"pools": ["far"]}]},
            ],
        }
    },
}
"""Besides the static zones: a name whose answer depends on the client's network."""
CASES = cases.all_cases()
REQUIRED = {1034, 1035, 2181, 2308, 4343, 4592, 6891, 7766, 7871, 8482, 8906, 8914}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    with servers.ours(tmp_path_factory.mktemp("rfcs"), **STEERED) as found:
        yield found


@pytest.mark.parametrize("case", CASES, ids=[case.ident for case in CASES])
def test_a_demand_is_met(server: servers.Server, case: Case) -> None:
    seen = clients.ask(server, case.asked)
    if isinstance(case.asked, str) and case.asked.startswith(("dig ", "kdig ")):
        (printed,) = seen
        for words in case.seen:
            if words.startswith("!"):
                assert words[1:] not in printed
            else:
                assert words in printed
    else:
        assert seen == list(case.seen)


def test_the_page_and_the_cases_agree() -> None:
    assert cases.PAGE.read_text() == cases.page()


def test_the_table_is_whole() -> None:
    assert {case.rfc for case in CASES} >= REQUIRED
    idents = [case.ident for case in CASES]
    assert len(set(idents)) == len(idents)
    root = Path(__file__).parents[2]
    assert all((root / case.file).is_file() for case in CASES)
