#!/usr/bin/env bash
# Holds night/ against last/, the last good night, into night/comparison.md and the output `state`:
# "none" (no earlier night), "fine", "failed" (nothing is worse, but tests failed), "regression" (a row of last/ that is
# missing counts as worse), or "broken" (no session has ended, or the comparison fails: exit code 4). Then last/ becomes
# this night, if its tests passed and nothing is worse: while something is, later nights are held against the last good
# one, or they would find nothing. ACCEPT=true takes it as it is.
# TIME_LIMIT: ratio above which training is too slow; may be empty. PYTHON: as for train.sh.
set -euo pipefail

options=(--study full --markdown --complete)
[ -z "${TIME_LIMIT:-}" ] || options+=(--time-limit "$TIME_LIMIT")

broken() {
    echo "::error::$1"
    echo "$1" > night/comparison.md
    echo "state=broken" >> "$GITHUB_OUTPUT"
    exit 4
}

mkdir -p night
if [ ! -e night/tests ] && ! compgen -G "night/full/runs/*/*.json" > /dev/null; then
    why=$(cat night/comparison.md 2> /dev/null) || why="Training was broken off: see the log. The next night goes on."
    broken "$why"
fi

state=none
code=0
if ! compgen -G "night/full/runs/*/*.json" > /dev/null; then
    echo "No run has finished." > night/comparison.md
    state=regression
elif compgen -G "last/full/runs/*/*.json" > /dev/null; then
    "${PYTHON:-python3}" -m cvhw4 compare last night "${options[@]}" > night/comparison.md || code=$?
    case $code in
        0) state=fine ;;
        1) state=regression ;;
        *) state="" ;;
    esac
    if [ -z "$state" ] || [ ! -s night/comparison.md ]; then
        broken "The comparison failed: see the log."
    fi
else
    echo "There is no earlier night to compare with." > night/comparison.md
fi

if [ "$state" != regression ] && ! grep --quiet --line-regexp passed night/tests 2> /dev/null; then
    printf '\nTests failed, so this is not taken for a good night.\n' >> night/comparison.md
    state=failed
fi
if [[ $state = @(failed|regression) ]] && [ "${ACCEPT:-false}" = true ] && [ -d night/full/runs ]; then
    printf '\nTaken as it is: later nights are held against this one.\n' >> night/comparison.md
    state=fine
fi
if [[ $state = @(none|fine) ]]; then
    rm -rf last
    mkdir last
    cp -a night/full last/full
fi
echo "$state" > night/state
echo "state=$state" >> "$GITHUB_OUTPUT"
