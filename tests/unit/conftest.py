"""What unit tests share: commands ask stand-ins of a coordinator, which have no certificate."""

import pytest


@pytest.fixture(autouse=True)
def in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    """As somebody who was told `--insecure`."""
    monkeypatch.setenv("GTM_INSECURE", "1")
