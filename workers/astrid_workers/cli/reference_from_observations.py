"""`astrid reference --from-observations`: a reference of the pipeline, from what the pipeline has seen.

Owns the words that are printed; the work is `differencing.stacked_reference`,
done here and now, as the actor `build_reference` does it on a worker.
"""

import argparse
import json
import sys
from typing import Any

from astrid_workers.differencing.stacked_reference import (
    load,
    parsed_request,
    run,
    save,
    send,
)
from astrid_workers.errors import AstridError, NothingToDo, SettingRejected

DONE, FAILED, UNUSABLE_INPUT, NOTHING_TO_DO = 0, 1, 2, 3


def main(options: argparse.Namespace) -> int:
    """Build and register; 0 done, 1 failed, 2 input it cannot use, 3 nothing to do."""
    reason, status, result = "", DONE, None
    try:
        work = load(parsed_request(_request(options)))
        result = save(work, run(work))
        result = send(work, result)
    except SettingRejected as error:
        reason, status = str(error), UNUSABLE_INPUT
    except NothingToDo as nothing:
        reason, status = str(nothing), NOTHING_TO_DO
    except (AstridError, OSError) as error:
        reason, status = str(error), FAILED
    if options.json:
        ending = {DONE: "done", NOTHING_TO_DO: "nothing_to_do"}.get(status, "failed")
        print(json.dumps({**(result or {}), "ending": ending, "reason": reason or None}, indent=2))
    if reason:
        print(f"astrid reference: {reason}", file=sys.stderr)
    elif result is not None and not options.json:
        print(_said(result))
    return status


def _request(options: argparse.Namespace) -> dict[str, Any]:
    if options.frames or options.out is not None:
        msg = "--from-observations takes no files and no --out: frames and reference are in the database"
        raise SettingRejected(msg)
    if any((options.bias, options.dark, options.flat)):
        msg = "--from-observations takes no --bias, --dark or --flat: its frames are calibrated already"
        raise SettingRejected(msg)
    ra, dec = _position(options.field)
    return {
        "survey_id": options.survey,
        "ra": ra,
        "dec": dec,
        "filter_band": options.filter,
        "most": options.most,
    }


def _position(text: str | None) -> tuple[float, float]:
    words = (text or "").split(",")
    try:
        ra, dec = map(float, words)
    except ValueError:
        msg = f"--field must be RA,DEC in degrees, as 150.1,2.2, got {text!r}"
        raise SettingRejected(msg) from None
    return ra, dec


def _said(result: dict[str, Any]) -> str:
    grade, waiting = result["grade"], result["waiting_observations_triggered"]
    name = result["external_reference_id"]
    was = "stood already" if result["is_repeat"] else "is registered"
    left_out = [f"  left out {one['name']}: {one['excluded']}" for one in result["frames"] if one["excluded"]]
    head = (
        f"{name} {was}: {grade['n_frames']} frames, {grade['gain_mag']:.2f} mag deeper than one, FWHM "
        f"{grade['fwhm_px']:.2f} px, {100 * grade['coverage']:.1f} % covered; "
        f"{waiting} waiting observations sent on"
    )
    return "\n".join([head, *left_out])
