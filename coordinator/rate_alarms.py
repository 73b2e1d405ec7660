"""What a bound on probes is worth an alarm for: more agents in a region than its part feeds. Pure.

The agents of a region share its part of `max_probe_rate`: as soon as there are more of them than
the part has probes in an interval, each probes less often than that, and from the grace on what it
saw lapses before its next probe. One alarm for all checks: the cause is one more agent.
"""

from __future__ import annotations

from collections.abc import Iterable

from gtm.units import Duration

from .alarms import AGENT_MISSING_MS, Condition
from .targets import Targets, gap_ms, grace_ms
from .views import RegionView

ID = "agents-beyond-rate"


def conditions(targets: Targets, regions: Iterable[RegionView]) -> dict[str, Condition]:
    """The condition that holds now, if it does; it names the check that is off the most.

    It has to hold for as long as a region may be without an agent: agents are replaced one by one.
    """
    several = {one.name: one.agents for one in regions if one.agents > 1}
    if not several:
        return {}
    found: list[tuple[float, str, str]] = []
    for name, check, who in targets.rated():
        gap = gap_ms(check, len(who.regions))
        agents, region = max(((several.get(one, 0), one) for one in who.regions), default=(0, ""))
        every = agents * gap
        if every <= check.interval.ms:
            continue
        lapse = ", and what it saw lapses in between" if every >= grace_ms(check) else ""
        text = (
            f"max_probe_rate of check {name} leaves region {region} one probe of a target in"
            f" {Duration(gap)}, so each of its {agents} agents probes it every {Duration(every)},"
            f" not every {check.interval}{lapse}"
        )
        found.append((every / check.interval.ms, name, text))
    if not found:
        return {}
    found.sort(key=lambda one: (-one[0], one[1]))
    more = f" (further checks: {len(found) - 1})" if len(found) > 1 else ""
    text = f"{found[0][2]}{more}: raise the rate, or run fewer agents there"
    return {ID: Condition(text, AGENT_MISSING_MS)}
