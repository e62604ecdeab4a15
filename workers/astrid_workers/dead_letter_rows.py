"""Each dead letter as a row: what died, why and when.

Owns the row's contents. A message that dies again after it was requeued overwrites its row.
"""

from astrid_workers.middleware.dead_letters import DeadLetter
from astrid_workers.storage import models
from astrid_workers.storage.database import get_database


def record_dead_letter(letter: DeadLetter) -> None:
    """Write the row of `letter`. Raises `ServiceUnavailable` where the database does not answer."""
    row = models.DeadLetter(
        message_id=letter.message_id,
        queue=letter.queue,
        actor=letter.actor,
        args=list(letter.args),
        kwargs=letter.kwargs,
        message=letter.message,
        sentence=letter.sentence,
        attempts=letter.attempts,
        died_at=letter.died_at,
        requeued_at=None,
    )
    with get_database().session() as session:
        session.merge(row)
