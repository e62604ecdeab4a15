"""The built wheels and the tracked files: what is in them, and what must never be."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = sorted((ROOT / "requirements").glob("*.txt"))


def _build_wheel(source: Path, out: Path) -> list[str]:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)],
        cwd=source,
        check=True,
        capture_output=True,
    )
    (wheel,) = out.glob("*.whl")
    return zipfile.ZipFile(wheel).namelist()


def _context(tmp_path: Path, *folders: str) -> Path:
    context = tmp_path / "context"
    context.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, context / name)
    for folder in folders:
        shutil.copytree(ROOT / folder, context / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return context


def test_wheel_holds_both_packages_and_the_migrations(tmp_path: Path) -> None:
    """The full wheel has two top-level packages, the migrations, and no module called operator."""
    names = _build_wheel(_context(tmp_path, "operator", "workers"), tmp_path / "dist")
    tops = {name.split("/")[0] for name in names if not name.split("/")[0].endswith(".dist-info")}

    assert tops == {"astrid_operator", "astrid_workers"}
    assert any(re.fullmatch(r"astrid_workers/storage/migrations/versions/\w+\.py", name) for name in names)


@pytest.mark.parametrize(
    ("folder", "package"), [("operator", "astrid_operator"), ("workers", "astrid_workers")]
)
def test_each_image_gets_only_its_own_half(tmp_path: Path, folder: str, package: str) -> None:
    """A build context with one half gives a wheel with that half alone."""
    names = _build_wheel(_context(tmp_path, folder), tmp_path / "dist")
    tops = {name.split("/")[0] for name in names if not name.split("/")[0].endswith(".dist-info")}

    assert tops == {package}


def test_operator_folder_is_never_a_package() -> None:
    """`operator/__init__.py` would shadow the standard library and break Python itself."""
    assert not (ROOT / "operator" / "__init__.py").exists()


def _pins(path: Path) -> dict[str, set[str]]:
    """package → its versions: more than one where Python versions differ."""
    pins: dict[str, set[str]] = {}
    for package, version in re.findall(
        r"^([a-z0-9][a-z0-9._-]*)(?:\[[^]]*])?==([^\s;\\]+)", path.read_text(), re.MULTILINE
    ):
        pins.setdefault(package, set()).add(version)
    return pins


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.name)
def test_requirements_are_hashed_and_name_no_index(path: Path) -> None:
    """Every pin carries hashes, and no line names an index or an address."""
    text = path.read_text()

    assert len(re.findall(r"^[a-z0-9].*==.*\\$", text, re.MULTILINE)) == len(
        re.findall(r"^[a-z0-9]", text, re.MULTILINE)
    )
    assert "--index" not in text
    assert "://" not in text


@pytest.mark.parametrize(
    "path", [path for path in REQUIREMENTS if path.name != "dev.txt"], ids=lambda path: path.name
)
def test_images_run_the_versions_that_the_tests_ran(path: Path) -> None:
    """A package that an image shares with the test environment has a version that stands there too."""
    tested = _pins(ROOT / "requirements/dev.txt")

    assert {
        package: versions
        for package, versions in _pins(path).items()
        if not versions <= tested.get(package, versions)
    } == {}


def test_images_leave_out_the_other_half_and_torch() -> None:
    """The operator image resolves no array library and no dramatiq; the lean worker image no torch and no kopf."""
    operator, workers = _pins(ROOT / "requirements/operator.txt"), _pins(ROOT / "requirements/workers.txt")

    assert not {"numpy", "dramatiq", "torch", "astropy", "sqlalchemy"} & operator.keys()
    assert not {"torch", "kopf", "kubernetes"} & workers.keys()


def _tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=False, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout: the list of tracked files is not known")
    return listed.stdout.splitlines()


def test_no_tracked_file_names_a_machine_path_or_a_registry_host() -> None:
    """What is committed works anywhere: no home folder and no package registry's host."""
    forbidden = re.compile(
        r"/(?:root|home/[a-z]+)/[\w.]|\b(?:pypi|pythonhosted|npmjs|crates)\.(?:org|io)\b|proxy\.golang"
    )
    offenders = [
        name
        for name in _tracked()
        if (ROOT / name).is_file()
        and name != "tests/contract/test_packaging.py"
        and forbidden.search((ROOT / name).read_text(errors="replace"))
    ]

    assert offenders == []


def test_no_tracked_file_is_large() -> None:
    """Data stays out of the repository."""
    assert [
        name for name in _tracked() if (ROOT / name).is_file() and (ROOT / name).stat().st_size > 1_500_000
    ] == []
