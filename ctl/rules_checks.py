"""Rules over regions and checks: timing, who votes."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import msgspec
from msgspec import UNSET

from gtm.model import Check
from gtm.options import settings
from gtm.units import Share

from .findings import Findings

MIN_INTERVAL_MS = 1_000
MAX_INTERVAL_MS = 3_600_000


def judge(findings: Findings) -> None:
    """Note what is wrong with regions and checks."""
    resources = findings.resources
    for name, region in resources.regions.items():
        path = f"regions.{name}"
        findings.lines(f"{path}.lines", region.lines)
        findings.location(f"{path}.location", region.location)
    names, addresses = _of_names(findings), _used_by(findings, {"ipv4", "ipv6"})
    for name, check in resources.checks.items():
        _timing(findings, f"checks.{name}", check)
        _voters(findings, f"checks.{name}", check)
        _rate(findings, f"checks.{name}.max_probe_rate", check)
        for key, says in (
            ("ip_version", check.ip_version != "auto"),
            ("answering", check.answering != "any"),
        ):
            if says and name not in names:
                findings.warn(
                    f"checks.{name}.{key}", "says nothing: no pool of type domain has this check"
                )
        if name in addresses:
            _named(findings, f"checks.{name}", check)


def _named(findings: Findings, path: str, check: Check) -> None:
    """Few certificates name addresses: a check of addresses should say whose name is verified."""
    made = _settings(findings, check)
    if getattr(made, "names_address", False):
        names = "host or sni" if hasattr(made, "host") else "sni"
        findings.warn(
            path,
            f"without {names} a certificate must name each address itself; "
            f"give {names}, or say verify: false",
        )


def _of_names(findings: Findings) -> set[str]:
    """The checks that probe members of domain pools."""
    resources = findings.resources
    if len(resources.pools) < len(findings.names["pools"]):
        return set(resources.checks)  # who knows what the pools have that could not be read
    return _used_by(findings, {"domain"})


def _used_by(findings: Findings, types: set[str]) -> set[str]:
    """The checks that some member of a pool of these types has."""
    return {
        check
        for pool in findings.resources.pools.values()
        if pool.type in types
        for checks in (pool.checks, *(address.checked_by(pool) for address in pool.addresses))
        for check in checks
    }


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


def _rate(findings: Findings, path: str, check: Check) -> None:
    """The rate must leave each region that votes one probe an interval; fewer let votes lapse."""
    rate = check.max_probe_rate
    if rate is None or check.interval.ms == 0:
        return
    regions = len(set(check.regions) or findings.names["regions"]) or 1
    needed = regions * 1000 / check.interval.ms
    if needed > rate:
        every = "one region" if regions == 1 else f"each of {regions} regions"
        findings.error(
            path,
            f"{rate:g} probes a second are too few: {every} probes once in {check.interval}, "
            f"which is {needed:.3g} a second",
        )
    elif check.confirm and needed * 2 > rate:
        findings.warn(
            path,
            f"{rate:g} probes a second leave quick confirmation little: the interval alone takes "
            f"{needed:.3g}",
        )


def _span_ms(findings: Findings, check: Check) -> int:
    """The longest that one probe lasts, as the settings of its type say (`span_ms`)."""
    made = _settings(findings, check)
    return check.timeout.ms if made is None else int(made.span_ms(check.timeout.ms))


def _settings(findings: Findings, check: Check) -> Any:
    """The settings of a check as its type reads them; None for a type without a span."""
    type_ = findings.probes.get(check.type)
    if type_ is None or getattr(type_, "span_ms", None) is None:
        return None
    has_port = any(field.name == "port" for field in msgspec.structs.fields(type_))
    port = {"port": check.port} if has_port else {}
    return settings(check.options, type_, **port)


def _voters(findings: Findings, path: str, check: Check) -> None:
    findings.twice(f"{path}.regions", check.regions)
    for index, region in enumerate(check.regions):
        findings.unknown(f"{path}.regions[{index}]", "regions", region)
    healthy, rise = check.healthy_share, check.rise_share
    if check.failing_share is not UNSET and check.failing_share.of_one == 0:
        findings.error(f"{path}.failing_share", "with a share of 0% everything is down always")
        return
    if healthy is not UNSET:
        for key in ("failing_share", "rise_share"):
            if getattr(check, key) is not UNSET:
                findings.error(
                    f"{path}.{key}", "goes not with healthy_share: say the rule in one form"
                )
        if healthy.of_one == 1:
            findings.error(f"{path}.healthy_share", "more than 100% can't be up: all is down")
            return
    if rise is not UNSET and rise.of_one + check.fails_from.of_one <= 1:
        findings.warn(
            f"{path}.rise_share",
            f"says nothing: below the failing share of {check.fails_from} at least "
            f"{Share(1 - check.fails_from.of_one)} are up anyway",
        )
    voters = len(set(check.regions) or findings.names["regions"])
    if voters == 0:  # nobody is declared: who votes shows when agents come
        return
    if check.min_voters.count > voters:
        findings.warn(
            f"{path}.min_voters",
            f"{check.min_voters.count} is more than the {voters} regions that vote, "
            f"and counts as {voters}",
        )
    if Fraction(1, voters) >= check.fails_from.of_one:
        findings.warn(
            path,
            f"one region's word is enough to flip it: 1 of {voters} is not below "
            f"the failing share of {check.fails_from}",
        )
