"""Writes docs/configuration.md and docs/gtm.schema.json from the model: `python -m ctl.docs`.

With `--check` writes nothing, and ends with status 1 where one of them is not current.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from .docs_page import page
from .docs_schema import schema
from .validate import registered

DOCS = Path(__file__).parent.parent / "docs"


def documents() -> dict[Path, str]:
    """Every generated document by its path."""
    variants = registered()
    return {
        DOCS / "configuration.md": page(variants),
        DOCS / "gtm.schema.json": json.dumps(schema(variants), indent=1) + "\n",
    }


def main(arguments: list[str]) -> int:
    """Write the documents, or check them; the exit status."""
    stale = [
        path
        for path, text in documents().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    if "--check" in arguments:
        for path in stale:
            print(f"{path} is not current: run make docs", file=sys.stderr)
        return 1 if stale else 0
    for path, text in documents().items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
