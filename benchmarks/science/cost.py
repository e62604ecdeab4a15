"""CPU and memory of a whole `astrid run`, and of its steps, on simulated pairs of several sizes.

Owns the measuring; never scores a candidate. The command runs in a process of its own, as a user runs it, on
one thread: user and system CPU seconds and peak memory are the kernel's, with the interpreter's start, the
imports and the report page in them. A second run puts a clock about named functions to tell the steps; the
clock itself costs nothing that shows. Machines differ by a factor of three, so each report begins with what
this one takes for two pieces of work that anybody can repeat.

    python benchmarks/science/cost.py 1024 2048 --seed 3101
    python benchmarks/science/cost.py --pair science.fits reference.fits
"""

import argparse
import importlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import sep
from scipy import fft

from astrid_workers.numeric_threads import VARIABLES

#: Step of the table → functions whose own time it is: what they call of another step is that step's.
STEPS: dict[str, tuple[str, ...]] = {
    "read and write files": (
        "storage.fits:read_frame",
        "storage.fits_reference:read_reference",
        "storage.fits:image_to_fits",
        "cli.terminal:write_whole",
        "report.candidate_table:candidates_ecsv",
    ),
    "units, noise and masks": (
        "imaging.measured_frame:frame_from_pixels",
        "preprocessing.calibrate:calibrate",
    ),
    "sky meshes": ("imaging.background:estimate_background",),
    "cosmic rays": ("imaging.cosmic_rays:find_cosmic_rays",),
    "find stars": ("imaging.stars:find_stars",),
    "PSF": ("imaging.measure_psf:measure_psf",),
    "register": ("imaging.align:measure_registration",),
    "resample": ("imaging.align:align",),
    "match": ("differencing.match_frames:match_frames",),
    "fill, plan, masks": ("differencing.difference:difference",),
    "subtract": ("differencing.tiles:subtract",),
    "score": ("differencing.score:make_score",),
    "extract and check": (
        "differencing.extract_sources:extract_sources",
        "differencing.validate:validate_difference",
    ),
    "report page": ("report.pair_page:pair_page",),
}
IMPORTS, REST = "start and imports", "the rest"


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the command."""

    mpix: float
    #: User and system seconds of the process.
    cpu_s: float
    wall_s: float
    #: MB of 10⁶ bytes.
    peak_rss_mb: float
    #: Step → CPU seconds; empty where only the whole was measured.
    steps: dict[str, float]


def write_pair(folder: Path, size: int, seed: int) -> None:
    """The realistic pair of `false_positives.py` as the files of an observer."""
    from pairs import make_pair

    from astrid_workers.sky import sky_to_fits

    names = ("science.fits", "reference.fits")
    for name, content in zip(names, sky_to_fits(make_pair("realistic", seed, size)), strict=True):
        (folder / name).write_bytes(content)


def measure(command: Sequence[str], mpix: float) -> Run:
    """Run `astrid` with these arguments to its end; CalledProcessError when it fails."""
    environment = os.environ | dict.fromkeys(VARIABLES, "1")
    began = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(command, env=environment, stdout=said, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        output = said.read().decode()
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command, output)
    last = output.splitlines()[-1] if output else ""
    steps = json.loads(last)["steps"] if last.startswith("{") else {}
    cpu = usage.ru_utime + usage.ru_stime
    return Run(mpix, cpu, time.perf_counter() - began, usage.ru_maxrss * 1024 / 1e6, steps)


def timed_run(arguments: list[str]) -> None:
    """`astrid run` in this process with a clock about every step; prints them as one line of JSON."""
    main = importlib.import_module("astrid_workers.__main__").main
    importlib.import_module("astrid_workers.cli.run")
    clock = Clock()
    for step, places in STEPS.items():
        for place in places:
            clock.put_about(place, step)
    status = main(["run", *arguments])
    total = time.process_time()
    steps = {IMPORTS: clock.began, **dict.fromkeys(STEPS, 0.0), **clock.spent}
    print(json.dumps({"steps": steps | {REST: total - sum(steps.values())}}))
    sys.exit(status)


class Clock:
    """CPU seconds of this process by step; a step that runs inside another is not counted in it."""

    def __init__(self) -> None:
        self.began = time.process_time()
        self.spent: dict[str, float] = {}
        self._inner = [0.0]

    @contextmanager
    def running(self, step: str) -> Iterator[None]:
        """Count the block as `step`'s."""
        began = time.process_time()
        self._inner.append(0.0)
        try:
            yield
        finally:
            taken = time.process_time() - began
            self.spent[step] = self.spent.get(step, 0.0) + taken - self._inner.pop()
            self._inner[-1] += taken

    def put_about(self, place: str, step: str) -> None:
        """Replace `module:function` wherever it was imported by one that is counted."""
        module, name = place.split(":")
        function: Callable[..., Any] = getattr(importlib.import_module(f"astrid_workers.{module}"), name)

        @wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            with self.running(step):
                return function(*args, **kwargs)

        for known in [m for n, m in sys.modules.items() if n.startswith("astrid_workers")]:
            for attribute, value in list(vars(known).items()):
                if value is function:
                    setattr(known, attribute, counted)


