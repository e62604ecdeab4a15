"""`astrid run`: difference one science frame against one reference, without any server.

Owns the files that are written and the words that are printed; the science is
`differencing.pair`.
"""

import argparse
import json
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from astrid_workers.cli.arguments.run import ALGORITHMS
from astrid_workers.cli.run_images import IMAGES, write_images
from astrid_workers.cli.run_mosaic import Mosaic, mosaic_candidates, mosaic_forced, remove_pages, run_mosaic
from astrid_workers.cli.run_work import Asked, Done, difference_and_measure
from astrid_workers.cli.terminal import Tell, progress_bar, sentence_of, write_whole
from astrid_workers.differencing.injection import InjectionOptions
from astrid_workers.differencing.products import DifferenceOptions
from astrid_workers.errors import AstridError, FrameRejected, NothingToDo, SettingRejected
from astrid_workers.imaging.out_of_core import movable, set_aside
from astrid_workers.metering import Cost, metered
from astrid_workers.positions import Positions, read_positions
from astrid_workers.preprocessing.calibrate import calibrate
from astrid_workers.report.candidate_table import candidates_ecsv
from astrid_workers.report.completeness_figure import completeness_section
from astrid_workers.report.forced_table import forced_ecsv
from astrid_workers.report.mosaic_page import mosaic_page
from astrid_workers.report.pair_page import pair_numbers, pair_page
from astrid_workers.storage.fits import read_frame
from astrid_workers.storage.fits_parts import Part, matching_part, parts_of
from astrid_workers.storage.fits_reference import read_reference

DONE, FAILED, UNUSABLE_INPUT, NOTHING_TO_DO = 0, 1, 2, 3
#: Least and greatest threshold that makes sense, sigma.
THRESHOLDS = (2.0, 1000.0)
#: Most sources that are injected.
MOST_INJECTIONS = 100_000
#: What is null in the report of a run that did not get that far.
MEASURED_LATER = (
    "algorithm",
    "why",
    "fwhm_science_px",
    "fwhm_reference_px",
    "flux_scale",
    "noise_scale",
    "zero_point_mag",
    "n_candidates",
    "assumed",
)


def main(options: argparse.Namespace) -> int:
    """Run; 0 done, 1 failed, 2 input it cannot use, 3 nothing to do. One sentence on standard error says
    why.
    """
    reason, status, done, cost = "", DONE, None, Cost()
    chosen, asked, mosaic = DifferenceOptions(), None, None
    try:
        chosen = chosen_options(options)
        asked = Asked(chosen, _chosen_injection(options), _read_positions(options.forced))
        options.out.mkdir(parents=True, exist_ok=True)
        parts = parts_of(options.science)
        with metered() as cost, progress_bar() as tell:
            if parts:
                mosaic = _difference_parts(options, parts, asked, tell)
            else:
                done = _difference(options, asked, tell)
    except (FrameRejected, SettingRejected, OSError) as error:
        reason, status = sentence_of(error), UNUSABLE_INPUT
    except NothingToDo as nothing:
        reason, status = str(nothing), NOTHING_TO_DO
    except AstridError as error:
        reason, status = str(error), FAILED
    report = build_report(options, chosen, done, cost, status, reason)
    try:
        if mosaic is not None and asked is not None:
            report |= {"n_candidates": len(mosaic.candidates), "injections": mosaic.injections(asked)}
            report |= {"parts": mosaic.parts}
            write_mosaic(options.out, mosaic, report)
        else:
            write_results(options.out, done, report)
    except OSError as error:
        reason, status = reason or sentence_of(error), status or UNUSABLE_INPUT
    _say(options, report, reason, status)
    return status


