#!/usr/bin/env bash
# Writes the comparison under a pull request, in the place of an earlier one: `comment.sh COMPARISON`.
# NUMBER: of the pull request. RUN_URL: the run's page. GH_TOKEN, GH_REPO: gh's.
set -euo pipefail

marker="<!-- cvhw4-comparison -->"
body=$(mktemp)
trap 'rm -f "$body"' EXIT

printf '%s\n' "$marker" > "$body"
cat "$1" >> "$body"
printf '\nB is this pull request, A the last good night: %s\n' "$RUN_URL" >> "$body"

earlier=$(gh api --paginate "repos/$GH_REPO/issues/$NUMBER/comments" \
    --jq ".[] | select(.user.login == \"github-actions[bot]\" and (.body | startswith(\"$marker\"))) | .id")
earlier=${earlier%%$'\n'*}
if [ -n "$earlier" ]; then
    gh api --silent --method PATCH "repos/$GH_REPO/issues/comments/$earlier" --field "body=@$body"
else
    gh api --silent --method POST "repos/$GH_REPO/issues/$NUMBER/comments" --field "body=@$body"
fi
