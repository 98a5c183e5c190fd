#!/usr/bin/env bash
# Fails where the night's tests failed, or something is worse than in the last good night.
set -euo pipefail

tests=$(cat night/tests) state=$(cat night/state)
echo "tests $tests, comparison: $state"
[ "$tests" = passed ] && [ "$state" != regression ]
