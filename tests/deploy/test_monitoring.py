"""Alert rules and dashboard: what Prometheus and Grafana read, against a running service."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from conftest import Service, png
from documents import commands, run
from pagevec.client import Client

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "deploy" / "monitoring"
OPERATIONS = ROOT / "docs" / "operations.md"
SCRAPE = {"up": {"job", "instance"}}  # Prometheus' own
TARGET = {"job", "instance"}


@pytest.fixture(scope="module")
def exposition(service: Service) -> dict[str, set[str]]:
    """All sample names in /metrics, with their labels, of a service that has been used."""
    with Client(service.url, service.key) as client:
        client.embed_texts(["fares"])
        client.embed_images([png(200, 280)])
    with service.client() as http:
        page = http.get("/metrics").text
    names: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            names.setdefault(sample.name, set()).update(sample.labels)
    return names


def rules() -> list[dict[str, Any]]:
    content = yaml.safe_load((MONITORING / "alerts.yaml").read_text(encoding="utf-8"))
    return [rule for group in content["groups"] for rule in group["rules"]]


def dashboard() -> Any:
    return json.loads((MONITORING / "grafana/dashboards/pagevec.json").read_text(encoding="utf-8"))


def check_query(query: str, exposition: dict[str, set[str]]) -> None:
    """Check that a query is valid PromQL over metrics and labels that /metrics has."""
    nodes: list[promql_parser.Expr] = []
    promql_parser.walk(promql_parser.parse(query.replace("$__rate_interval", "1m")), nodes.append)
    used = [one for one in nodes if isinstance(one, promql_parser.VectorSelector)]
    assert used, query
    labels = TARGET.union(*({**exposition, **SCRAPE}[str(one.name)] for one in used))
    for selector in used:
        assert {matcher.name for matcher in selector.matchers.matchers} <= labels, query
    for one in nodes:
        if isinstance(one, promql_parser.AggregateExpr) and one.modifier is not None:
            assert set(one.modifier.labels) <= labels, query


def test_dashboard(exposition: dict[str, set[str]]) -> None:
    """Every query of the dashboard is valid, over metrics and labels that /metrics has."""
    queries = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    assert len(queries) >= 10
    for query in queries:
        check_query(query, exposition)


def test_the_data_source_can_be_chosen() -> None:
    """All panels ask the source that is chosen above them, out of all Prometheus sources."""
    content = dashboard()
    [variable] = content["templating"]["list"]
    assert (variable["type"], variable["query"]) == ("datasource", "prometheus")
    chosen = {"type": "prometheus", "uid": f"${{{variable['name']}}}"}
    targets = [target for panel in content["panels"] for target in panel["targets"]]
    assert all(panel["datasource"] == chosen for panel in content["panels"])
    assert all(target.get("datasource", chosen) == chosen for target in targets)


def test_alerts(exposition: dict[str, set[str]]) -> None:
    """Every rule is valid, over metrics that /metrics has; the documents say what to do then."""
    table = OPERATIONS.read_text(encoding="utf-8")
    assert len(rules()) >= 6
    for rule in rules():
        check_query(rule["expr"], exposition)
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert {"summary", "description"} <= rule["annotations"].keys()
        assert f"| `{rule['alert']}` |" in table


def test_promtool() -> None:
    """Prometheus' own tool reads rules and configuration, and finds that each alert fires.

    `alerts_test.yaml` has a case for each alert, and a good hour in which none fires.
    """
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs Debian's package prometheus")
    [check] = commands("operations.md", "promtool")
    assert "8 rules found" in run(f"{check}\npromtool check rules {MONITORING}/alerts.yaml", ROOT)
    cases = Path(__file__).with_name("alerts_test.yaml")
    done = subprocess.run([promtool, "test", "rules", cases], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    text = cases.read_text(encoding="utf-8")
    for rule in rules():
        fires = rf"alertname: {rule['alert']}\n +exp_alerts:\n"
        assert re.search(fires, text), rule["alert"]
        assert f"alertname: {rule['alert']}, exp_alerts: []" in text
