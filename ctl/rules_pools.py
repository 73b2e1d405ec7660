"""Rules over regions, checks and pools: timing, families, counts, who votes."""

from __future__ import annotations

from fractions import Fraction

import msgspec

from gtm.model import Check, Pool
from gtm.options import settings

from .findings import Findings

MIN_INTERVAL_MS = 1_000
MAX_INTERVAL_MS = 3_600_000
MAX_ADDRESSES = 4_096
"""The most members of one pool: its published state stays far below what one request holds."""


def judge(findings: Findings) -> None:
    """Note what is wrong with regions, checks and pools."""
    resources = findings.resources
    for name, region in resources.regions.items():
        path = f"regions.{name}"
        findings.twice(f"{path}.lines", region.lines)
        if region.location is not None:
            latitude, longitude = region.location
            if not -90 <= latitude <= 90:
                findings.error(f"{path}.location[0]", f"{latitude} is no latitude in -90 to 90")
            if not -180 <= longitude <= 180:
                findings.error(f"{path}.location[1]", f"{longitude} is no longitude in -180 to 180")
    for name, check in resources.checks.items():
        _timing(findings, f"checks.{name}", check)
        _voters(findings, f"checks.{name}", check)
    for name, pool in resources.pools.items():
        _pool(findings, f"pools.{name}", pool)


def _timing(findings: Findings, path: str, check: Check) -> None:
    interval, timeout = check.interval, check.timeout
    if not MIN_INTERVAL_MS <= interval.ms <= MAX_INTERVAL_MS:
        findings.error(f"{path}.interval", f"{interval} is not between 1s and 1h")
    if timeout.ms == 0:
        findings.error(f"{path}.timeout", "0s leaves no time for a probe")
    elif timeout.ms > interval.ms:
        findings.error(f"{path}.timeout", f"{timeout} is longer than the interval {interval}")
    else:
        longest = _span_ms(findings, check)
        if longest > interval.ms:
            findings.error(
                path,
                f"a probe lasts up to {longest / 1000:g}s ((packets - 1) x spacing + timeout), "
                f"longer than the interval {interval}",
            )


def _span_ms(findings: Findings, check: Check) -> int:
    """The longest that one probe lasts, as the settings of its type say (`span_ms`)."""
    type_ = findings.probes.get(check.type)
    span = getattr(type_, "span_ms", None)
    if type_ is None or span is None:
        return check.timeout.ms
    has_port = any(field.name == "port" for field in msgspec.structs.fields(type_))
    port = {"port": check.port} if has_port else {}
    return int(span(settings(check.options, type_, **port), check.timeout.ms))


def _voters(findings: Findings, path: str, check: Check) -> None:
    findings.twice(f"{path}.regions", check.regions)
    for index, region in enumerate(check.regions):
        findings.unknown(f"{path}.regions[{index}]", "regions", region)
    if check.failing_share.of_one == 0:
        findings.error(f"{path}.failing_share", "with a share of 0% everything is down always")
        return
    voters = len(set(check.regions) or findings.names["regions"])
    if voters == 0:  # nobody is declared: who votes shows when agents come
        return
    if check.min_voters.count > voters:
        findings.warn(
            f"{path}.min_voters",
            f"{check.min_voters.count} is more than the {voters} regions that vote, "
            f"and counts as {voters}",
        )
    if Fraction(1, voters) >= check.failing_share.of_one:
        findings.warn(
            path,
            f"one region's word is enough to flip it: 1 of {voters} is not below "
            f"the failing share of {check.failing_share}",
        )


def _pool(findings: Findings, path: str, pool: Pool) -> None:
    if len(pool.checks) > 1:
        findings.error(
            f"{path}.checks", "several checks for one pool are not supported by this version"
        )
    for index, check in enumerate(pool.checks):
        findings.unknown(f"{path}.checks[{index}]", "checks", check)
    if len(pool.addresses) > MAX_ADDRESSES:
        findings.error(
            f"{path}.addresses", f"more than {MAX_ADDRESSES:,} addresses; spread them over pools"
        )
        return
    first: dict[str, int] = {}
    for index, address in enumerate(pool.addresses):
        place = f"{path}.addresses[{index}]"
        family = "ipv6" if ":" in address.value else "ipv4"
        if family != pool.type:
            findings.error(
                f"{place}.value", f"{address.value} is {family}, the pool's type is {pool.type}"
            )
        if address.value in first:
            findings.error(
                f"{place}.value",
                f"{address.value} stands twice, first as addresses[{first[address.value]}]",
            )
        first.setdefault(address.value, index)
    eligible = sum(address.mode != "offline" for address in pool.addresses)
    if pool.addresses and pool.min_available.count > eligible:
        findings.warn(
            f"{path}.min_available",
            f"{pool.min_available} can never be met: {eligible} of the addresses may be answered",
        )
