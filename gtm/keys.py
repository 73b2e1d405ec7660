"""The one place that spells a key of the store (docs/architecture.md has the layout).

All that a resolver reads lies under `SERVE`.
"""

from __future__ import annotations

from urllib.parse import quote, unquote

from msgspec import Struct

ROOT = "/gtm/v1/"
SERVE = ROOT + "serve/"
HEAD = SERVE + "head"
CONFIG = SERVE + "config/"
RECORDS = SERVE + "records/"
POOLS = SERVE + "pools/"
ROUTES = SERVE + "routes/"
REGIONS = ROOT + "regions/"
ASIDE = ROOT + "aside/"
IDS = ROOT + "ids/"
FORCES = ROOT + "forces/"
VERDICTS = ROOT + "verdicts/"
ALARMS = ROOT + "alarms/"
AUDIT = ROOT + "audit/"
AUDIT_HEAD = AUDIT + "head"
HISTORY = ROOT + "history/"
COORDINATORS = ROOT + "members/coordinators/"
AGENTS = ROOT + "members/agents/"
LEADERS = ROOT + "leaders/"


def config(kind: str, name: str) -> str:
    """A resource as users wrote it."""
    return f"{CONFIG}{kind}/{name}"


def records(zone: str, bucket: str) -> str:
    """One bucket of a zone's static records; `bucket` is a text of bits, "-" for the only one."""
    return f"{RECORDS}{zone}/{bucket}"


def pool(name: str) -> str:
    """A pool's published state."""
    return POOLS + name


def routes(instance: str) -> str:
    """The published routes of an instance's rules."""
    return ROUTES + instance


def region(name: str) -> str:
    """A region that was met."""
    return REGIONS + name


def aside(region_name: str) -> str:
    """A region that is set aside."""
    return ASIDE + region_name


def identity(instance_id: str) -> str:
    """Who holds an instance id."""
    return IDS + instance_id


def force(target: str) -> str:
    """An operator's override; `/` and `:` of its target are escaped (RFC 3986, section 2.1)."""
    return FORCES + quote(target, safe="")


def force_target(key: str) -> str:
    """The target of a force's key."""
    return unquote(key.removeprefix(FORCES))


def verdict(check: str, address: str, port: int) -> str:
    """The last verdict over a target."""
    return f"{VERDICTS}{check}/{address}/{port}"


def verdicts(check: str, address: str) -> str:
    """Where the verdicts of one check over one address lie, on whatever port."""
    return f"{VERDICTS}{check}/{address}/"


def alarm(alarm_id: str) -> str:
    """An alarm that stands."""
    return ALARMS + alarm_id


AUDIT_DIGITS = 16
"""Digits of an entry's number in its key, so that keys come in order."""
AUDIT_BLOCK = 100
"""Entries whose keys share a prefix (`audit_block`)."""


def audit(seq: int) -> str:
    """An entry of the audit trail, numbered from 1."""
    return f"{AUDIT}{seq:0{AUDIT_DIGITS}d}"


def audit_block(seq: int) -> str:
    """The prefix of the keys of all entries in the block of `seq`."""
    return audit(seq)[:-2]


HISTORY_MS = 10**6
"""Milliseconds of the history whose keys share a prefix (`history_part`)."""


def history(time_ms: int, seq: int) -> str:
    """An entry of the history: when it was decided (Unix milliseconds), and a number."""
    return f"{HISTORY}{time_ms:013d}-{seq:06d}"


def history_part(time_ms: int) -> str:
    """The prefix of the keys of all entries in the `HISTORY_MS` that hold `time_ms`."""
    return f"{HISTORY}{time_ms:013d}"[:-6]


def history_ms(key: str) -> int:
    """When the entry of a key was decided; ValueError for another key."""
    return int(key.removeprefix(HISTORY).partition("-")[0])


def coordinator(member: str) -> str:
    """A coordinator that is alive (under its lease)."""
    return COORDINATORS + member


def agent(coordinator_id: str, agent_id: str) -> str:
    """An agent that streams to a coordinator (under the coordinator's lease)."""
    return f"{AGENTS}{coordinator_id}/{agent_id}"


def leader(shard: int = 0) -> str:
    """The leadership of a shard."""
    return f"{LEADERS}{shard}"


class Spelled(Struct, frozen=True):
    """What a key under `SERVE` names: `what` is head, config, records, pools or routes."""

    what: str
    kind: str = ""
    name: str = ""
    bucket: str = ""


def spelled(key: str) -> Spelled | None:
    """The reverse of the functions above, for keys under `SERVE`; None where no form is known."""
    if not key.startswith(SERVE):
        return None
    match key[len(SERVE) :].split("/"):
        case ["head"]:
            return Spelled("head")
        case ["config", kind, name]:
            return Spelled("config", kind=kind, name=name)
        case ["records", zone, bucket]:
            return Spelled("records", name=zone, bucket=bucket)
        case ["pools" | "routes" as what, name]:
            return Spelled(what, name=name)
    return None


def verdict_target(key: str) -> tuple[str, str, int]:
    """(check, address, port) of a verdict's key; ValueError for another key."""
    check, address, port = key.removeprefix(VERDICTS).split("/")
    return check, address, int(port)
