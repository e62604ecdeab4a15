"""The demonstration's report: `report.json`, `report.html` and one sentence.

Owns what is said and shown; never measures (`recovery`, `watch`) and never draws (`pictures`,
`report.figures`).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from astrid_workers.demo.night import Field
from astrid_workers.demo.outcome import Outcome, outcome_of, read_image
from astrid_workers.demo.pictures import fleet_figure, recovery_figure
from astrid_workers.demo.recovery import Found, RecoverySummary, summarise
from astrid_workers.demo.watch import Watched
from astrid_workers.imaging.cutout import cutout
from astrid_workers.report.figures import Mark, frames_figure, triplets_figure
from astrid_workers.report.page import Picture, Section, Table, render_page
from astrid_workers.report.stretch import Image, Panel
from astrid_workers.storage.artifacts import ArtifactStore, get_store
from astrid_workers.storage.database import get_database

#: Candidates with a triplet of pictures, and the side of a cutout in pixels.
MOST_TRIPLETS, CUTOUT_PX = 8, 41


@dataclass(frozen=True, slots=True)
class DemoReport:
    """What a caller needs of a report that was written."""

    sentence: str
    #: Observations that neither came to the end nor failed with a reason.
    lost: int


def write_report(home: Path, fields: Sequence[Field], watched: Watched) -> DemoReport:
    """Read what became of every field, write `report.json` and `report.html` under `home`, and sum it up."""
    outcomes = [outcome_of(get_database(), field) for field in fields]
    summary = summarise([each.recovery for each in outcomes if each.recovery is not None])
    numbers = report_numbers(summary, watched)
    sentence = sentence_of(numbers)
    (home / "report.json").write_text(json.dumps(numbers, indent=1) + "\n")
    (home / "report.html").write_text(_page(numbers, sentence, outcomes, summary, watched))
    return DemoReport(sentence, numbers["observations_lost"])


def report_numbers(summary: RecoverySummary, watched: Watched) -> dict[str, Any]:
    """The content of `report.json`; None where nothing could be measured."""
    progress = watched.progress
    return {
        "observations_submitted": progress.submitted,
        "observations_completed": progress.completed,
        "observations_failed": progress.failed,
        "observations_lost": progress.submitted - progress.completed - progress.failed,
        "injected": summary.injected,
        "recovered": summary.recovered,
        "recovered_above_snr10_fraction": summary.above_snr10_fraction,
        "recovered_by_snr": [
            {"snr_from": low, "snr_to": high, "injected": injected, "recovered": recovered}
            for low, high, injected, recovered in summary.by_snr
        ],
        "false_candidates": summary.n_false,
        "false_per_mpix": summary.false_per_mpix,
        "seconds": round(progress.seconds, 1),
        "trouble": watched.trouble or None,
        "fleet": watched.fleet,
    }


def sentence_of(numbers: dict[str, Any]) -> str:
    """How many observations came through, and what was found in them."""
    bins = ", ".join(
        f"{row['recovered']} of {row['injected']} at S/N {row['snr_from']:g} to {row['snr_to']:g}"
        for row in numbers["recovered_by_snr"]
    )
    rate = numbers["false_per_mpix"]
    false = "no rate of false candidates" if rate is None else f"{rate:.2f} false candidates per megapixel"
    lost = numbers["observations_lost"]
    return (
        f"{numbers['observations_completed']} of {numbers['observations_submitted']} observations completed"
        f"{f', {lost} LOST' if lost else ''} in {numbers['seconds']:.0f} s; "
        f"{numbers['recovered']} of {numbers['injected']} injected transients recovered"
        f"{f' ({bins})' if bins else ''}; {false}."
    )


def _page(
    numbers: dict[str, Any],
    sentence: str,
    outcomes: Sequence[Outcome],
    summary: RecoverySummary,
    watched: Watched,
) -> str:
    sections = []
    if summary.by_snr:
        sections.append(_recovery_section(summary))
    best = max(
        (each for each in outcomes if each.images and each.recovery is not None),
        key=lambda each: int(each.recovery.recovered.sum()) if each.recovery else 0,
        default=None,
    )
    if best is not None:
        sections += _image_sections(best)
    sections += [_fleet_section(watched), _observations_section(outcomes)]
    return render_page(
        "A simulated night", sentence, _facts(numbers), sections, "Drawn from a seed; measured, not told."
    )


def _facts(numbers: dict[str, Any]) -> list[tuple[str, str]]:
    share, rate = numbers["recovered_above_snr10_fraction"], numbers["false_per_mpix"]
    return [
        ("observations", f"{numbers['observations_completed']} of {numbers['observations_submitted']}"),
        ("recovered", f"{numbers['recovered']} of {numbers['injected']}"),
        ("recovered above S/N 10", "–" if share is None else f"{100 * share:.0f} %"),
        ("false per megapixel", "–" if rate is None else f"{rate:.2f}"),
        ("seconds", f"{numbers['seconds']:.0f}"),
    ]


def _recovery_section(summary: RecoverySummary) -> Section:
    picture = Picture(
        recovery_figure(summary),
        "Bars: the share of injected transients that was recovered, per bin of signal to noise.",
        "Injected transients that were found with the right sign within one FWHM of their place.",
    )
    return Section("Recovery", pictures=[picture])


def _image_sections(outcome: Outcome) -> list[Section]:
    store = get_store()
    names = ("science", "reference", "difference", "score")
    images = {name: _image(store, outcome, name) for name in names}
    marks = [Mark(each.x, each.y, each.is_positive) for each in outcome.found]
    frames = frames_figure([_panel(name, images[name], whole=True) for name in names], marks)
    name = outcome.field.external_id
    sections = [
        Section(
            f"Frames of {name}",
            pictures=[
                Picture(
                    frames,
                    f"Science, reference, difference and score of {name}, {len(marks)} candidates circled.",
                    "Science and reference from the sky up; difference and score about zero: "
                    "red is brighter, blue fainter.",
                )
            ],
        )
    ]
    if outcome.found:
        best = outcome.found[:MOST_TRIPLETS]
        rows = [(f"{each.score:+.1f} σ", [_cut(name, images[name], each) for name in names]) for each in best]
        sections.append(
            Section(
                f"Strongest candidates of {name}",
                pictures=[
                    Picture(
                        triplets_figure(rows),
                        "For each candidate: science, reference, difference and score around it.",
                        f"Cutouts of {CUTOUT_PX} pixels around the strongest candidates.",
                    )
                ],
            )
        )
    return sections


def _image(store: ArtifactStore, outcome: Outcome, name: str) -> Image:
    return read_image(store, outcome.images, name)


def _panel(name: str, image: Image, *, whole: bool) -> Panel:
    if name in ("science", "reference"):
        return Panel(image, name, "sky")
    limit = 5.0 if name == "score" and whole else None
    return Panel(image, "score (sigma)" if name == "score" else name, "signed", limit)


def _cut(name: str, image: Image, found: Found) -> Panel:
    return _panel(name, cutout(image, found.x, found.y, CUTOUT_PX), whole=False)


def _fleet_section(watched: Watched) -> Section:
    if not watched.fleet:
        return Section("Fleet", paragraphs=["The fleet was never seen."])
    picture = Picture(
        fleet_figure(watched.fleet, watched.progress.seconds),
        "Per queue: outstanding messages and worker processes over time.",
        "Workers come from zero when messages wait and go back to zero when nothing is outstanding.",
    )
    return Section("Fleet", pictures=[picture])


def _observations_section(outcomes: Sequence[Outcome]) -> Section:
    rows = [
        [
            each.field.external_id,
            "no row" if each.state is None else each.state.value,
            f"{each.field.fwhm_science_px:.2f}",
            str(len(each.found)),
            "–"
            if each.recovery is None
            else f"{int(each.recovery.recovered.sum())} of {len(each.recovery.snr)}",
            "–" if each.recovery is None else str(each.recovery.n_false),
        ]
        for each in outcomes
    ]
    columns = ["observation", "state", "seeing / px", "detections", "recovered", "false"]
    return Section("Observations", tables=[Table("What became of each observation", columns, rows)])
