"""The reference responder: a datagram and a table in, a datagram or silence out.

Pure: source address, time and draw are arguments; nothing is remembered between two calls; no
input makes it raise, and all work is bounded (`limits`). Clear before fast: the native responder
must give the same bytes for the same draw.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from .edns import (
    KEEPALIVE,
    NOT_AUTHORITATIVE,
    NOT_READY,
    NSID,
    STALE_ANSWER,
    STALE_NXDOMAIN,
    Subnet,
    extended_error,
    opt_record,
    option,
    subnet_option,
)
from .limits import MAX_CHAIN, MAX_NAME, MAX_TCP, PLAIN_UDP
from .message import (
    AAAA,
    ANY,
    AUTHORITATIVE,
    AXFR,
    CH,
    CNAME,
    DNAME,
    DS,
    FORMERR,
    HINFO,
    IN,
    IXFR,
    NOERROR,
    NOTIMP,
    NS,
    NSEC,
    NXDOMAIN,
    OPT,
    REFUSED,
    RRSIG,
    SERVFAIL,
    SOA,
    TRUNCATED,
    TXT,
    YXDOMAIN,
    A,
    Query,
    owner_at,
    parent,
    read_query,
    record,
    reply,
    wire_name,
)
from .plan import DROP, OWNER, Answers, Met, walk
from .table import AnswerTable, Cut, Name

Transport = Literal["udp", "tcp"]
ANY_TTL_S = 3600
"""TTL of the minimal answer to ANY (RFC 8482)."""
_MINIMAL = Answers(ANY_TTL_S, record(OWNER, HINFO, ANY_TTL_S, b"\x07RFC8482\x00"), 1)
_BESIDE_ALIAS = frozenset({CNAME, ANY, NSEC, RRSIG})
"""Types that are looked up at an alias itself (RFC 1034, section 3.6.2; RFC 4035, section 2.5)."""
_MAPPED = b"\0" * 10 + b"\xff\xff"
_STALE = {
    NOERROR: extended_error(STALE_ANSWER, "the store has not been heard"),
    NXDOMAIN: extended_error(STALE_NXDOMAIN, "the store has not been heard"),
}
_STARTING = extended_error(NOT_READY, "no configuration yet")
_FOREIGN = extended_error(NOT_AUTHORITATIVE)
_VERSION, _SERVER = wire_name("version.bind"), wire_name("id.server")


class Asking(Struct, frozen=True):
    """Who asks: the packed source address, the draw, and where is put what is to be counted."""

    client: bytes
    draw: int
    met: Met


class Found(Struct, frozen=True):
    """What is to be answered: the sections behind the question, with the records of each.

    `scope` is how much of the client's address decided it; only what comes `from_table` carries a
    client subnet and can be stale.
    """

    rcode: int
    flags: int = 0
    sections: bytes = b""
    counts: tuple[int, int, int] = (0, 0, 0)
    scope: int = 0
    extended: bytes = b""
    from_table: bool = False


def respond(
    table: AnswerTable,
    datagram: bytes,
    client: bytes,
    transport: Transport,
    now: float,
    draw: int,
    met: Met | None = None,
) -> bytes | None:
    """The reply to `datagram`, or None for silence.

    `client` is the packed source address (4 or 16 octets), `now` monotonic seconds, `draw` 64
    random bits. What is to be counted of the way there is put into `met`.
    """
    query = read_query(datagram)
    if query is None:
        return None
    found = _find(table, query, Asking(client, draw, [] if met is None else met))
    if found.rcode == DROP:
        return None
    opt = _opt(table, query, found, transport, now) if query.edns is not None else b""
    message = reply(query, found.rcode, found.flags, found.sections, found.counts, opt)
    if len(message) <= PLAIN_UDP or len(message) <= _limit(table, query, transport):
        return message
    return reply(query, found.rcode, found.flags | TRUNCATED, b"", (0, 0, 0), opt)


def _limit(table: AnswerTable, query: Query, transport: Transport) -> int:
    """The octets that a reply may have."""
    if transport == "tcp":
        return MAX_TCP
    if query.edns is None:
        return PLAIN_UDP
    return max(PLAIN_UDP, min(query.edns.payload, table.serving.udp_payload))


def _opt(table: AnswerTable, query: Query, found: Found, transport: Transport, now: float) -> bytes:
    """Our OPT record with the options that the query and the answer call for."""
    edns, serving = query.edns, table.serving
    assert edns is not None
    options = found.extended
    if found.from_table and now - table.heard_s > serving.stale_after_s:
        options = _STALE.get(found.rcode, b"") + options
    if edns.subnet is not None and found.from_table:
        options += subnet_option(edns.subnet, found.scope if edns.subnet.source else 0)
    if edns.nsid and serving.nsid:
        options += option(NSID, serving.nsid.encode())
    if edns.keepalive and transport == "tcp":
        tenths = max(0, min(int(serving.idle_s * 10), 65535))
        options += option(KEEPALIVE, tenths.to_bytes(2))
    return opt_record(serving.udp_payload, edns.do, found.rcode, options)


def _find(table: AnswerTable, query: Query, asking: Asking) -> Found:
    """What is to be answered, whatever the query."""
    if query.rcode:
        return Found(query.rcode)
    qtype = query.qtype
    if qtype == OPT:
        return Found(FORMERR)
    if 249 <= qtype <= 254:
        return Found(REFUSED if qtype in (AXFR, IXFR) else NOTIMP)
    if query.qclass == CH:
        return _chaos(table, query)
    if query.qclass != IN:
        return Found(REFUSED)
    if not table.ready:
        return Found(SERVFAIL, extended=_STARTING)
    return _answer(table, query, asking)


def _chaos(table: AnswerTable, query: Query) -> Found:
    texts = {_VERSION: table.serving.version, _SERVER: table.serving.server}
    text = texts.get(query.qname, "").encode()
    if not text or query.qtype not in (TXT, ANY):
        return Found(REFUSED)
    data = bytes((len(text),)) + text
    return Found(NOERROR, AUTHORITATIVE, record(OWNER, TXT, 0, data, CH), (1, 0, 0))


class Trail(Struct, frozen=True):
    """How far a search came: `name` is looked at now and stands at `position` of the reply.

    `aliases` are the CNAME and DNAME records that led there, `links` their number; `scope` is how
    much of the client's address decided on them.
    """

    name: bytes
    position: int = 12
    aliases: bytes = b""
    links: int = 0
    scope: int = 0

    def owner(self, suffix: bytes) -> bytes:
        """The owner for `suffix`, with which the name ends."""
        return owner_at(self.position + len(self.name) - len(suffix), suffix)

    def follow(self, query: Query, target: bytes, ttl: int, scope: int = 0) -> Trail:
        """The trail behind a CNAME from the name to `target`."""
        owner = self.owner(self.name)
        position = 12 + len(query.question) + len(self.aliases) + len(owner) + 10
        aliases = self.aliases + record(owner, CNAME, ttl, target)
        scope = max(scope, self.scope)
        return Trail(target.lower(), position, aliases, self.links + 1, scope)


def _answer(table: AnswerTable, query: Query, asking: Asking) -> Found:
    """The answer from our zones; aliases inside them are followed, each name once."""
    trail, seen, qtype = Trail(query.qname), {query.qname}, query.qtype
    renamed: set[bytes] = set()  # the owners of DNAME records that are in the answer
    while True:
        name, encloser = table.find(trail.name)
        if name is None and not encloser:
            return _aliases(trail) if trail.links else Found(REFUSED, extended=_FOREIGN)
        if name is not None and (name.cut is None or qtype == DS):
            alias = name.rrsets.get(CNAME)
            if alias is not None and qtype not in _BESIDE_ALIAS:
                trail = trail.follow(query, alias.rdata()[0][1], alias.ttl)
            elif (walked := _early(table, name, query, asking)) is not None and (
                target := walked[0].alias()
            ) is not None:
                leaf, scope = walked
                asking.met.append(leaf)
                if qtype in (CNAME, ANY):
                    return _positive(leaf, trail, scope)
                trail = trail.follow(query, target, leaf.ttl, scope)
            else:
                return _existing(table, name, trail, query, asking, walked)
        else:
            name = table.names[encloser] if name is None else name
            if name.cut is not None:
                return _referral(query, trail, name.cut)
            alias = name.rrsets.get(DNAME)
            if alias is None:
                return _negative(table, name.zone, trail, NXDOMAIN)
            if encloser not in renamed:  # no record stands twice, RFC 2181, section 5
                renamed.add(encloser)
                own = _owned(alias, trail.owner(encloser))
                trail = replace(trail, aliases=trail.aliases + own, links=trail.links + 1)
            target = trail.name[: -len(encloser)] + alias.rdata()[0][1]
            if len(target) > MAX_NAME:  # RFC 6672, section 2.2
                return _aliases(trail, YXDOMAIN)
            trail = trail.follow(query, target, alias.ttl)
            if qtype in (CNAME, ANY):  # the made CNAME is the answer, RFC 1034, section 3.6.2
                return _aliases(trail)
        if trail.name in seen or len(seen) > MAX_CHAIN:
            return _aliases(trail)
        seen.add(trail.name)


def _aliases(trail: Trail, rcode: int = NOERROR) -> Found:
    """The aliases alone: they lead out of our zones, in a circle, or on for too long."""
    counts = (trail.links, 0, 0)
    return Found(rcode, AUTHORITATIVE, trail.aliases, counts, trail.scope, from_table=True)


def _early(
    table: AnswerTable, name: Name, query: Query, asking: Asking
) -> tuple[Answers, int] | None:
    """The walk of an instance that may answer with a CNAME, which stands for all types; or None."""
    if name.slot < 0 or name.absent or table.slots[name.slot].a not in table.aliased:
        return None
    return _steered(table, name, query, asking)


def _existing(
    table: AnswerTable,
    name: Name,
    trail: Trail,
    query: Query,
    asking: Asking,
    walked: tuple[Answers, int] | None,
) -> Found:
    """The record set of a name that exists, or NODATA; `walked` is its plan's walk if done."""
    if name.absent:
        return _negative(table, name.zone, trail, NXDOMAIN, table.slots[name.slot].ttl)
    if name.slot >= 0 and query.qtype in (A, AAAA):
        leaf, scope = walked or _steered(table, name, query, asking)
        asking.met.append(leaf)
        if leaf.rcode:
            scope = max(scope, trail.scope)
            return Found(leaf.rcode, scope=scope, extended=leaf.extended, from_table=True)
        if not leaf.count:
            return _negative(table, name.zone, trail, NOERROR, leaf.ttl, leaf.extended, scope)
        return _positive(leaf, trail, scope)
    if query.qtype == DS and name.above >= 0:  # the parent's side of a zone cut, RFC 4035, 3.1.4.1
        found = name.ds
        return _positive(found, trail) if found else _negative(table, name.above, trail, NOERROR)
    found = name.rrsets.get(query.qtype)
    if query.qtype == ANY and (name.rrsets or name.slot >= 0):
        found = name.rrsets.get(CNAME) or _MINIMAL
    if found is not None:
        return _positive(found, trail)
    ttl = table.slots[name.slot].ttl if name.slot >= 0 else None
    return _negative(table, name.zone, trail, NOERROR, ttl)


