"""The operator's own settings: each has one variable, and each variable reaches its setting."""

import argparse
import json
from typing import Any

import pytest

from astrid_operator.settings import OperatorSettings

#: variable → a value other than the default, and the setting that it becomes.
VARIABLES: dict[str, tuple[str, str, Any]] = {
    "ASTRID_OPERATOR_IMAGE": ("mine:2", "image", "mine:2"),
    "ASTRID_OPERATOR_NAMESPACES": ("a, b", "namespaces", ("a", "b")),
    "ASTRID_OPERATOR_BROKERS_DIR": ("/brokers", "brokers_dir", "/brokers"),
    "ASTRID_OPERATOR_TICK_SECONDS": ("0.5", "tick_seconds", 0.5),
    "ASTRID_OPERATOR_REDIS_TIMEOUT_SECONDS": ("7", "redis_timeout_seconds", 7.0),
    "ASTRID_OPERATOR_STATUS_WRITES_PER_SECOND": ("1.5", "status_writes_per_second", 1.5),
    "ASTRID_OPERATOR_RESYNC_SECONDS": ("60", "resync_seconds", 60.0),
    "ASTRID_OPERATOR_GPU_NODES_GROW": ("true", "gpu_nodes_grow", True),
    "ASTRID_OPERATOR_LEASE_NAMESPACE": ("home", "lease_namespace", "home"),
    "ASTRID_OPERATOR_LEASE_NAME": ("other", "lease_name", "other"),
    "ASTRID_OPERATOR_LEASE_SECONDS": ("30", "lease_seconds", 30.0),
    "ASTRID_OPERATOR_LEASE_RENEW_SECONDS": ("20", "lease_renew_seconds", 20.0),
    "ASTRID_OPERATOR_LEASE_RETRY_SECONDS": ("4", "lease_retry_seconds", 4.0),
    "ASTRID_OPERATOR_LISTEN_ADDRESS": ("127.0.0.1", "listen_address", "127.0.0.1"),
    "ASTRID_OPERATOR_METRICS_PORT": ("9090", "metrics_port", 9090),
    "ASTRID_OPERATOR_PROBES_PORT": ("9091", "probes_port", 9091),
    "ASTRID_OPERATOR_LOG_LEVEL": ("DEBUG", "log_level", "debug"),
    "ASTRID_OPERATOR_LOG_FORMAT": ("console", "log_format", "console"),
}


def test_every_setting_has_its_variable() -> None:
    """A new setting needs a row here; REDIS_URL is everybody's name and has a test of its own."""
    assert {name for _, name, _ in VARIABLES.values()} == OperatorSettings.model_fields.keys() - {"redis_url"}


@pytest.mark.parametrize("variable", VARIABLES)
def test_each_variable_reaches_its_setting(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """What the environment says is what holds, and is what the start-up line shows."""
    text, name, value = VARIABLES[variable]
    before = OperatorSettings()
    monkeypatch.setenv(variable, text)
    after = OperatorSettings()
    found = getattr(after, name)

    assert (str(found) if name == "brokers_dir" else found) == value
    assert getattr(before, name) != found
    assert json.dumps(value) in json.dumps(after.effective()[name])


def test_flags_win_over_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--namespace`, `--log-level` and `--log-format` of `astrid-operator run`."""
    from astrid_operator import cluster
    from astrid_operator.arguments.run import configure

    monkeypatch.setenv("ASTRID_OPERATOR_NAMESPACES", "a")
    monkeypatch.setenv("ASTRID_OPERATOR_LOG_LEVEL", "error")
    parser = argparse.ArgumentParser()
    configure(parser)
    words = ["--namespace", "b", "--namespace", "c", "--log-level", "debug", "--log-format", "console"]
    settings = cluster._settings(parser.parse_args(words))

    assert (settings.namespaces, settings.log_level, settings.log_format) == (("b", "c"), "debug", "console")
    assert cluster._settings(parser.parse_args([])).namespaces == ("a",)
