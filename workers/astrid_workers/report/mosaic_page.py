"""The report of a mosaic: its parts beside each other, each with a page of its own.

Owns what is shown of the parts together; never measures and never writes a file.
"""

from collections.abc import Mapping
from typing import Any

from astrid_workers.report.completeness_figure import completeness_section
from astrid_workers.report.page import Section, Table, render_page

#: Key of a part's numbers, heading of its column.
_COLUMNS = (
    ("n_candidates", "candidates"),
    ("algorithm", "algorithm"),
    ("fwhm_science_px", "FWHM science / px"),
    ("fwhm_reference_px", "FWHM reference / px"),
    ("flux_scale", "flux scale"),
    ("noise_scale", "noise scale"),
)


def mosaic_page(report: Mapping[str, Any]) -> str:
    """The page for the report of a mosaic; part NAME has its own in `report-NAME.html`."""
    parts = report["parts"]
    n_done = sum(part["ending"] == "done" for part in parts)
    share = f"{n_done} of {len(parts)}"
    lead = f"{report['n_candidates']} candidates beyond {report['threshold']:g} sigma in {share} parts."
    facts = [("candidates", str(report["n_candidates"])), ("parts", share)]
    told = "The frames, candidates and checks of each part stand in report-NAME.html beside this page."
    columns = ["part", *(heading for _, heading in _COLUMNS), "checks"]
    sections = [Section("Parts", [told], tables=[Table("Parts", columns, [_row(part) for part in parts])])]
    if report["injections"] is not None:
        sections.append(completeness_section(report["injections"]))
    title = f"{report['science']} − {report['reference']}"
    return render_page(title, lead, facts, sections, f"Astrid {report['version']}")


def _row(part: Mapping[str, Any]) -> list[str]:
    if part["ending"] != "done":
        return [part["name"], *["–"] * len(_COLUMNS), f"failed: {part['reason']}"]
    checked = part["validation"]
    verdict = "passed" if checked["passed"] else "; ".join(checked["reasons"])
    return [part["name"], *(_text(part[key]) for key, _ in _COLUMNS), verdict]


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
