"""The named bounds of the answering half of the resolver: no packet and no plan exceeds them. Pure.

Bounds of sockets (connections, idle times) stand beside the listener.
"""

from __future__ import annotations

MAX_NAME = 255
"""Octets of a domain name on the wire, root included (RFC 1035, section 2.3.4)."""
MAX_LABEL = 63
"""Octets of a label."""
MAX_POINTERS = 16
"""Compression pointers followed in one name; each must also point backwards."""
MAX_QUERY_RECORDS = 16
"""Records behind the question that a query may carry; more is FORMERR."""
MAX_OPTIONS = 32
"""EDNS options that a query may carry; more is FORMERR."""
MAX_CHAIN = 8
"""CNAME and DNAME steps followed inside our zones for one query."""
PLAIN_UDP = 512
"""Octets of a UDP message without EDNS, and the least that a client's EDNS size means."""
DEFAULT_UDP = 1232
"""Our EDNS buffer: what passes everywhere unfragmented (DNS flag day 2020)."""
MAX_UDP = 4096
"""The greatest EDNS buffer that a setting may ask for."""
MAX_TCP = 65535
"""Octets of a message over TCP (RFC 1035, section 4.2.2)."""
MAX_NSID = 64
"""Octets of our server identifier (RFC 5001)."""
MAX_EXTENDED_TEXT = 48
"""Octets of the text beside an extended error, so that a truncated answer always fits."""
MAX_RRSET = 60_000
"""Octets of one ready record set."""
MAX_LEAVES = 4096
"""Different record sets that one tier may answer."""
JOINED_ANSWERS = 8
"""Addresses in one answer of a tier whose pools are joined, where it does not say how many."""
MAX_ANSWERS = 64
"""Addresses in one answer where everything is down and all are given."""
MAX_LINES = 65_536
"""Lines and networks whose text is remembered as read."""
STALE_AFTER_S = 60.0
"""From this age of the last word from the store on, answers are marked stale."""
