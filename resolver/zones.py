"""Zones as resolvers serve them: static records, delegations, access names, in one dictionary.

Made when configuration changes, never per query. What of a zone did not change is taken over. A
record that can't be read raises ValueError naming it, and the caller keeps its last table. Pure
(text goes through `records.text`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from gtm.model import Record
from gtm.state import StoredZone

from .limits import MAX_RRSET
from .message import AAAA, CNAME, DNAME, DS, NS, ROOT, SOA, A, name_text, parent, record, wire_name
from .plan import OWNER, Answers
from .records import text
from .table import Cut, Name, ZoneApex

Sets = Mapping[bytes, dict[int, Answers]]
NO_SETS: dict[int, Answers] = {}
"""What names without static records share; nobody may change it."""
_ADDRESSES = frozenset({A, AAAA, CNAME})


class Parsed(Struct, frozen=True):
    """One bucket of records, read: (owner, type, TTL in seconds, RDATA of each)."""

    source: tuple[Record, ...]
    rows: tuple[tuple[bytes, int, int, tuple[bytes, ...]], ...]


class ZoneData(Struct, frozen=True):
    """One zone, read: its apex and the record sets of every owner; `stored` is where from."""

    stored: StoredZone
    apex: ZoneApex
    sets: Sets
    buckets: dict[str, Parsed] = field(default_factory=dict)


def read_zone(
    name: str,
    stored: StoredZone,
    records: Mapping[str, tuple[Record, ...]],
    before: ZoneData | None = None,
) -> ZoneData:
    """A zone of its stored form; ValueError names the record that is wrong.

    Buckets that are the very same as in `before` are not read again.
    """
    known = before.buckets if before is not None and before.stored.ttl == stored.ttl else {}
    buckets: dict[str, Parsed] = {}
    for key, source in records.items():
        old = known.get(key)
        if old is None or old.source is not source:
            old = read_records(name, source, stored.ttl.ms // 1000)
        buckets[key] = old
    rows: dict[bytes, dict[int, tuple[int, dict[bytes, None]]]] = {}
    apex = wire_name(name)
    ttl = stored.ttl.ms // 1000
    servers = tuple(wire_name(server) for server in stored.nameservers)
    own = [(apex, NS, ttl, servers)] if servers else []
    for bucket in (own, *(parsed.rows for parsed in buckets.values())):
        for owner, rtype, row_ttl, data in bucket:
            old_ttl, together = rows.setdefault(owner, {}).get(rtype, (row_ttl, {}))
            together.update(dict.fromkeys(data))
            rows[owner][rtype] = (min(old_ttl, row_ttl), together)
    sets = {
        owner: {rtype: _ready(owner, rtype, *row) for rtype, row in types.items()}
        for owner, types in rows.items()
    }
    for owner, types in sets.items():
        _refuse_conflicts(name, owner, types)
    soa = soa_data(name, stored)
    minimum = stored.soa.minimum.ms // 1000
    sets.setdefault(apex, {})[SOA] = _ready(apex, SOA, ttl, {soa: None})
    return ZoneData(stored, ZoneApex(apex, soa, min(minimum, ttl), stored.serial), sets, buckets)


def soa_data(name: str, stored: StoredZone) -> bytes:
    """The RDATA of a zone's SOA; mname defaults to the first nameserver, rname to hostmaster."""
    soa = stored.soa
    mname = soa.mname or (stored.nameservers[0] if stored.nameservers else name)
    rname = soa.rname or ("hostmaster" if name == "." else f"hostmaster.{name}")
    numbers = [stored.serial % 2**32]
    numbers += [span.ms // 1000 for span in (soa.refresh, soa.retry, soa.expire, soa.minimum)]
    return wire_name(mname) + wire_name(rname) + b"".join(n.to_bytes(4) for n in numbers)


def read_records(zone: str, records: tuple[Record, ...], ttl_s: int) -> Parsed:
    """Records as rows of RDATA; ValueError names the zone, the owner and the type."""
    apex = wire_name(zone)
    rows = []
    for entry in records:
        try:
            owner = text.owner(entry.name, zone)
            if not _under(owner, apex):
                raise ValueError("the name lies outside the zone")
            ttl = ttl_s if entry.ttl is None else entry.ttl.ms // 1000
            data = tuple(text.rdata(entry.type, one, zone) for one in entry.data)
            rows.append((owner, text.rtype(entry.type), ttl, data))
        except ValueError as error:
            raise ValueError(f"zone {zone}: record {entry.name} {entry.type}: {error}") from None
    return Parsed(records, tuple(row for row in rows if row[3]))


def _ready(owner: bytes, rtype: int, ttl: int, data: Iterable[bytes]) -> Answers:
    rdata = tuple(data)
    wire = b"".join(record(OWNER, rtype, ttl, one) for one in rdata)
    if len(wire) > MAX_RRSET:
        raise ValueError(f"{name_text(owner)} type {rtype}: {len(wire)} octets are too many")
    return Answers(ttl, wire, len(rdata))


def _refuse_conflicts(zone: str, owner: bytes, types: dict[int, Answers]) -> None:
    conflict = ""
    if CNAME in types and (len(types) > 1 or types[CNAME].count > 1 or owner == wire_name(zone)):
        conflict = "a CNAME beside other data"
    elif DNAME in types and types[DNAME].count > 1:
        conflict = "more than one DNAME"
    elif NS in types and owner.startswith(b"\x01*"):
        conflict = "a wildcard can't be delegated"
    if conflict:
        raise ValueError(f"zone {zone}: {name_text(owner)}: {conflict}")


class Access(Struct, frozen=True):
    """An access name of an instance; `off` where the instance is switched off."""

    name: str
    instance: str
    slot: int
    off: bool = False


def assemble(
    zones: Sequence[ZoneData], access: Iterable[Access]
) -> tuple[list[ZoneApex], dict[bytes, Name]]:
    """The zones by index, and every name in them; ValueError where two things claim one name."""
    apexes = {zone.apex.name: index for index, zone in enumerate(zones)}
    names: dict[bytes, Name] = {}
    for index, zone in enumerate(zones):
        barred = {
            owner
            for owner, types in zone.sets.items()
            if (NS in types and owner != zone.apex.name) or DNAME in types
        }
        for owner, types in zone.sets.items():
            if _home(owner, apexes) == index and barred.isdisjoint(_between(owner, zone.apex.name)):
                names[owner] = _name(index, zone, owner, types)
    for zone in zones:
        apex = zone.apex.name
        above = _home(parent(apex), apexes) if apex != ROOT else -1
        if above >= 0:
            ds = zones[above].sets.get(apex, {}).get(DS)
            names[apex] = replace(names[apex], above=above, ds=ds)
    switched_off = []
    for entry in access:
        owner, old = _place(names, zones, apexes, entry)
        if entry.off and old is None:
            switched_off.append(owner)
    _fill(names, apexes, switched_off)
    return [zone.apex for zone in zones], names


def extend(
    names: Mapping[bytes, Name], zones: Sequence[ZoneData], access: Iterable[Access]
) -> dict[bytes, Name] | None:
    """`names` with further access names, all switched on; sooner than `assemble`.

    None where one of them comes to lie below a name that is switched off, which then is there.
    """
    apexes = {zone.apex.name: index for index, zone in enumerate(zones)}
    wider = dict(names)
    for entry in access:
        owner, _ = _place(wider, zones, apexes, entry)
        for above in _between(owner, zones[wider[owner].zone].apex.name):
            if above not in wider:
                wider[above] = Name(wider[owner].zone, NO_SETS)
            elif wider[above].absent:
                return None
    return wider


def _place(
    names: dict[bytes, Name],
    zones: Sequence[ZoneData],
    apexes: Mapping[bytes, int],
    entry: Access,
) -> tuple[bytes, Name | None]:
    """Put an access name among `names`; gives its wire form and what was there before."""
    owner = wire_name(entry.name)
    index = _home(owner, apexes)
    where = f"instance {entry.instance}: access name {entry.name}"
    if index < 0:
        raise ValueError(f"{where} lies in none of our zones")
    _refuse_barred(where, owner, zones[index].apex.name, names)
    old = names.get(owner)
    if old is None:
        names[owner] = Name(index, NO_SETS, entry.slot)
    elif old.slot >= 0 or not _ADDRESSES.isdisjoint(old.rrsets):
        raise ValueError(f"{where} is taken by another instance or a static record")
    else:
        names[owner] = replace(old, slot=entry.slot)
    return owner, old


def _name(index: int, zone: ZoneData, owner: bytes, types: dict[int, Answers]) -> Name:
    if NS not in types or owner == zone.apex.name:
        return Name(index, types)
    servers = tuple(target for _, target in types[NS].rdata())
    glue: list[tuple[bytes, bytes]] = []
    for target in servers:
        for rtype in (A, AAAA):
            found = zone.sets.get(target.lower(), {}).get(rtype)
            if found is not None:
                rows = found.rdata()
                glue += [(target, record(b"", rtype, found.ttl, data)) for _, data in rows]
    rest = {DS: types[DS]} if DS in types else {}
    return Name(index, rest, cut=Cut(owner, types[NS].ttl, servers, tuple(glue)))


def _refuse_barred(where: str, owner: bytes, apex: bytes, names: Mapping[bytes, Name]) -> None:
    for name in (owner, *_between(owner, apex)):
        found = names.get(name)
        if found is not None and found.cut is not None:
            raise ValueError(f"{where} lies in a delegated part of the zone")


def _fill(
    names: dict[bytes, Name], apexes: Mapping[bytes, int], switched_off: Iterable[bytes]
) -> None:
    """Add the empty non-terminals, and mark the access names that are not there at all."""
    blank = [Name(index, NO_SETS) for index in range(len(apexes))]
    parents: set[bytes] = set()
    for owner in list(names):
        if owner == ROOT or (owner in apexes and names[owner].above < 0):
            continue
        above = parent(owner)
        while above not in names:
            names[above] = blank[_home(above, apexes)]
            above = parent(above)
        parents.add(above)
    for owner in switched_off:
        if owner not in parents:
            names[owner] = replace(names[owner], absent=True)


def _home(owner: bytes, apexes: Mapping[bytes, int]) -> int:
    """The index of the deepest zone that a name lies in; -1 where there is none."""
    while True:
        index = apexes.get(owner, -1)
        if index >= 0 or owner == ROOT:
            return index
        owner = parent(owner)


def _between(owner: bytes, apex: bytes) -> Iterator[bytes]:
    """The names above `owner`, the apex included."""
    while owner != apex:
        owner = parent(owner)
        yield owner


def _under(owner: bytes, apex: bytes) -> bool:
    while owner != apex:
        if owner == ROOT:
            return False
        owner = parent(owner)
    return True
