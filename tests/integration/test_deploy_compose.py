"""The image and the compose file: checked by rules, then started as processes on loopback.

No container engine is needed: the commands of compose.yaml run as they are written, each service on
a loopback address of its own that stands for its name.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ctl.digs import Question, ask, free_port
from ctl.main import main
from gtm.embedded import environment, find_etcd
from gtm.errors import StartError
from gtm.settings import settings, unset

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
IMAGE = "meridian-gtm:local"
PARTS = ("coordinator", "agent", "resolver")
OURS = {
    name: one for name, one in SERVICES.items() if one["image"] == IMAGE and "entrypoint" not in one
}
NAME = "gtm12345678.gtm-000.test"
ONE_SHOTS = ("certificates", "users")


def instructions(text: str) -> list[tuple[str, str]]:
    """(instruction, the rest) of a Dockerfile, with continued lines joined."""
    joined = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.M))
    rows = (line.strip().partition(" ") for line in joined.splitlines() if line.strip())
    return [(word.upper(), re.sub(r"\s+", " ", rest).strip()) for word, _, rest in rows]


def tool(name: str) -> str:
    """A program of the test environment; skips where it is not installed."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(*command: str) -> None:
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


# ---- the image -----------------------------------------------------------------------------------


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    run(tool("hadolint"), "--failure-threshold", "style", "deploy/Dockerfile")


def test_the_image_runs_as_a_numbered_user_without_rights() -> None:
    last = instructions(DOCKERFILE)
    users = [rest for word, rest in last if word == "USER"]
    assert len(users) == 1
    assert all(int(number) > 0 for number in users[0].split(":"))
    after = last[last.index(("USER", users[0])) :]
    assert "RUN" not in [word for word, _ in after]
    assert "setcap" not in DOCKERFILE


def test_the_image_has_every_package_of_the_distribution_and_nothing_else() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {name.partition(".")[0] for name in project["tool"]["setuptools"]["packages"]}
    build = next(stage for stage in DOCKERFILE.split("\nFROM") if " AS build" in stage)
    copied = re.findall(r"^COPY (\S+) (\S+)$", build, re.M)
    assert {source for source, target in copied if source == target} == {*packages, "native"}
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text()
    assert {line[1:] for line in ignored.splitlines() if line.startswith("!")} == {
        *packages, "native", "pyproject.toml", "setup.py", "README.md", "LICENSE",
    }  # fmt: skip


def test_the_image_installs_the_geo_data_that_make_installs() -> None:
    wanted = re.search(r"^GEO := (\S+)$", (ROOT / "Makefile").read_text(), re.M)
    assert wanted is not None
    installs = [rest for word, rest in instructions(DOCKERFILE) if word == "RUN"]
    assert any(f"--no-deps {wanted[1]}" in rest for rest in installs)


def health_command() -> list[str]:
    rest = next(rest for word, rest in instructions(DOCKERFILE) if word == "HEALTHCHECK")
    command: list[str] = json.loads(rest.partition(" CMD ")[2])
    return command


# ---- the compose file --------------------------------------------------------------------------


def test_the_compose_file_fits_the_published_schema_and_docker_compose_reads_it() -> None:
    tool("check-jsonschema")
    run(
        sys.executable, "-m", "check_jsonschema",
        "--builtin-schema", "vendor.compose-spec", "deploy/compose.yaml",
    )  # fmt: skip
    docker = shutil.which("docker")
    asked = [docker or "", "compose", "version"]
    if docker and subprocess.run(asked, capture_output=True, check=False).returncode == 0:
        run(docker, "compose", "-f", "deploy/compose.yaml", "--profile", "*", "config", "--quiet")


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_no_rights_that_it_does_not_need(name: str) -> None:
    one = SERVICES[name]
    assert one["cap_drop"] == ["ALL"]
    assert one["security_opt"] == ["no-new-privileges:true"]
    assert one["read_only"] is True
    assert one["mem_limit"]
    assert one["pids_limit"]
    assert not {"cap_add", "privileged", "pid", "ipc"} & one.keys()
    # What fills fresh volumes, which are root's, is root without a capability, and reaches nobody.
    alone = {"network_mode": "none", "user": "0:0"} if name == "certificates" else {}
    assert {key: one[key] for key in ("network_mode", "user") if key in one} == alone
    for published in one.get("ports", ()):
        assert published.startswith("127.0.0.1:"), "nothing is published beyond this machine"
    for volume in one.get("volumes", ()):
        source, _, rest = volume.partition(":")
        assert source in COMPOSE["volumes"] or rest.endswith(":ro"), volume


