"""The two halves share data, never code; heavy libraries stay where they belong."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

_IMPORT_ALL = """
import importlib, pkgutil, sys

class Hidden:
    def __init__(self, names): self.names = names
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ImportError(f"{name} is hidden here")
        return None

sys.meta_path.insert(0, Hidden(set(sys.argv[2].split(","))))
package = importlib.import_module(sys.argv[1])
skipped = set(sys.argv[3].split(",")) if len(sys.argv) > 3 else set()
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if module.name.rsplit(".", 1)[-1] == "__main__" or any(module.name.startswith(s) for s in skipped if s):
        continue
    importlib.import_module(module.name)
print("imported")
"""


def _import_all(package: str, hidden: str, skipped: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _IMPORT_ALL, package, hidden, skipped],
        capture_output=True,
        text=True,
        check=False,
    )


def test_operator_imports_without_the_workers_world() -> None:
    """Every operator module imports where numpy, dramatiq, SQLAlchemy, torch and the workers are absent."""
    done = _import_all("astrid_operator", "numpy,dramatiq,sqlalchemy,torch,astropy,scipy,astrid_workers")

    assert done.stdout == "imported\n", done.stderr


def test_workers_import_without_the_operators_world() -> None:
    """Every worker module imports where kopf, the Kubernetes client, torch and the operator are absent."""
    done = _import_all(
        "astrid_workers",
        "kopf,kubernetes,torch,prometheus_client,astrid_operator",
        "astrid_workers.storage.migrations",
    )

    assert done.stdout == "imported\n", done.stderr


def test_hiding_really_hides() -> None:
    """The guard above can fail: a hidden library that is needed ends the import."""
    done = _import_all("astrid_operator", "redis")

    assert done.returncode != 0
    assert "redis is hidden here" in done.stderr


@pytest.mark.parametrize(
    ("command", "verbs"),
    [
        ("astrid_workers", ["demo", "run", "reference", "submit", "status", "show", "db"]),
        ("astrid_operator", ["run", "local", "simulate", "render", "dead"]),
    ],
)
def test_help_names_every_verb(command: str, verbs: list[str]) -> None:
    """`--help` lists each verb with a line."""
    done = subprocess.run(
        [sys.executable, "-m", command, "--help"], capture_output=True, text=True, check=True, cwd=ROOT
    )

    assert [verb for verb in verbs if f"\n    {verb}" not in done.stdout] == []


def _importers(package: str, folder: Path) -> set[str]:
    """Modules under `folder` whose text imports `package`, lazily or not."""
    import ast

    def imports(node: ast.AST) -> list[str]:
        if isinstance(node, ast.Import):
            return [alias.name for alias in node.names]
        return [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []

    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*.py")
        if any(
            name.split(".")[0] == package
            for node in ast.walk(ast.parse(path.read_text()))
            for name in imports(node)
        )
    }


def test_framework_and_client_stay_at_the_edge() -> None:
    """kopf stands in the handlers only, the Kubernetes client in its adapters only."""
    folder = ROOT / "operator" / "astrid_operator"

    assert _importers("kopf", folder) <= {"handlers.py"}
    adapters = {"kubernetes_api.py", "kubernetes_connection.py", "kubernetes_requests.py", "leadership.py"}
    assert _importers("kubernetes", folder) <= adapters


def test_nothing_is_pickled() -> None:
    """No module of either half imports pickle or a library that is pickle in disguise."""
    for half in ("operator", "workers"):
        for library in ("pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"):
            assert _importers(library, ROOT / half) == set()
