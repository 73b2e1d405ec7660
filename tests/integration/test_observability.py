"""A running system, scraped: the page names what it exports, Prometheus takes it, rules hold."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from ctl.digs import Question, ask, free_port
from ctl.running import Running

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "deploy" / "prometheus"
NAME = "gtm12345678.gtm-000.test"
REGIONS = ("r1", "r2", "r3")
TABLES = {
    "coordinator": ("Coordinator", "etcd, as coordinators and resolvers see it"),
    "agent": ("Agent",),
    "resolver": ("Resolver", "etcd, as coordinators and resolvers see it"),
}
needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="Prometheus is not installed (Debian: prometheus)",
)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("observed")
    with Running(folder, config=ROOT / "examples" / "quickstart.yaml") as running:
        for server in running.dns:
            ask(server, Question(NAME))
        yield running


def doors(system: Running) -> dict[str, list[str]]:
    """The HTTP doors of each kind of part."""
    return {
        "coordinator": [system.ports.http],
        "agent": [system.ports.agent(number) for number in range(len(REGIONS))],
        "resolver": [system.ports.resolver(number) for number in range(len(system.dns))],
    }


def get(door: str, path: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{door}{path}", timeout=10) as answer:
        return str(answer.read().decode())


def until(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.1)
    return found


def exported(door: str) -> set[str]:
    """The families that a part exports, as its HELP lines name them."""
    return set(re.findall(r"^# HELP (\w+)", get(door, "/metrics"), re.M))


def tabled(heading: str) -> set[str]:
    """The metrics in the table below a heading of the page."""
    page = (ROOT / "docs" / "operations.md").read_text()
    section = page.partition(f"\n### {heading}\n")[2].partition("\n#")[0]
    return set(re.findall(r"^\| `(\w+)` \|", section, re.M))


@pytest.mark.parametrize("part", TABLES)
def test_the_page_names_every_metric_that_a_part_exports_and_no_other(
    system: Running, part: str
) -> None:
    until(lambda: "gtm_coordinator_etcd_up 1.0" in get(system.ports.http, "/metrics"))
    every = tabled("Every process")
    named = {name for heading in TABLES[part] for name in tabled(heading)}
    assert len(named) > 10
    for door in doors(system)[part]:
        found = exported(door)
        assert found - every == named
    if part != "resolver":
        assert every <= found


@pytest.mark.parametrize("part", TABLES)
def test_labels_are_those_that_the_page_names(system: Running, part: str) -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", page, re.M))
    for door in doors(system)[part]:
        for family in text_string_to_metric_families(get(door, "/metrics")):
            row = rows.get(family.name) or rows.get(f"{family.name}_total")
            if row is None or "..." in row:
                continue
            allowed = {name.strip() for name in row.split(",")} - {""}
            for sample in family.samples:
                assert set(sample.labels) - {"le"} <= allowed, sample


MOVING = {
    "coordinator": (
        "gtm_coordinator_publish_lag_seconds_count",
        "gtm_coordinator_serve_lag_seconds_count",
        "gtm_coordinator_judging_seconds_count",
        'gtm_coordinator_events_total{event="Frame"}',
        'gtm_coordinator_decisions_total{decision="PublishPool"}',
        "gtm_coordinator_leaderships_total",
        'gtm_etcd_calls_total{method="Txn",outcome="ok"}',
        'gtm_etcd_call_seconds_count{method="Txn"}',
        "gtm_etcd_watch_streams_total",
    ),
    "agent": (
        'gtm_agent_probes_total{outcome="failure",type="http"}',
        'gtm_agent_reasons_total{outcome="failure",reason="refused"}',
        'gtm_agent_transitions_total{opinion="down"}',
        "gtm_agent_acknowledgement_seconds_count",
        "gtm_agent_streams",
    ),
    "resolver": (
        f'gtm_resolver_name_queries_total{{name="{NAME}",rcode="NOERROR"}}',
        "gtm_resolver_compile_seconds_count",
        "gtm_resolver_snapshot_revision",
        "gtm_resolver_reported_coordinators",
        "gtm_etcd_watch_lists_total",
    ),
}


@pytest.mark.parametrize("part", MOVING)
def test_what_has_happened_was_counted(system: Running, part: str) -> None:
    def missing(door: str) -> list[str]:
        rows = (line.rpartition(" ") for line in get(door, "/metrics").splitlines())
        found = {name: float(value) for name, _, value in rows if not name.startswith("#")}
        return [series for series in MOVING[part] if found.get(series, 0) <= 0]

    for door in doors(system)[part]:
        until(lambda door=door: not missing(door))
        assert missing(door) == []


def test_every_part_is_live_and_ready(system: Running) -> None:
    for part in (door for named in doors(system).values() for door in named):
        assert get(part, "/livez") == "ok\n"
        assert get(part, "/readyz") == "ok\n"


def test_the_logs_of_every_part_are_json_lines_by_transition(system: Running) -> None:
    parts = ("coordinator", *(f"agent-{name}" for name in REGIONS), "resolver-1", "resolver-2")
    for part in parts:
        lines = (system.data / "logs" / f"{part}.log").read_text().splitlines()
        entries = [json.loads(line) for line in lines]
        assert any(entry["event"] == "ready" for entry in entries), part
        for entry in entries:
            assert {"time", "level", "part", "event"} <= entry.keys(), entry


# ---- Prometheus --------------------------------------------------------------------------------


@needs_prometheus
@pytest.mark.parametrize(
    "check",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "rules.yml"),
        ("test", "rules", "rules_test.yml"),
    ],
)
def test_promtool_accepts_what_is_shipped(check: tuple[str, ...]) -> None:
    done = subprocess.run(
        ["promtool", *check], cwd=SHIPPED, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_prometheus
def test_promtool_finds_nothing_to_blame_in_what_the_parts_export(system: Running) -> None:
    for part, named in doors(system).items():
        done = subprocess.run(
            ["promtool", "check", "metrics"],
            input=get(named[0], "/metrics"),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        blamed = [line for line in done.stderr.splitlines() if line.startswith("gtm_")]
        assert blamed == [], part


class Prometheus:
    """Debian's Prometheus with the shipped configuration on a system of one's own."""

    def __init__(self, folder: Path, targets: dict[str, list[str]]) -> None:
        self.folder = folder
        shutil.copytree(SHIPPED, folder / "etc")
        configuration = yaml.safe_load((folder / "etc" / "prometheus.yml").read_text())
        configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        (folder / "etc" / "prometheus.yml").write_text(yaml.safe_dump(configuration))
        listed = [{"labels": {"part": part}, "targets": named} for part, named in targets.items()]
        (folder / "etc" / "targets.yml").write_text(yaml.safe_dump(listed))
        self.door = f"127.0.0.1:{free_port()}"

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        log = self.folder / "prometheus.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={self.folder / 'etc' / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self.folder / 'data'}",
                    "--storage.tsdb.retention.size=64MB",
                    f"--web.listen-address={self.door}",
                ],
                stdout=out,
                stderr=out,
            )
        try:
            until(lambda: process.poll() is not None or self._ready())
            assert process.poll() is None, log.read_text()
            yield
        finally:
            process.terminate()
            process.wait(15)

    def _ready(self) -> bool:
        with contextlib.suppress(OSError):
            return "Ready" in get(self.door, "/-/ready")
        return False

    def ask(self, expression: str) -> dict[str, float]:
        """The value of an expression by the address of who was scraped."""
        path = f"/api/v1/query?query={urllib.parse.quote(expression)}"
        rows = json.loads(get(self.door, path))["data"]["result"]
        return {row["metric"].get("instance", ""): float(row["value"][1]) for row in rows}


@needs_prometheus
def test_prometheus_scrapes_every_part_and_evaluates_the_rules(
    system: Running, tmp_path: Path
) -> None:
    made = Prometheus(tmp_path, doors(system))
    wanted = {door for named in doors(system).values() for door in named}
    with made.running():
        assert until(lambda: (up := made.ask("up == 1")).keys() >= wanted and up).keys() == wanted
        assert until(lambda: made.ask("sum(gtm_coordinator_leader)")) == {"": 1.0}
        asked = f'gtm_resolver_name_queries_total{{name="{NAME}",rcode="NOERROR"}}'
        assert made.ask(asked).keys() == set(doors(system)["resolver"])
        rules = json.loads(get(made.door, "/api/v1/rules"))["data"]["groups"]
        assert sum(len(group["rules"]) for group in rules) > 30
        until(
            lambda: all(
                rule["health"] == "ok"
                for group in json.loads(get(made.door, "/api/v1/rules"))["data"]["groups"]
                for rule in group["rules"]
            )
        )
        # Both pools that need an origin have none here, and nothing else is wrong.
        pending = until(lambda: made.ask("ALERTS{alertname='GtmPoolUnavailable'}"))
        assert len(pending) == 1
        told = "alertname='GtmAlarmStands',kind=~'pool-unavailable|pools-unavailable|last-resort'"
        expected = f"ALERTS{{alertname='GtmPoolUnavailable'}} or ALERTS{{{told}}}"
        assert made.ask(f"ALERTS unless ({expected})") == {}
