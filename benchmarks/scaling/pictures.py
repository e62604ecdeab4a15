"""The picture of bursts: how soon a fleet of 100 stands, ours and KEDA's.

Owns its layout; every figure is read from `benchmarks/results/against-keda.json`, which `against_keda.py`
wrote.

    python benchmarks/scaling/pictures.py
"""

import json
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[2]
#: Key of the results, name, colour (Okabe & Ito 2008: told apart by every kind of colour vision) and dashes.
SYSTEMS = (
    ("bursts astrid", "Astrid, defaults", "#0072b2", "-"),
    ("bursts expert", "KEDA, expert: 1 s poll, counts what is in work", "#009e73", "-."),
    ("bursts tuned", "KEDA, tuned: 1 s poll", "#d55e00", "--"),
    ("bursts default", "KEDA, defaults: 30 s poll", "#666666", ":"),
)


def main() -> None:
    """Draw docs/images/burst.png."""
    results = json.loads((ROOT / "benchmarks" / "results" / "against-keda.json").read_text())
    figure = Figure(figsize=(8.2, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for key, name, colour, dashes in SYSTEMS:
        for raw, width in (("raw_to_1_s", 1.0), ("raw_to_100_s", 2.4)):
            times = np.sort(results[key][raw])
            share = np.arange(1, len(times) + 1) / len(times)
            label = name if width > 2 else None
            axes.step([0.1, *times, 200], [0, *share, share[-1]], where="post", color=colour, lw=width,
                      ls=dashes, label=label, alpha=1 if width > 2 else 0.55)  # fmt: skip
    axes.set(xscale="log", xlim=(0.15, 200), ylim=(0, 1.03))
    axes.set_xticks(
        [0.2, 0.5, 1, 2, 5, 10, 20, 50, 100], ["0.2", "0.5", "1", "2", "5", "10", "20", "50", "100"]
    )
    axes.minorticks_off()
    axes.set_xlabel("seconds after 1,000 messages arrived")
    axes.set_ylabel("share of 24 bursts")
    axes.set_title(
        "Thick: the object asks for all 100 members; thin: for a first one. From zero, one queue", fontsize=10
    )
    axes.grid(alpha=0.3)
    figure.legend(fontsize=8.5, loc="outside lower center", ncols=2, frameon=False)
    path = ROOT / "docs" / "images" / "burst.png"
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110, pil_kwargs={"optimize": True})
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