def test_the_network_between_the_parts_is_closed() -> None:
    assert COMPOSE["networks"]["gtm"]["internal"] is True
    for name, one in SERVICES.items():
        outside = set(one.get("networks", ())) - {"gtm"}
        assert not outside or name.startswith(("resolver-", "prometheus")), name


def test_every_link_has_certificates_and_every_holder_alone_has_its_own() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    assert "insecure" not in text
    assert set(re.findall(r"http://([a-z0-9.-]+):\d+", text)) == {"127.0.0.1"}
    holders: dict[str, list[str]] = {}
    for name, one in SERVICES.items():
        for volume in one.get("volumes", ()):
            source, target, *rest = volume.split(":")
            if source.startswith("tls-") and name != "certificates":
                assert (target, rest) == ("/tls", ["ro"]), volume
                holders.setdefault(source, []).append(name)
    operators = ["first", "gtm"]
    etcds = ["etcd-1", "etcd-2", "etcd-3"]
    shared = {"tls-etcd": etcds, "tls-operator": operators, "tls-root": ["users"]}
    parts = [name for name, one in OURS.items() if one["command"][0] in PARTS]
    assert holders == shared | {f"tls-{name}": [name] for name in parts}
    made = SERVICES["certificates"]["volumes"]
    assert {one.partition(":")[0] for one in made[1:]} == {*holders, "tls-authority"}
    script = (DEPLOY / "compose/certificates.sh").read_text()
    assert {f"tls-{holder}" for holder in re.findall(r"^issue (\S+) ", script, re.M)} == set(
        holders
    )


@pytest.mark.parametrize("name", OURS)
def test_a_command_has_flags_that_gtm_knows(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command, *rest = SERVICES[name]["command"]
    assert main([command, "--help"]) == 0
    known = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))
    flags = {word.partition("=")[0] for word in rest if word.startswith("--")}
    assert flags or name == "gtm"
    assert flags <= known
    if command in PARTS:
        part = __import__(f"{command}.settings", fromlist=["Settings"])
        variables = {one.variable for one in settings(part.Settings)}
        assert set(SERVICES[name].get("environment", {})) <= variables


def test_every_address_that_is_named_is_a_service() -> None:
    text = (DEPLOY / "compose/first.yaml").read_text()
    origins = {
        one["networks"]["gtm"]["ipv4_address"]
        for one in SERVICES.values()
        if isinstance(one.get("networks"), dict)
    }
    assert set(re.findall(r"value: ([\d.]+)", text)) == origins
    for one in SERVICES.values():
        for word in one["command"]:
            for host in re.findall(r"(?:^|[=,/@])([a-z][a-z0-9-]*):\d+", word):
                assert host in SERVICES, word
        for needed in one.get("depends_on", {}):
            assert needed in SERVICES


def test_prometheus_scrapes_the_doors_of_every_part() -> None:
    listed = yaml.safe_load((DEPLOY / "prometheus/targets.yml").read_text())
    found = {target: group["labels"]["part"] for group in listed for target in group["targets"]}
    wanted = {
        f"{name}:{one['environment']['GTM_HTTP'].rpartition(':')[2]}": one["command"][0]
        for name, one in OURS.items()
        if one["command"][0] in PARTS
    }
    assert found == wanted


# ---- the commands, run ---------------------------------------------------------------------------


