"""`start_workers` with the actors of `worker_actors` loaded: every flag and variable acts as in the real command."""

import sys

from astrid_workers import start_plan, start_workers

start_plan.APP = "support.worker_actors"

if __name__ == "__main__":
    sys.exit(start_workers.main())
