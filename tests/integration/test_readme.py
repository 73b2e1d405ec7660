"""The tour of README.md, executed: its commands run, its digs are answered as its comments say."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctl.running import Running

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SHELL = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.S))
CONFIG = ROOT / "examples" / "quickstart.yaml"

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(shutil.which("dig") is None, reason="dig is not installed"),
]


@pytest.fixture(scope="module")
def origins() -> Iterator[dict[str, "subprocess.Popen[bytes]"]]:
    found = re.findall(r"python3 -m http.server (\d+) --bind (\S+) &", SHELL)
    assert len(found) == 2
    started = {
        address: subprocess.Popen(
            [sys.executable, "-m", "http.server", port, "--bind", address],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for port, address in found
    }
    yield started
    for process in started.values():
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def running(
    origins: dict[str, "subprocess.Popen[bytes]"], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    assert "gtm up -c examples/quickstart.yaml" in SHELL
    with Running(tmp_path_factory.mktemp("tour"), config=CONFIG) as running:
        yield running


def gtm(line: str, running: Running | None = None) -> str:
    """Run a command line of the tour that begins with `gtm`."""
    words = shlex.split(line, comments=True)
    assert words[0] == "gtm"
    environ = {name: text for name, text in os.environ.items() if not name.startswith("GTM_")}
    done = subprocess.run(
        [sys.executable, "-m", "ctl", *words[1:]],
        env=environ | (running.environ if running else {}),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{line}: {done.stderr}"
    return done.stdout


def dig(line: str, running: Running) -> list[str]:
    host, _, port = running.dns[0].rpartition(":")
    words = shlex.split(line.replace("@127.0.0.1", f"@{host}").replace("5300", port), comments=True)
    return sorted(subprocess.check_output([*words, "+short"], text=True, timeout=20).split())


DIGS = re.findall(r"^(dig .*?)\s+# \w+: (\S+)$", SHELL, re.M)
COMMANDS = re.findall(r"^gtm (?:health|explain|status|plan|validate).*$", SHELL, re.M)


def test_the_tour_has_what_this_file_executes() -> None:
    assert len(DIGS) == 2
    assert len(COMMANDS) >= 5


@pytest.mark.parametrize(("line", "expected"), DIGS)
def test_dig_is_answered_as_the_tour_says(line: str, expected: str, running: Running) -> None:
    assert dig(line, running) == [expected]


@pytest.mark.parametrize("line", COMMANDS)
def test_the_commands_of_the_tour_work(line: str, running: Running) -> None:
    assert gtm(line, None if "validate" in line else running)


def test_when_an_origin_stops_its_clients_get_the_backup(
    running: Running, origins: dict[str, "subprocess.Popen[bytes]"]
) -> None:
    origins["127.0.0.11"].kill()
    deadline = time.monotonic() + 20
    while dig(DIGS[0][0], running) != ["127.0.0.31"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert dig(DIGS[1][0], running) == ["127.0.0.21"]


def test_every_flag_of_the_deployment_lines_is_there() -> None:
    lines = re.findall(r"^gtm (coordinator|agent|resolver) ((?:.*\\\n)*.*)$", SHELL, re.M)
    assert len(lines) == 3
    for part, arguments in lines:
        listed = gtm(f"gtm {part} --help")
        for flag in re.findall(r"--[a-z-]+", arguments):
            assert flag in listed, f"gtm {part} {flag}"