def chosen_options(options: argparse.Namespace) -> DifferenceOptions:
    """Command line over configuration file over defaults; SettingRejected names what is not valid."""
    given: dict[str, Any] = {}
    if options.config is not None:
        given = _read_config(options.config)
    if options.threshold is not None:
        given["threshold_sigma"] = options.threshold
    if options.algorithm is not None:
        given["algorithm"] = options.algorithm
    chosen = DifferenceOptions(**given)
    if not THRESHOLDS[0] <= chosen.threshold_sigma <= THRESHOLDS[1]:
        msg = (
            f"the threshold must be {THRESHOLDS[0]:g} to {THRESHOLDS[1]:g} sigma, got "
            f"{chosen.threshold_sigma:g}"
        )
        raise SettingRejected(msg)
    if chosen.algorithm not in ALGORITHMS:
        msg = f"unknown algorithm {chosen.algorithm!r}, valid: {', '.join(ALGORITHMS)}"
        raise SettingRejected(msg)
    return chosen


def _read_config(path: Path) -> dict[str, Any]:
    """Options from TOML: `threshold`, `algorithm` and the fields of `DifferenceOptions`, checked by type."""
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        msg = f"{path.name}: not TOML: {error}"
        raise SettingRejected(msg) from None
    if "threshold" in given:
        given["threshold_sigma"] = given.pop("threshold")
    defaults = {field.name: field.default for field in fields(DifferenceOptions)}
    for name, value in given.items():
        if name not in defaults:
            msg = f"{path.name}: unknown option {name!r}, valid: threshold, {', '.join(defaults)}"
            raise SettingRejected(msg)
        given[name] = _typed(path.name, name, value, defaults[name])
    return given


def _typed(file: str, name: str, value: object, default: object) -> object:
    """The value as the type of its default; SettingRejected when it is another."""
    if isinstance(default, float) and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if type(value) is type(default):
        return value
    msg = f"{file}: {name} must be {type(default).__name__}, got {value!r}"
    raise SettingRejected(msg)


def _chosen_injection(options: argparse.Namespace) -> InjectionOptions | None:
    if options.inject is None:
        return None
    if not 1 <= options.inject <= MOST_INJECTIONS:
        msg = f"--inject must be 1 to {MOST_INJECTIONS} sources, got {options.inject}"
        raise SettingRejected(msg)
    if options.inject_seed < 0:
        msg = f"--inject-seed must not be negative, got {options.inject_seed}"
        raise SettingRejected(msg)
    return InjectionOptions(options.inject, options.inject_seed)


def _read_positions(path: Path | None) -> Positions | None:
    if path is None:
        return None
    try:
        return read_positions(path.read_text(encoding="utf-8-sig"), path.name)
    except UnicodeDecodeError as error:
        msg = f"{path.name}: not UTF-8 text: {error.reason} at byte {error.start}"
        raise SettingRejected(msg) from None


def _difference(
    options: argparse.Namespace,
    asked: Asked,
    tell: Tell,
    part: Part | None = None,
    among: Sequence[Part] = (),
) -> Done:
    """Read, calibrate and difference; `part` is one of the science file's parts `among`."""

    def extension(path: Path) -> int | None:
        return None if part is None else matching_part(path, part, among)

    tell("read the frames", 0.0)
    own = None if part is None else part.index
    science = movable(read_frame(options.science, mask=options.mask, noise=options.noise, extension=own))
    set_aside(science)
    reference = movable(
        read_reference(
            options.reference,
            noise=options.reference_noise,
            mask=options.reference_mask,
            extension=extension(options.reference),
        )
    )
    set_aside(reference)
    tell("calibrate", 0.05)
    bias, dark, flat = (
        None if path is None else read_frame(path, extension=extension(path))
        for path in (options.bias, options.dark, options.flat)
    )
    calibrated = movable(calibrate(science, bias=bias, dark=dark, flat=flat).frame)
    set_aside(science, calibrated)
    tell("calibrate the reference", 0.1)
    ready = movable(calibrate(reference).frame)
    set_aside(reference, ready)
    return difference_and_measure(
        calibrated, ready, asked, lambda step, share: tell(step, 0.15 + 0.85 * share)
    )


def _difference_parts(options: argparse.Namespace, parts: Sequence[Part], asked: Asked, tell: Tell) -> Mosaic:
    """Every part of a mosaic; each has its page."""

    def run_part(part: Part, asked: Asked, tell: Tell) -> Done:
        return _difference(options, asked, tell, part, parts)

    def draw(done: Done, numbers: dict[str, Any]) -> str:
        return _page(
            done, numbers, f"{options.science.name}, part {numbers['name']} − {options.reference.name}"
        )

    return run_mosaic(parts, asked, run_part, draw, options.out, tell)


