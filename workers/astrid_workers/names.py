"""What may name something in a message.

Owns the one check of ids and names that arrive as arguments; never looks anything up.
"""

from astrid_workers.errors import UnknownRecord

#: Longest external id, as the contract with clients has it.
LONGEST_NAME = 200


def checked_name(value: object, what: str) -> str:
    """`value` if it is text of 1 to 200 characters; UnknownRecord with `what` and the value otherwise."""
    if isinstance(value, str) and 1 <= len(value) <= LONGEST_NAME:
        return value
    shown = f"{len(value)} characters" if isinstance(value, str) else repr(value)[:LONGEST_NAME]
    message = f"{what} must be text of 1 to {LONGEST_NAME} characters, got {shown}"
    raise UnknownRecord(message)
