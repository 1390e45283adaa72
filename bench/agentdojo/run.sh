#!/bin/sh
# Run suites of AgentDojo: bench/agentdojo/run.sh [SUITE...] [--attack NAME]. Default: workspace slack.
#
# The environment is made in .cache/agentdojo and made anew when the lock changes. PYTHON names the Python that it is
# made with, 3.11 or later.
set -eu

here=$(cd "$(dirname "$0")/../.." && pwd)
venv=$here/.cache/agentdojo
lock=$here/requirements/agentdojo.txt

if ! cmp -s "$lock" "$venv/.installed"; then
    echo "agentdojo: making its environment in $venv" >&2
    rm -rf "$venv"
    "${PYTHON:-python3}" -m venv "$venv"
    "$venv/bin/python" -m pip --disable-pip-version-check install -qq --require-hashes -r "$lock"
    cp "$lock" "$venv/.installed"
fi
cd "$here"
PYTHONPATH=$here/src exec "$venv/bin/python" -m bench.agentdojo "$@"
