"""How far the night has come: the observations' states, and the fleet beside them.

Owns one reading of both and the table that shows it; never sends a message or ends anything.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from sqlalchemy import select

from astrid_workers.demo.services import QueueState
from astrid_workers.storage.database import Database
from astrid_workers.storage.models import Observation
from astrid_workers.storage.states import ObservationState

#: States in which nothing more will happen to a science observation by itself.
ENDED = frozenset({ObservationState.CURATED, ObservationState.FAILED})

#: States in the order in which an observation passes them.
PATH = (
    ObservationState.INGESTED,
    ObservationState.PREPROCESSING,
    ObservationState.PREPROCESSED,
    ObservationState.DIFFERENCING,
    ObservationState.DIFFERENCED,
    ObservationState.DETECTED,
    ObservationState.CURATED,
    ObservationState.FAILED,
)


@dataclass(frozen=True, slots=True)
class Progress:
    """The night at one moment."""

    seconds: float
    submitted: int
    #: Science observations by state; those without a row yet are missing.
    states: Counter[ObservationState]
    queues: tuple[QueueState, ...]

    @property
    def completed(self) -> int:
        """Observations ready for review."""
        return self.states[ObservationState.CURATED]

    @property
    def failed(self) -> int:
        """Observations that failed for good, with the reason in their rows."""
        return self.states[ObservationState.FAILED]

    @property
    def is_over(self) -> bool:
        """Every observation has ended."""
        return self.completed + self.failed >= self.submitted

    @property
    def is_at_rest(self) -> bool:
        """No message is left and no worker is there."""
        return bool(self.queues) and all(
            row.members == 0 and row.outstanding == 0 and row.delayed == 0 for row in self.queues
        )

    def fleet_rows(self) -> list[dict[str, Any]]:
        """One row per queue for the report."""
        return [
            {
                "t": round(self.seconds, 2),
                "queue": row.queue,
                "members": row.members,
                "outstanding": row.outstanding,
            }
            for row in self.queues
        ]


def read_states(database: Database, ids: Sequence[UUID]) -> Counter[ObservationState]:
    """How many of the observations `ids` are in each state."""
    with database.session() as session:
        return Counter(session.scalars(select(Observation.status).where(Observation.id.in_(ids))))


def picture(progress: Progress) -> Group:
    """What a person sees while it runs: a bar, the states, and a line per queue."""
    states = Table.grid(padding=(0, 2))
    for _ in PATH:
        states.add_column(justify="right")
    states.add_row(*(f"[dim]{state.value}[/dim]" for state in PATH))
    states.add_row(*(str(progress.states[state]) for state in PATH))
    fleet = Table(expand=True)
    for column in ("queue", "waits", "runs", "delayed", "workers"):
        fleet.add_column(column, justify="left" if column == "queue" else "right", no_wrap=True)
    fleet.add_column("why", overflow="ellipsis", no_wrap=True, ratio=1)
    for row in progress.queues:
        counts = [_number(each) for each in (row.ready, row.running, row.delayed)]
        why = f"{row.reason}: {row.message}" if row.message else row.reason
        fleet.add_row(row.queue, *counts, str(row.members), why)
    bar = Table.grid(padding=(0, 1))
    bar.add_row(
        ProgressBar(total=progress.submitted, completed=progress.completed + progress.failed, width=40),
        f"{_share(progress)}, {progress.seconds:.0f} s",
    )
    return Group(bar, states, fleet)


def line(progress: Progress) -> str:
    """The same in one line, for where there is no terminal."""
    fleet = ", ".join(
        f"{row.queue} {_number(row.outstanding)} messages/{row.members} workers"
        for row in progress.queues
        if row.members or row.outstanding
    )
    return f"{progress.seconds:5.0f} s  {_share(progress)}  {fleet or 'no workers'}"


def _share(progress: Progress) -> str:
    return f"{progress.completed} of {progress.submitted} observations ready for review"


def _number(value: int | None) -> str:
    return "–" if value is None else str(value)