class Containers:
    """The services as processes: names and wildcards become loopback addresses, nothing else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        dice = random.SystemRandom()
        net = f"127.{dice.randrange(64, 250)}.{dice.randrange(256)}"
        self.ip = {name: f"{net}.{10 + number}" for number, name in enumerate(SERVICES)}
        self.dns = str(free_port(self.ip["resolver-1"]))
        self._fixed = {
            one["networks"]["gtm"]["ipv4_address"]: self.ip[name]
            for name, one in SERVICES.items()
            if isinstance(one.get("networks"), dict)
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        first = (DEPLOY / "compose/first.yaml").read_text()
        for fixed, ip in self._fixed.items():
            first = first.replace(f"value: {fixed}", f"value: {ip}")
        (folder / "first.yaml").write_text(first)
        script = (DEPLOY / "compose/certificates.sh").read_text().replace("/tls/", f"{folder}/tls-")
        script = re.sub(
            r"--host (\S+)", lambda found: f"--host {self.ip.get(found[1], found[1])}", script
        )
        (folder / "certificates.sh").write_text(script)
        (folder / "users.py").write_text((DEPLOY / "compose/users.py").read_text())
        for volume in COMPOSE["volumes"]:
            (folder / volume).mkdir()

    def words(self, name: str, text: str) -> str:
        """A word of a command or of the environment of a service, as it is here."""
        text = text.replace("0.0.0.0:53", f"0.0.0.0:{self.dns}")
        text = text.replace("0.0.0.0", self.ip[name])
        for volume in SERVICES[name].get("volumes", ()):
            source, target = volume.split(":")[:2]
            text = text.replace(target, str(self.folder / Path(source).name))
        return re.sub(
            r"(?<![\w-])([a-z][a-z0-9-]*)(?=:\d)",
            lambda found: self.ip.get(found[1], found[1]),
            text,
        )

    def command(self, name: str) -> list[str]:
        one = SERVICES[name]
        words = [self.words(name, word) for word in (*one.get("entrypoint", ()), *one["command"])]
        if name in OURS:
            return [sys.executable, "-m", "ctl", *words]
        programs = {"python": sys.executable, "sh": "/bin/sh", "/usr/local/bin/etcd": find_etcd()}
        return [str(programs[words[0]]), *words[1:]]

    def environ(self, name: str) -> dict[str, str]:
        clean = unset(os.environ)
        clean["PATH"] = f"{Path(sys.executable).parent}:{clean.get('PATH', '')}"
        given = SERVICES[name].get("environment", {})
        return {
            **(clean if name in OURS else {**environment(), "PATH": clean["PATH"]}),
            "GTM_DATA_DIR": str(self.folder / name),
            **{key: self.words(name, text) for key, text in given.items()},
        }

    def start(self, *names: str) -> None:
        for name in names:
            with (self.folder / f"{name}.log").open("ab") as log:
                self.processes[name] = subprocess.Popen(
                    self.command(name), env=self.environ(name), cwd=ROOT,
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                )  # fmt: skip

    def ended(self, name: str, *more: str) -> tuple[int, str]:
        """Run a one-shot service, with other words as `run` takes them; its status and output."""
        words = self.command(name)
        if more:
            words = [*words[: -len(SERVICES[name]["command"])], *more]
        done = subprocess.run(
            words, env=self.environ(name), cwd=ROOT, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout

    def healthy(self, name: str) -> bool:
        """What the image's HEALTHCHECK says of a part."""
        program, *rest = (word.replace("127.0.0.1", self.ip[name]) for word in health_command())
        assert program == "python"
        done = subprocess.run(
            [sys.executable, *rest], env=self.environ(name), capture_output=True, check=False
        )
        return done.returncode == 0

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def stop(self) -> None:
        for process in reversed(list(self.processes.values())):
            process.terminate()
        for process in self.processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()


