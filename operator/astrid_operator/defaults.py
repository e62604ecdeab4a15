"""What holds where nobody says otherwise, and stands in the help of `astrid-operator`.

Owns the defaults that a verb's arguments share with its work; imports nothing but the standard library, so
that help answers at once.
"""

from typing import Literal

LogLevel = Literal["debug", "info", "warning", "error"]
#: `json` for collectors, `console` for people.
LogFormat = Literal["json", "console"]

#: Least that the operator logs, and how.
LOG_LEVEL: LogLevel = "info"
LOG_FORMAT: LogFormat = "json"

#: Image of workers whose AstridQueue names none.
IMAGE = "astrid-worker:0.1.0"

#: Dramatiq's prefix of its keys in Redis.
DRAMATIQ_NAMESPACE = "dramatiq"

#: From asking for a worker until it works, in a simulation.
START_SECONDS = 10.0
