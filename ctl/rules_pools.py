"""Rules over pools: what their members are, who judges them, and counts that can be met."""

from __future__ import annotations

from msgspec import UNSET

from gtm.forms import is_domain
from gtm.model import OUT, Address, Pool

from .findings import Findings

MAX_ADDRESSES = 4_096
"""The most members of one pool: its published state stays far below what one request holds."""


def judge(findings: Findings) -> None:
    """Note what is wrong with pools."""
    for name, pool in findings.resources.pools.items():
        path = f"pools.{name}"
        _checks(findings, f"{path}.checks", pool.checks)
        if pool.flatten and pool.type != "domain":
            findings.error(
                f"{path}.flatten",
                f"only names are flattened, and the pool's type is {pool.type}; leave it out",
            )
        if len(pool.addresses) > MAX_ADDRESSES:
            findings.error(
                f"{path}.addresses",
                f"more than {MAX_ADDRESSES:,} addresses; spread them over pools",
            )
            continue
        _members(findings, path, pool)
        _judgement(findings, path, pool)
        _counts(findings, path, pool)
        _floor(findings, path, pool)
        _nearness(findings, path, pool)


def _floor(findings: Findings, path: str, pool: Pool) -> None:
    """Note a floor that keeps nobody."""
    if pool.floor is UNSET:
        return
    if pool.floor.of_one == 0:
        findings.error(f"{path}.floor", "a floor of 0% keeps nobody in answers; leave it out")
    elif not any(
        address.mode == "smart" and address.checked_by(pool) for address in pool.addresses
    ):
        findings.warn(f"{path}.floor", "says nothing: health takes none of the addresses out")


def _nearness(findings: Findings, path: str, pool: Pool) -> None:
    """Note a choice by nearness among members that are nowhere."""
    if pool.steering.type != "nearest" or len(pool.addresses) < 2:
        return
    if not any(address.lines or address.location for address in pool.addresses):
        findings.warn(
            f"{path}.steering", "all are equally near: no address has lines or a location"
        )


def answerable(pool: Pool) -> int:
    """How many of its members may ever be answered, and count."""
    return sum(address.mode not in OUT for address in pool.addresses)


def _checks(findings: Findings, path: str, checks: tuple[str, ...]) -> None:
    findings.twice(path, checks)
    for index, check in enumerate(checks):
        findings.unknown(f"{path}[{index}]", "checks", check)


def _members(findings: Findings, path: str, pool: Pool) -> None:
    first: dict[str, int] = {}
    for index, address in enumerate(pool.addresses):
        place = f"{path}.addresses[{index}]"
        type_ = _type(address.value)
        if type_ != pool.type:
            what = "a domain name" if type_ == "domain" else type_
            findings.error(
                f"{place}.value", f"{address.value} is {what}, the pool's type is {pool.type}"
            )
        if address.value in first:
            findings.error(
                f"{place}.value",
                f"{address.value} stands twice, first as addresses[{first[address.value]}]",
            )
        first.setdefault(address.value, index)
        if isinstance(address.checks, tuple):
            _checks(findings, f"{place}.checks", address.checks)
        if address.lines:
            findings.lines(f"{place}.lines", address.lines)
        findings.location(f"{place}.location", address.location)
        if isinstance(address.port, int):
            _port(findings, f"{place}.port", address, pool)


def _type(value: str) -> str:
    if is_domain(value):
        return "domain"
    return "ipv6" if ":" in value else "ipv4"


def _port(findings: Findings, path: str, address: Address, pool: Pool) -> None:
    """Note a port that no check probes, or that stands for several different ones."""
    known = findings.resources.checks
    names = address.checked_by(pool)
    if not names or any(name not in known for name in names):
        return
    ports = {known[name].port for name in names} - {0}
    if not ports:
        findings.warn(path, f"is not probed: {' and '.join(names)} has no port")
    elif len(ports) > 1:
        listed = ", ".join(map(str, sorted(ports)))
        findings.warn(path, f"is probed by all its checks, instead of their ports {listed}")


def _judgement(findings: Findings, path: str, pool: Pool) -> None:
    """Note a judgement by checks that the members don't have."""
    judgement = pool.check_judgement
    for index, name in enumerate(judgement.must):
        place = f"{path}.check_judgement.must[{index}]"
        if name in findings.names["checks"] and pool.checks and name not in pool.checks:
            findings.error(
                place, f"{name!r} is none of the pool's checks ({', '.join(pool.checks)})"
            )
        else:
            findings.unknown(place, "checks", name)
    if pool.checks and judgement.least.count > len(pool.checks) and not judgement.must:
        findings.warn(
            f"{path}.check_judgement",
            f"{judgement} can never be met: the pool has {_number(len(pool.checks))}",
        )
    for index, address in enumerate(pool.addresses):
        own = address.checks
        if not isinstance(own, tuple) or not own:
            continue
        place = f"{path}.addresses[{index}].checks"
        missing = [name for name in judgement.must if name not in own]
        if missing:
            findings.error(
                place, f"{missing[0]!r} is none of them, which check_judgement says must be up"
            )
        elif judgement.least.count > len(own) and not judgement.must:
            findings.warn(
                place, f"the check_judgement {judgement} can never be met by {_number(len(own))}"
            )


def _number(checks: int) -> str:
    return f"{checks} check{'' if checks == 1 else 's'}"


def _counts(findings: Findings, path: str, pool: Pool) -> None:
    eligible = answerable(pool)
    if pool.addresses and pool.min_available.count > eligible:
        findings.warn(
            f"{path}.min_available",
            f"{pool.min_available} can never be met: {eligible} of the addresses may be answered",
        )
    if len(pool.addresses) > 1 and not any(address.weight for address in pool.addresses):
        findings.warn(f"{path}.addresses", "all weights are 0, which counts as all of them alike")