def until(condition: Callable[[], Any], why: Callable[[], str], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, why()
        time.sleep(0.1)


@pytest.fixture(scope="module")
def containers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    try:
        find_etcd()
    except StartError as error:
        pytest.skip(str(error))
    made = Containers(tmp_path_factory.mktemp("compose"))
    try:
        status, told = made.ended("certificates")
        assert status == 0, told
        made.start(*(name for name in SERVICES if name.startswith("etcd-")))
        others = {*OURS, *ONE_SHOTS}
        made.start(
            *(name for name, one in SERVICES.items() if "entrypoint" in one and name not in others)
        )
        yield made
    finally:
        made.stop()


def files(folder: Path) -> dict[str, bytes]:
    """Every certificate and key under `folder`, by its path."""
    found = sorted(folder.glob("tls-*/*"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_certificates_that_are_there_are_left_and_missing_ones_are_made(
    tmp_path: Path,
) -> None:
    made = Containers(tmp_path)
    status, told = made.ended("certificates")
    assert status == 0, told
    first = files(tmp_path)
    keys = [name for name in first if name.endswith(".key")]
    assert len(keys) == len([name for name in COMPOSE["volumes"] if name.startswith("tls-")])
    assert [name for name in keys if name.endswith("/ca.key")] == ["tls-authority/ca.key"]
    assert (tmp_path / "tls-authority/ca.key").stat().st_mode & 0o777 == 0o600

    status, told = made.ended("certificates")
    assert (status, files(tmp_path)) == (0, first), told
    assert told.count("nothing to do") == len(keys) - 1

    (tmp_path / "tls-agent-eu/agent.pem").unlink()
    assert made.ended("certificates")[0] == 0
    changed = {name for name, data in files(tmp_path).items() if data != first[name]}
    assert changed == {"tls-agent-eu/agent.pem", "tls-agent-eu/agent.key"}

    (tmp_path / "tls-authority/ca.pem").unlink()  # another authority: all is issued anew
    assert made.ended("certificates")[0] == 0
    assert not {name for name, data in files(tmp_path).items() if data == first[name]}


def test_members_of_etcd_are_healthy_and_take_nobody_without_a_certificate(
    containers: Containers,
) -> None:
    etcdctl = find_etcd().with_name("etcdctl")
    if not etcdctl.exists():
        pytest.skip("etcdctl is not installed")
    health = [str(etcdctl), *SERVICES["etcd-1"]["healthcheck"]["test"][2:]]
    for name in ("etcd-1", "etcd-2", "etcd-3"):
        environ = {
            key: text.replace("127.0.0.1", containers.ip[name])
            for key, text in containers.environ(name).items()
        }

        def healthy(environ: dict[str, str] = environ) -> bool:
            done = subprocess.run(health, env=environ, capture_output=True, check=False)
            return done.returncode == 0

        until(healthy, lambda name=name: containers.log(name))  # type: ignore[misc]
    nobody = {
        key: text for key, text in environ.items() if key not in {"ETCDCTL_CERT", "ETCDCTL_KEY"}
    }
    assert not healthy(nobody)


def test_the_services_come_up_in_their_order_answer_and_fail_over(containers: Containers) -> None:
    def answer(client: str) -> set[str]:
        server = f"{containers.ip['resolver-2']}:{containers.dns}"
        return set(ask(server, Question(NAME, client), tries=1).addresses)

    def origin(name: str) -> set[str]:
        return {containers.ip[name]}

    # As `restart: on-failure` does while the three members elect a leader.
    until(lambda: containers.ended("users")[0] == 0, lambda: containers.log("etcd-1"))
    started = time.monotonic()
    while True:  # as `restart: unless-stopped` does while the three members elect a leader
        containers.start("coordinator")
        process = containers.processes["coordinator"]
        until(
            lambda process=process: process.poll() is not None or containers.healthy("coordinator"),
            lambda: containers.log("coordinator"),
        )
        if process.poll() is None:
            break
        assert time.monotonic() - started < 60, containers.log("coordinator")
    containers.start("resolver-1", "resolver-2", "agent-cn", "agent-eu", "agent-us")
    for name in ("resolver-1", "resolver-2", "agent-cn", "agent-eu", "agent-us"):
        until(lambda name=name: containers.healthy(name), lambda name=name: containers.log(name))
    until(lambda: '"event": "leading"' in containers.log("coordinator"),
          lambda: containers.log("coordinator"))  # fmt: skip
    containers.start("first")
    assert containers.processes["first"].wait(30) == 0, containers.log("first")
    seen = lambda: containers.log("coordinator") + containers.log("resolver-2")  # noqa: E731
    until(lambda: answer("202.96.128.0/24") == origin("origin-cn"), seen)
    until(lambda: answer("193.0.6.0/24") == origin("origin-eu"), seen)
    until(lambda: answer("8.8.8.0/24") == origin("origin-us"), seen)
    containers.processes["origin-cn"].terminate()
    until(lambda: answer("202.96.128.0/24") == origin("origin-us"), seen)

    status, told = containers.ended("gtm")
    assert status == 0, told
    assert "4 of 4 published" in told
    assert told.count("connected") == 3
    status, told = containers.ended("gtm", "delete", "pool", "nothere")
    assert (status, "there is no pool 'nothere'" in told) == (1, True), told