def yardsticks() -> dict[str, float]:
    """CPU seconds of this machine for work that does not change with our code, the least of five each.

    A pair of real transforms of 2048 × 2048 float64, and sep's detection at 1.5 sigma of a thousand Gaussians
    of 20 to 2,000 sigma in white noise on as many pixels.
    """
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2048, 2048))
    stars = noise.astype(np.float32)
    yy, xx = np.mgrid[-8:9, -8:9]
    for row, column in rng.integers(8, 2040, (1000, 2)):
        height = 10 ** rng.uniform(1.3, 3.3)
        stars[row - 8 : row + 9, column - 8 : column + 9] += height * np.exp(-(xx**2 + yy**2) / 4.6)
    sep.set_extract_pixstack(stars.size)
    works = {
        "real FFT pair": lambda: fft.irfft2(fft.rfft2(noise), s=noise.shape),
        "sep detection": lambda: sep.extract(stars, 1.5, err=1.0),
    }
    taken = {name: [] for name in works}
    for _ in range(5):
        for name, work in works.items():
            began = time.process_time()
            work()
            taken[name].append(time.process_time() - began)
    return {name: min(seconds) for name, seconds in taken.items()}


def _report(title: str, science: Path, reference: Path, mpix: float, options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        arguments = [str(science), str(reference), "--out", folder, *options.arguments]
        astrid = [sys.executable, "-m", "astrid_workers", "run", *arguments]
        runs = [measure(astrid, mpix) for _ in range(options.repeat)]
        timed = measure([sys.executable, __file__, "--timed", *arguments], mpix)
    best = min(runs, key=lambda run: run.cpu_s)
    every = ", ".join(f"{run.cpu_s / mpix:.2f}" for run in runs)
    load = os.getloadavg()[0]
    print(
        f"{title}: {best.cpu_s / mpix:.2f} CPU s per Mpix (all runs: {every}), {best.wall_s:.1f} s, "
        f"{max(run.peak_rss_mb for run in runs):.0f} MB; load {load:.1f}"
    )
    whole = sum(timed.steps.values())
    for step, seconds in timed.steps.items():
        print(f"  {step:<24}{seconds:8.2f} s {seconds / mpix:8.3f} s/Mpix {100 * seconds / whole:6.1f} %")
    print(f"  {'all steps':<24}{whole:8.2f} s {whole / mpix:8.3f} s/Mpix", flush=True)


def main() -> None:
    """Print one table per pair."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sizes", type=int, nargs="*", help="sides of the frames, pixels")
    parser.add_argument("--seed", type=int, default=3101)
    parser.add_argument("--pair", type=Path, nargs=2, metavar="FITS", help="two files instead")
    parser.add_argument("--repeat", type=int, default=1, help="runs of the whole; the cheapest is reported")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep simulated pairs here, and reuse them")
    parser.add_argument("--arguments", nargs="*", default=[], help="more arguments of `astrid run`")
    options = parser.parse_args()
    print(", ".join(f"{name} {seconds:.3f} s" for name, seconds in yardsticks().items()) + " (this machine)")
    if options.pair:
        from astropy.io import fits

        with fits.open(options.pair[0]) as hdus:
            mpix = max(hdu.data.size for hdu in hdus if hdu.is_image and hdu.data is not None) / 1e6
        science, reference = options.pair
        _report(science.name, science, reference, mpix, options)
    with tempfile.TemporaryDirectory() as scratch:
        for size in options.sizes:
            folder = (options.keep or Path(scratch)) / f"{options.seed}-{size}"
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / "reference.fits").exists():
                # in a process of its own, so that the simulation's memory is gone before anything is measured
                maker = multiprocessing.get_context("spawn").Process(
                    target=write_pair, args=(folder, size, options.seed)
                )
                maker.start()
                maker.join()
            title = f"{size} x {size}, seed {options.seed}"
            _report(title, folder / "science.fits", folder / "reference.fits", size**2 / 1e6, options)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--timed"]:
        timed_run(sys.argv[2:])
    else:
        main()
