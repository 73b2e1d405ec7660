"""The probe types and steering policies that this installation has."""

from __future__ import annotations

from gtm.config import Variants
from gtm.variants import settings_types


def registered() -> Variants:
    """All that are registered, by name."""
    return Variants(settings_types("agent.probes"), settings_types("resolver.steering"))
