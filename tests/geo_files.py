"""Geo files in MaxMind's format, made for tests."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmdb_writer import MMDBWriter, SearchTreeNode
from netaddr import IPSet

ALIASES = ("::ffff:0:0/96", "2001::/32", "2002::/16")


def geo_file(path: Path, networks: Mapping[str, Any], version: int = 4, alias: bool = False) -> str:
    """The path of a file with a record for each network; a later network cuts an earlier one.

    A file of `version` 6 holds IPv4 networks at ::/96, and with `alias` pointers to them at the
    other places where files have them.
    """
    writer = MMDBWriter(version, ipv4_compatible=version == 6)
    for network, record in networks.items():
        writer.insert_network(IPSet([network]), record)
    if alias:
        for block in ALIASES:
            writer.insert_network(IPSet([block]), {})
            _alias(writer.tree, ipaddress.IPv6Network(block))
    writer.to_db_file(str(path))
    return str(path)


def _alias(tree: SearchTreeNode, block: ipaddress.IPv6Network) -> None:
    root: Any = tree
    for _ in range(96):
        root = root.get_or_create(0) if isinstance(root, SearchTreeNode) else root
    node: Any = tree
    bits = [int(bit) for bit in f"{int(block.network_address):0128b}"[: block.prefixlen]]
    for bit in bits[:-1]:
        node = node[bit]
    node[bits[-1]] = root


def packed(text: str) -> bytes:
    """The octets of an address."""
    return ipaddress.ip_address(text).packed


def placed(path: Path, country: str) -> Path:
    """A geo file that has loopback in a country, put in place at `path` as operators do."""
    fresh = path.with_suffix(".fresh")
    blocks = {f"{number}.0.0.0/8": {"country_code": "DE"} for number in range(1, 20, 2)}
    geo_file(fresh, {**blocks, "127.0.0.0/8": {"country_code": country}})
    return fresh.replace(path)