def _steered(table: AnswerTable, name: Name, query: Query, asking: Asking) -> tuple[Answers, int]:
    """The walk of an instance's plan for this client."""
    slot = table.slots[name.slot]
    plan = table.plans[slot.aaaa if query.qtype == AAAA else slot.a]
    if isinstance(plan, Answers):
        return plan, 0
    subnet: Subnet | None = query.edns.subnet if query.edns is not None else None
    client = asking.client
    if subnet is not None and subnet.source:
        client = subnet.packed
    elif client[:12] == _MAPPED:
        client = client[12:]
    leaf, _, scope = walk(plan, client, asking.draw, asking.met)
    return leaf, scope


def _positive(leaf: Answers, trail: Trail, scope: int = 0) -> Found:
    """The records of a leaf, behind the aliases that led to it."""
    wire = leaf.wire if not trail.links else _owned(leaf, trail.owner(trail.name))
    counts, scope = (trail.links + leaf.count, 0, 0), max(scope, trail.scope)
    return Found(NOERROR, AUTHORITATIVE, trail.aliases + wire, counts, scope, leaf.extended, True)


def _negative(
    table: AnswerTable,
    zone: int,
    trail: Trail,
    rcode: int,
    ttl: int | None = None,
    extended: bytes = b"",
    scope: int = 0,
) -> Found:
    """NODATA or NXDOMAIN with the SOA of the zone (RFC 2308), behind the aliases that led here.

    Its TTL is the least of the SOA's two and, where the name is an instance's, the instance's.
    """
    apex = table.zones[zone]
    ttl = apex.ttl if ttl is None else min(apex.ttl, ttl)
    sections = trail.aliases + record(trail.owner(apex.name), SOA, ttl, apex.soa)
    counts, scope = (trail.links, 1, 0), max(scope, trail.scope)
    return Found(rcode, AUTHORITATIVE, sections, counts, scope, extended, True)


