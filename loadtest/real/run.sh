#!/usr/bin/env bash
# `make test-real`: sets up, builds, runs all checks against real counterparts, prints a table.
#
#   run.sh [SUITE …]      the suites are named in run.py
#
# RELAIS_SKIPS=fatal: whatever had to be skipped is an error. Logs stay in .cache/real/logs.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)

"$here/setup.sh"
# The same profile, features and target directory as `make test`: nothing is compiled twice.
(cd "$root" && make --silent binaries)

# Not the virtual environment's: the runner itself must work where that could not be made.
exec python3 "$here/run.py" "$@"
