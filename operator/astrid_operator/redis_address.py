"""An address of a Redis as it may be shown.

Owns what is left out of it. Never connects, and imports no client: every verb may show one.
"""

import re

WITHHELD = "(address withheld)"

_HOST = r"(?:[\w.%-]*|\[[\w.:%]+\])(?::\d*)?"
#: Scheme, user and password, and what follows the last `@`, without options.
_SHOWN = tuple(
    re.compile(rf"({scheme}://)([^/?#]*@)?({place})(?:[?#][^@]*)?", re.IGNORECASE)
    for scheme, place in (
        ("rediss?", rf"{_HOST}(?:/\d*)?"),
        (r"rediss?\+sentinel", rf"{_HOST}(?:,{_HOST})*/[^/?#@\s]+(?:/\d*)?"),
        ("unix", r"/[^?#@\s]*"),
    )
)


def redacted(url: str) -> str:
    """`url` without user, password and options, fit for logs, status and events.

    Nothing of it is shown where a part does not look like what should stand there: a password that is not
    encoded (`/`, `?` and `#` end the host) may be anywhere then.
    """
    for form in _SHOWN:
        if match := form.fullmatch(url):
            scheme, user, place = match.groups()
            return f"{scheme}{'***@' if user and user != '@' else ''}{place}"
    return WITHHELD