def _page(done: Done, report: dict[str, Any], title: str) -> str:
    more = [] if done.injections is None else [completeness_section(done.injections)]
    return pair_page(done.pair, report, title, more)


def build_report(
    options: argparse.Namespace,
    chosen: DifferenceOptions,
    done: Done | None,
    cost: Cost,
    status: int,
    reason: str,
) -> dict[str, Any]:
    """The content of report.json; null: not measured."""
    measured = pair_numbers(done.pair) if done is not None else dict.fromkeys(MEASURED_LATER)
    return {
        "ending": {DONE: "done", NOTHING_TO_DO: "nothing_to_do"}.get(status, "failed"),
        "reason": reason or None,
        "science": options.science.name,
        "reference": options.reference.name,
        "seconds": cost.seconds,
        "peak_rss_mb": cost.peak_rss_mb,
        "threshold": chosen.threshold_sigma,
        **measured,
        "injections": None if done is None else done.injections,
        "parts": None,
        "version": version("astrid"),
    }


def write_results(folder: Path, done: Done | None, report: dict[str, Any]) -> None:
    """Write the files; without a pair only report.json, and no results of an earlier run are left beside
    it.
    """
    remove_pages(folder)
    if done is None:
        if not folder.is_dir():
            return
        for name in (*IMAGES, "candidates.ecsv", "report.html", "forced.ecsv"):
            (folder / name).unlink(missing_ok=True)
    else:
        pair = done.pair
        made = pair.difference
        zero_point = pair.science.facts.zero_point_mag
        found = candidates_ecsv(pair.candidates.items, made.unit, zero_point_mag=zero_point)
        write_whole(folder / "candidates.ecsv", found.encode())
        write_images(folder, pair)
        title = f"{report['science']} − {report['reference']}"
        write_whole(folder / "report.html", _page(done, report, title).encode())
        _write_forced(folder / "forced.ecsv", done)
    write_whole(folder / "report.json", (json.dumps(report, indent=2, allow_nan=False) + "\n").encode())


def write_mosaic(folder: Path, mosaic: Mosaic, report: dict[str, Any]) -> None:
    """Write what the parts have together; their images and pages stand there already."""
    write_whole(folder / "candidates.ecsv", mosaic_candidates(mosaic).encode())
    write_whole(folder / "report.html", mosaic_page(report).encode())
    forced = mosaic_forced(mosaic)
    if forced is None:
        (folder / "forced.ecsv").unlink(missing_ok=True)
    else:
        write_whole(folder / "forced.ecsv", forced.encode())
    write_whole(folder / "report.json", (json.dumps(report, indent=2, allow_nan=False) + "\n").encode())


def _write_forced(path: Path, done: Done) -> None:
    """The table, or none that an earlier run left."""
    if done.forced is None or done.positions is None:
        path.unlink(missing_ok=True)
        return
    write_whole(path, forced_ecsv(done.positions, done.forced, done.pair.difference.unit).encode())


def _how(report: dict[str, Any]) -> str:
    parts = report["parts"]
    if parts is None:
        return str(report["algorithm"])
    return f"{sum(part['ending'] == 'done' for part in parts)} of {len(parts)} parts"


def _say(options: argparse.Namespace, report: dict[str, Any], reason: str, status: int) -> None:
    if options.json:
        print(json.dumps(report, indent=2, allow_nan=False))
    if reason:
        print(f"astrid run: {reason}", file=sys.stderr)
    elif not options.json:
        print(
            f"{report['n_candidates']} candidates beyond {report['threshold']:g} sigma in "
            f"{report['seconds']:.1f} s "
            f"({_how(report)}); see {options.out / 'report.html'}"
        )
    for part in report["parts"] or ():
        if part["ending"] != "done":
            print(f"astrid run: part {part['name']} failed: {part['reason']}", file=sys.stderr)
    if status == DONE and report.get("validation") and not report["validation"]["passed"]:
        print(f"astrid run: careful: {'; '.join(report['validation']['reasons'])}", file=sys.stderr)
