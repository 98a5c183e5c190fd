#!/usr/bin/env bash
# Trains the benchmarks at full size with --reuse, and gathers this night's runs in night/full; where no test has run, why not goes
# into night/comparison.md.
# PORTRAITS, CAMVID: folders of data. WEIGHTS: of pretrained weights, may be empty. SEEDS: of every row.
# PYTHON: with the packages that `make gpu` needs (default: python3).
set -euo pipefail

fail() {
    echo "::error::$1"
    echo "$1" > night/comparison.md
    exit 4
}

# As the shell and then make read it.
quoted() {
    local text
    text=$(printf '%q' "$1")
    printf '%s' "${text//\$/\$\$}"
}

rm -rf night
mkdir night

for name in PORTRAITS CAMVID WEIGHTS; do
    folder=${!name:-}
    [ "$name" = WEIGHTS ] && [ -z "$folder" ] && continue
    [ -n "$folder" ] || fail "No $name: set the repository variable $name to a folder on the runner."
    [ -d "$folder" ] || fail "$name names $folder, which is no folder on this runner."
done

arguments="--seeds $(quoted "${SEEDS:-5}") --junitxml=night/junit.xml"
arguments+=" --portraits $(quoted "$PORTRAITS") --camvid $(quoted "$CAMVID")"
[ -z "${WEIGHTS:-}" ] || arguments+=" --weights $(quoted "$WEIGHTS")"

python=${PYTHON:-python3}
if make gpu-full PYTHON="$python" ARGS="$arguments"; then
    echo passed > night/tests
elif grep --quiet "<testcase" night/junit.xml 2> /dev/null; then
    echo failed > night/tests # a run, a bound or a claim: there is something to compare all the same
else
    fail "No test has run: see the log."
fi
"$python" .github/scripts/night.py night/junit.xml results/full night/full
