"""`astrid reference`: one deep reference from several frames of a field, without any server.

Owns the files that are written and the words that are printed; the science is
`differencing.build_reference`.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from astrid_workers.cli import reference_from_observations
from astrid_workers.cli.terminal import progress_bar, sentence_of, write_whole
from astrid_workers.differencing.build_reference import Member, Reference, StackOptions, build_reference
from astrid_workers.errors import AstridError, FrameRejected, NothingToDo, SettingRejected
from astrid_workers.frame import Frame
from astrid_workers.metering import Cost, metered
from astrid_workers.preprocessing.calibrate import calibrate
from astrid_workers.storage.fits import read_frame
from astrid_workers.storage.fits_reference import reference_to_fits

DONE, FAILED, UNUSABLE_INPUT, NOTHING_TO_DO = 0, 1, 2, 3
#: Least and greatest clipping that makes sense, sigma.
CLIPS = (3.0, 100.0)


def main(options: argparse.Namespace) -> int:
    """Build; 0 done, 1 failed, 2 input it cannot use, 3 nothing to do. Standard error says why."""
    if options.from_observations:
        return reference_from_observations.main(options)
    if not options.frames or options.out is None:
        print("astrid reference: name frames and --out, or --from-observations and --field", file=sys.stderr)
        return UNUSABLE_INPUT
    reason, status, made, cost = "", DONE, None, Cost()
    unreadable: list[Member] = []
    try:
        _check(options)
        with metered() as cost, progress_bar() as tell:
            frames = _read(options, unreadable)
            stack = StackOptions(options.onto, options.clip)
            made = build_reference(frames, stack, tell, expected=len(options.frames))
    except (FrameRejected, SettingRejected, OSError) as error:
        reason, status = sentence_of(error), UNUSABLE_INPUT
    except NothingToDo as nothing:
        reason, status = str(nothing), NOTHING_TO_DO
    except AstridError as error:
        reason, status = str(error), FAILED
    report = build_report(options, made, unreadable, cost, status, reason)
    try:
        _write_results(options.out, made, report)
    except OSError as error:
        reason, status = reason or sentence_of(error), status or UNUSABLE_INPUT
    _say(options, report, reason, status)
    return status


def _check(options: argparse.Namespace) -> None:
    if not CLIPS[0] <= options.clip <= CLIPS[1]:
        msg = f"--clip must be {CLIPS[0]:g} to {CLIPS[1]:g} sigma, got {options.clip:g}"
        raise SettingRejected(msg)
    if options.out.suffix == ".json":
        msg = f"{options.out.name}: the JSON stands beside the reference, name a FITS file"
        raise SettingRejected(msg)
    if options.out.resolve() in {path.resolve() for path in options.frames}:
        msg = f"{options.out.name} is one of the frames: the reference would overwrite it"
        raise SettingRejected(msg)
    if not options.out.parent.is_dir():
        raise NotADirectoryError(2, "there is no such folder", str(options.out.parent))


def _read(options: argparse.Namespace, unreadable: list[Member]) -> Iterator[Frame]:
    """Calibrated frames, each when it is asked for; what cannot be read goes to `unreadable` with its
    sentence. Raises FrameRejected at the end when there was none.
    """
    bias, dark, flat = (
        None if path is None else read_frame(path) for path in (options.bias, options.dark, options.flat)
    )
    for path in options.frames:
        try:
            frame = calibrate(read_frame(path), bias=bias, dark=dark, flat=flat).frame
        except (FrameRejected, OSError) as error:
            unreadable.append(Member(path.name, sentence_of(error)))
        else:
            yield frame
    if len(unreadable) == len(options.frames):
        msg = f"none of {len(options.frames)} frames can be read ({unreadable[0].excluded})"
        raise FrameRejected(msg)


def build_report(
    options: argparse.Namespace,
    made: Reference | None,
    unreadable: Sequence[Member],
    cost: Cost,
    status: int,
    reason: str,
) -> dict[str, Any]:
    """The content of the JSON file; null: not measured."""
    members = [*(made.members if made is not None else ()), *unreadable]
    return {
        "ending": {DONE: "done", NOTHING_TO_DO: "nothing_to_do"}.get(status, "failed"),
        "reason": reason or None,
        "reference": options.out.name,
        "unit": None if made is None else made.frame.unit,
        "effective_gain": None if made is None else made.effective_gain,
        "grade": None if made is None else asdict(made.grade),
        "frames": [asdict(member) for member in members],
        "assumed": [] if made is None else list(made.frame.assumed),
        "seconds": cost.seconds,
        "peak_rss_mb": cost.peak_rss_mb,
        "version": version("astrid"),
    }


def grade_cards(made: Reference) -> dict[str, tuple[str | int | float | None, str]]:
    """The grade as header cards."""
    grade = made.grade
    return {
        "NCOMBINE": (grade.n_frames, "frames stacked"),
        "EFFGAIN": (made.effective_gain, "this image / frame whose grid it has"),
        "COVERED": (grade.coverage, "share of pixels with at least one frame"),
        "FULLCOV": (grade.full_coverage, "share of pixels with all frames"),
        "FWHMPX": (grade.fwhm_px, "[pix] width of a star"),
        "DEPTH5": (grade.depth_flux, "5-sigma flux of a point source"),
        "DEPTHMAG": (grade.depth_mag, "[mag] 5-sigma magnitude of a point source"),
        "DEPTHGN": (grade.gain_mag, "[mag] deeper than the frame whose grid it has"),
    }


def _write_results(path: Path, made: Reference | None, report: dict[str, Any]) -> None:
    """Both files; when there is no reference only the JSON, and none of an earlier run beside it."""
    if not path.parent.is_dir() or path.suffix == ".json":
        return
    if made is not None:
        write_whole(path, reference_to_fits(made.frame, made.coverage, grade_cards(made)))
    text = json.dumps(report, indent=2, allow_nan=False) + "\n"
    write_whole(path.with_suffix(".json"), text.encode())


def _say(options: argparse.Namespace, report: dict[str, Any], reason: str, status: int) -> None:
    if options.json:
        print(json.dumps(report, indent=2, allow_nan=False))
    for member in report["frames"]:
        if member["excluded"] is not None:
            print(f"astrid reference: left out {member['name']}: {member['excluded']}", file=sys.stderr)
    if reason:
        print(f"astrid reference: {reason}", file=sys.stderr)
    elif status == DONE and not options.json:
        grade = report["grade"]
        print(
            f"{grade['n_frames']} frames, {grade['gain_mag']:.2f} mag deeper than one, FWHM "
            f"{grade['fwhm_px']:.2f} px, {100 * grade['coverage']:.1f} % covered; see {options.out}"
        )
