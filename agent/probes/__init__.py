"""Probe types, one file each: settings, behaviour and documentation; the name registers it."""
