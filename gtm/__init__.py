"""The kernel of Meridian GTM: nouns, units, keys, stores and ports that every part shares."""

__version__ = "0.1.0"
