"""The zones that strangers and we serve alike: master files, and the same as our configuration.

Read by dnspython alone, so that a fault of ours in reading can't hide itself. The serial is what
our coordinator gave, as it makes them from the time.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import dns.name
import dns.rdatatype
import dns.zone
import yaml

FOLDER = Path(__file__).parent / "zones"
NAMES = ("conf.test", "own.conf.test", "other.test")


def master(name: str, serial: int) -> str:
    """The master file of a zone."""
    return (FOLDER / f"{name}.zone").read_text().replace("SERIAL", str(serial))


def parsed(name: str, serial: int = 1) -> dns.zone.Zone:
    """A zone as dnspython reads it, all names absolute."""
    return dns.zone.from_text(
        master(name, serial), origin=f"{name}.", relativize=False, check_origin=False
    )


def resource(name: str) -> dict[str, Any]:
    """A zone as a resource of our configuration."""
    zone = parsed(name)
    origin = dns.name.from_text(name)
    soa_set = zone.find_rdataset(origin, dns.rdatatype.SOA)
    soa = soa_set[0]
    records = []
    for owner, rdataset in zone.iterate_rdatasets():
        if owner == origin and rdataset.rdtype in (dns.rdatatype.SOA, dns.rdatatype.NS):
            continue
        records.append(
            {
                "name": _escaped(owner.relativize(origin)),
                "type": dns.rdatatype.to_text(rdataset.rdtype),
                "ttl": f"{rdataset.ttl}s",
                "data": [rdata.to_text() for rdata in rdataset],
            }
        )
    return {
        "nameservers": [
            rdata.target.to_text(omit_final_dot=True)
            for rdata in zone.find_rdataset(origin, dns.rdatatype.NS)
        ],
        "soa": {
            "mname": soa.mname.to_text(omit_final_dot=True),
            "rname": soa.rname.to_text(omit_final_dot=True),
            **{
                timer: f"{getattr(soa, timer)}s"
                for timer in ("refresh", "retry", "expire", "minimum")
            },
        },
        "ttl": f"{soa_set.ttl}s",
        "records": records,
    }


def _escaped(owner: dns.name.Name) -> str:
    """A relative name with everything but letters, digits, - and _ as octets; "@" where empty."""
    labels = [
        "*" if label == b"*" else re.sub(r"[^A-Za-z0-9_-]", _octet, label.decode("latin-1"))
        for label in owner.labels
    ]
    return ".".join(labels) or "@"


def _octet(match: re.Match[str]) -> str:
    return f"\\{ord(match[0]):03}"


def configuration(**more: Any) -> str:
    """All zones as one file of our configuration, with `more` zones, pools, instances."""
    ours: dict[str, Any] = {"zones": {name: resource(name) for name in NAMES}}
    for kind, resources in more.items():
        ours.setdefault(kind, {}).update(resources)
    return yaml.safe_dump(ours, allow_unicode=True, sort_keys=False)
