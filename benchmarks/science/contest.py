"""The contest: same pairs and extraction for Astrid, for every rival that is installed, and for an oracle.

Owns which pairs and contenders run, and the rows; never tunes anything. Each contender is a child process,
those of other projects in the Python that `ASTRID_RIVALS_PYTHON` names; HOTPANTS is the program that
`ASTRID_HOTPANTS` names. Who is absent is said loudly and has no row. Rows are kept pair by pair: a contest
can be cut and continued.

    python benchmarks/science/contest.py 9001 9002 --kinds realistic --size 2048 --name realistic-2k
"""

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from oracle import oracle_answer
from pairs import HARD, make_pair
from peaks import score_answer, score_from_difference

from astrid_workers.mask import MaskBit
from astrid_workers.sky import Sky

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results"
KNOWN_BAD = np.uint32(MaskBit.BAD_PIXEL | MaskBit.SATURATED | MaskBit.NO_DATA)
#: A contender that takes longer has failed, seconds.
LONGEST_S = 1500
#: Programs that rivals call by their authors' names, and what Debian names them.
PROGRAMS = {"swarp": "SWarp", "sex": "source-extractor"}


@dataclass(frozen=True)
class Contender:
    """A script under `contenders/` and the settings that it knows."""

    script: str
    settings: tuple[str, ...]
    #: A module that its Python must have; empty: ours.
    needs: str = ""

    def python(self) -> str | None:
        """The interpreter that can run it; None: nowhere installed."""
        if not self.needs:
            return sys.executable
        python = os.environ.get("ASTRID_RIVALS_PYTHON", "")
        if not python or (self.script == "hotpants" and not os.environ.get("ASTRID_HOTPANTS")):
            return None
        found = subprocess.run([python, "-c", f"import {self.needs}"], capture_output=True, check=False)
        return python if found.returncode == 0 else None


BOTH = ("best", "default")
CONTENDERS = {
    "astrid": Contender("astrid", ("auto", "zogy", "classic", "none")),
    "stdpipe-zogy": Contender("stdpipe_zogy", BOTH, "stdpipe"),
    "stdpipe-sfft": Contender("stdpipe_sfft", BOTH, "stdpipe"),
    "sfft": Contender("sfft_sparse", BOTH, "sfft, stdpipe"),
    "properimage": Contender("properimage_zogy", BOTH, "properimage, stdpipe"),
    "pyzogy": Contender("pyzogy", BOTH, "PyZOGY, stdpipe"),
    "hotpants": Contender("hotpants", BOTH, "stdpipe"),
}


def write_pair(sky: Sky, folder: Path) -> str:
    """Both frames in electrons (float32, GAIN 1) with the masks of what is known to be bad.

    Returns a digest of the pixels.
    """
    digest = hashlib.sha256()
    for name, frame in (("science", sky.science), ("reference", sky.reference)):
        lost = (frame.mask & np.uint32(MaskBit.NO_DATA)) != 0
        pixels = np.where(lost, np.float32(np.nan), frame.science)
        header = frame.wcs.to_header(relax=True) if frame.wcs is not None else fits.Header()
        facts = frame.facts
        for card, value in (
            ("GAIN", 1.0), ("RDNOISE", facts.read_noise_e), ("SATURATE", facts.saturation),
            ("EXPTIME", facts.exposure_s), ("FILTER", facts.filter_name), ("BUNIT", "electron"),
        ):  # fmt: skip
            header[card] = value
        fits.writeto(folder / f"{name}.fits", pixels, header)
        fits.writeto(folder / f"{name}_mask.fits", ((frame.mask & KNOWN_BAD) != 0).astype(np.uint8))
        digest.update(pixels.tobytes())
    return digest.hexdigest()[:16]


def search_path(folder: Path) -> str:
    """A PATH on which rivals find their programs by the authors' names, by links in `folder` where needed."""
    folder.mkdir(exist_ok=True)
    for name, packaged in PROGRAMS.items():
        program, link = shutil.which(packaged), folder / name
        if shutil.which(name) is None and program is not None and not link.exists():
            link.symlink_to(program)
    return os.pathsep.join([str(folder), os.environ.get("PATH", os.defpath)])


def run_contender(contender: Contender, setting: str, pair: Path, answer: Path) -> dict[str, Any]:
    """Its answer, or `failed` with the last line that it said."""
    python = contender.python()
    assert python is not None
    threads = dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS"), "1"
    )
    script = HERE / "contenders" / f"{contender.script}.py"
    try:
        ran = subprocess.run(
            [python, str(script), str(pair), str(answer), setting],
            capture_output=True, text=True, check=False, timeout=LONGEST_S,
            env=os.environ | threads | {"PATH": search_path(answer.parent / "programs")}, cwd=pair,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"failed": f"took longer than {LONGEST_S} s"}
    if ran.returncode != 0:
        said = [line for line in ran.stderr.splitlines() if line.strip()] or ["said nothing"]
        return {"failed": said[-1][:300]}
    made: dict[str, Any] = {"meta": json.loads((answer / "meta.json").read_text())}
    for array in answer.glob("*.npy"):
        made[array.stem] = np.load(array)
    if "score" not in made:
        made["score"], made["flux"], made["flux_error"] = score_from_difference(
            made["difference"],
            made["psf"].astype(np.float64),
            made["variance"].astype(np.float64),
            made["valid"],
        )
    return made


