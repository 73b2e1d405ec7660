"""`gtm version`."""

from __future__ import annotations

import argparse

from gtm import __version__


def add(command: str, parser: argparse.ArgumentParser) -> None:
    """No flags."""
    parser.description = "print the version"


def run(args: argparse.Namespace) -> int:
    """Print the version."""
    print(f"gtm {__version__}")
    return 0
