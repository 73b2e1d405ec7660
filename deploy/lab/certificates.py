"""Scripts of the walk: what happens when certificates end and are renewed.

In a lab in the clear they do nothing, and say so.
"""

from __future__ import annotations

from . import asking, trust
from .ground import Ground, named
from .world import GRACE_S

SHORT_S = 6.0
"""How long a certificate is good that is to end: read by its part before that."""


def agent_certificate_ended(on: Ground) -> None:
    """Its stream ends with the certificate, the others decide; a new one brings it back."""
    if _in_the_clear(on):
        return
    agent = on.lab.node("agent-r1")
    trust.issue(on.lab.folder, agent, for_s=SHORT_S)
    on.until(lambda: on.lapsed("r1"), "the votes of r1 lapse")
    on.follows("a1")
    trust.issue(on.lab.folder, agent)
    took_s = on.until(lambda: asking.whole(on.lab), "it comes back")
    on.note(f"back {took_s:.1f} s after it was renewed")
    on.follows()


def certificates_renewed(on: Ground) -> None:
    """Every part takes its new one without a restart."""
    if _in_the_clear(on):
        return
    said = len(on.lab.log("agent-r2"))
    for node in on.lab.nodes:
        if (on.lab.folder / trust.FOLDER / f"{node.name}.pem").exists():
            trust.issue(on.lab.folder, node)
    on.until(lambda: "certificates are new" in on.lab.log("agent-r2")[said:], "agents show theirs")
    on.stands(GRACE_S)
    on.follows("a1")
    on.follows()


def _in_the_clear(on: Ground) -> bool:
    if on.shape.insecure:
        on.note("left out: links are in the clear")
    return on.shape.insecure


SCRIPTS = named(agent_certificate_ended, certificates_renewed)
