#!/bin/sh
# Builds, checks and times the network in this folder on the board that it was emitted for; ./run.sh --help explains.
set -eu
cd "$(dirname "$0")"
if ! command -v python3 >/dev/null 2>&1; then
    echo "run.sh: python3: is not installed; install it with 'sudo apt install python3'" >&2
    exit 10
fi
exec python3 -I run.py "$@"
