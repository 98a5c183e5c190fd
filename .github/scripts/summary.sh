#!/usr/bin/env bash
# Puts what moved against the committed results, and the tables, into the job's summary (GitHub takes 1 MiB), without
# the pictures, whose files it cannot show.
# PYTHON: what runs cvhw4 (default: .venv/bin/python). GITHUB_STEP_SUMMARY: the file that is shown.
set -euo pipefail

{
    echo "## Against the committed results"
    # Whatever it says, the tests have the last word: exit code 1 tells of something worse, 4 of nothing to compare.
    "${PYTHON:-.venv/bin/python}" -m cvhw4 compare HEAD results --markdown || true
    if [ -f results/quick/report.md ]; then
        head --bytes=800000 <(sed '/^!\[/d' results/quick/report.md)
    else
        echo "No report was written."
    fi
} >> "$GITHUB_STEP_SUMMARY"
