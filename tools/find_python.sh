#!/bin/sh
# Print the newest usable Python: 3.11 or later, able to make a virtual environment with pip in it.
# A shim that runs nothing and a Debian Python without its venv package both fail the probe.
for name in ${PYTHON:-python3.13 python3.12 python3.11 python3 python3.14}; do
    path=$(command -v "$name") || continue
    "$path" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue
    echo "$path"
    exit 0
done
echo "No usable Python found: install Python 3.11 or newer with its venv module (Debian: apt-get install python3 python3-venv), or name one with PYTHON=/path/to/python make …" >&2
exit 1