def chosen(names: str) -> list[tuple[str, str]]:
    """`(contender, setting)` of a comma-separated list: `astrid:zogy`, `sfft` (all settings) or `all`."""
    pairs: list[tuple[str, str]] = []
    for one in names.split(","):
        name, _, setting = one.partition(":")
        for each in ["oracle", *CONTENDERS] if name == "all" else [name]:
            known = ("told",) if each == "oracle" else CONTENDERS[each].settings
            pairs += [(each, s) for s in ((setting,) if setting else known)]
    return pairs


def say_who_is_absent(wanted: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those that can run; for each of the others a line."""
    absent = {
        name
        for name in dict.fromkeys(n for n, _ in wanted)
        if name != "oracle" and CONTENDERS[name].python() is None
    }
    for name in sorted(absent):
        where = "ASTRID_HOTPANTS and ASTRID_RIVALS_PYTHON" if name == "hotpants" else "ASTRID_RIVALS_PYTHON"
        print(f"ABSENT: {name} does not take part: not found through {where}", file=sys.stderr, flush=True)
    return [pair for pair in wanted if pair[0] not in absent]


def compete(kind: str, seed: int, size: int, contenders: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """One pair, every contender."""
    sky = make_pair(kind, seed, size)
    rows = []
    with tempfile.TemporaryDirectory(prefix="astrid-contest-") as place:
        pair = Path(place) / "pair"
        pair.mkdir()
        digest = write_pair(sky, pair)
        for name, setting in contenders:
            started = time.time()
            if name == "oracle":
                made: dict[str, Any] = oracle_answer(sky) | {"meta": {}}
            else:
                made = run_contender(CONTENDERS[name], setting, pair, Path(place) / f"{name}-{setting}")
            row = {
                "kind": kind,
                "seed": seed,
                "size": size,
                "contender": name,
                "setting": setting,
                "pixels": digest,
            }
            row |= {
                "load": os.getloadavg()[0],
                "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
            }
            row |= {"commit": commit()}
            if "failed" in made:
                row |= {"failed": made["failed"]}
            else:
                meta = made["meta"]
                made["candidates"] = meta.pop("candidates", None)
                row |= {"meta": meta} | score_answer(sky, made)
                if "cpu_s" in meta:
                    row["cpu_s_per_mpix"] = meta["cpu_s"] / (size**2 / 1e6)
                    row["peak_mb"] = meta["peak_mb"]
            rows.append(row)
            print(line(row), flush=True)
    return rows


def commit() -> str:
    """Of the tree that ran, with a + when its code is changed."""
    said = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"], capture_output=True, text=True, check=False, cwd=HERE
    )
    return said.stdout.strip() or "unknown"


#: Columns of the table: title and key.
COLUMNS = (
    ("false", "false"), ("CR", "false_cosmic_ray"), ("satur.", "false_saturated"), ("star", "false_star"),
    ("other", "false_other"), ("list", "list_false"), ("S50", "s50_blank"), ("host", "s50_host"),
    (">10", "complete_above_10"), ("flux", "flux_ratio"), ("±", "flux_scatter"),
    ("pos", "position_scatter_px"), ("median", "score_median"), ("scatter", "score_scatter"),
    ("tails", "tails"), ("sky", "tails_empty_sky"), ("CPU", "cpu_s_per_mpix"), ("MB", "peak_mb"),
)  # fmt: skip


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    head = f"{row['kind']:>15} {row['seed']:>6} {row['contender'] + ':' + row['setting']:>21}"
    if "failed" in row:
        return f"{head}  FAILED: {row['failed']}"
    return " ".join([head, *(_cell(row.get(key)) for _, key in COLUMNS)])


def _cell(value: float | None) -> str:
    return "      -" if value is None else f"{value:7.3f}" if abs(value) < 100 else f"{value:7.0f}"


def main() -> None:
    """Run the contest and keep its rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("seeds", type=int, nargs="+", help="seeds that nothing was tuned on")
    parser.add_argument("--size", type=int, default=1024, help="side of a frame, pixels")
    parser.add_argument("--kinds", default="realistic", help=f"comma-separated, of {', '.join(HARD)}")
    parser.add_argument(
        "--contenders",
        default="all",
        help="all, or of oracle, " + ", ".join(CONTENDERS) + ", as NAME or NAME:SETTING",
    )
    parser.add_argument("--name", help="append the rows to benchmarks/results/NAME.json")
    options = parser.parse_args()
    contenders = say_who_is_absent(chosen(options.contenders))
    print(" ".join([f"{'kind':>15} {'seed':>6} {'contender':>21}", *(f"{title:>7}" for title, _ in COLUMNS)]))
    for kind in options.kinds.split(","):
        for seed in options.seeds:
            rows = compete(kind, seed, options.size, contenders)
            if options.name:
                keep(RESULTS / f"{options.name}.json", rows)


def keep(path: Path, rows: list[dict[str, Any]]) -> None:
    """Append `rows`; a row of the same pair and contender is replaced."""

    def same(row: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(row[key] for key in ("kind", "seed", "size", "contender", "setting"))

    with path.open("a+") as file:  # contests that run side by side may keep their rows in one file
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        old = json.loads(file.read() or '{"rows": []}')["rows"]
        new = {same(row) for row in rows}
        kept = [row for row in old if same(row) not in new] + rows
        file.truncate(0)
        file.write(json.dumps({"rows": kept}, indent=0) + "\n")


if __name__ == "__main__":
    main()
