#!/usr/bin/env bash
# Keeps one issue open while nights are worse than the last good one, or have nothing to compare: `issue.sh COMPARISON`.
# STATE: "none" and "failed" (neither opens nor closes it), "fine", "regression" or "broken". RUN_URL: the night's page.
# GH_TOKEN, GH_REPO: gh's.
set -euo pipefail

marker="<!-- cvhw4-nightly -->"
body=$(mktemp)
trap 'rm -f "$body"' EXIT

# Of those that this workflow opened: anybody may write the marker.
open=$(gh issue list --app github-actions --state open --limit 500 --json number,body \
    --jq "map(select(.body | contains(\"$marker\"))) | .[0].number // empty")

case $STATE in
    none | failed) ;;
    regression | broken)
        what="is worse than the last good one"
        [ "$STATE" = regression ] || what="has nothing that could be compared"
        printf '%s\n%s\n\n' "$marker" "The night $what: $RUN_URL" > "$body"
        cat "$1" >> "$body"
        if [ -n "$open" ]; then
            gh issue comment "$open" --body-file "$body"
        else
            gh issue create --title "The nightly benchmarks are worse, or broken" --body-file "$body"
        fi
        ;;
    fine)
        if [ -n "$open" ]; then
            gh issue close "$open" --comment "Nothing is worse than in the last good night any more: $RUN_URL"
        fi
        ;;
    *)
        echo "::error::STATE is $STATE, not none, failed, fine, regression or broken."
        exit 4
        ;;
esac