def _referral(query: Query, trail: Trail, cut: Cut) -> Found:
    """The delegation that the name lies under, with its glue (RFC 1034, 4.3.2; RFC 9471).

    Names are compressed, so that the usual number of servers fits without truncation. Behind
    aliases of ours the answer has authority, the delegation itself never.
    """
    owner = trail.owner(cut.name)
    begin = 12 + len(query.question) + len(trail.aliases)
    places: dict[bytes, int] = {}
    sections = b""
    for target in cut.servers:
        places[target] = begin + len(sections) + len(owner) + 10
        data = target[: -len(cut.name)] + owner if _below(target.lower(), cut.name) else target
        sections += record(owner, NS, cut.ttl, data)
    for target, rest in cut.glue:
        sections += owner_at(places[target], target) + rest
    flags = AUTHORITATIVE if trail.links else 0
    counts = (trail.links, len(cut.servers), len(cut.glue))
    return Found(NOERROR, flags, trail.aliases + sections, counts, trail.scope, from_table=True)


def _below(name: bytes, suffix: bytes) -> bool:
    """Whether `name` is `suffix` or ends with it, label by label."""
    while len(name) > len(suffix):
        name = parent(name)
    return name == suffix


def _owned(answers: Answers, owner: bytes) -> bytes:
    """The records of a ready set under another owner."""
    return b"".join(record(owner, rtype, answers.ttl, data) for rtype, data in answers.rdata())
