#!/usr/bin/env bash
# One scenario for curl: see README.md.  curl.sh URL 1|2
set -euo pipefail

url=$1
case $2 in
1) version=--http1.1 ;;
2) version=--http2-prior-knowledge ;;
*) echo "usage: curl.sh URL 1|2" >&2; exit 2 ;;
esac
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

ask() { curl --silent --show-error --max-time 60 "$version" "$@"; }
fail() { echo "curl: $*" >&2; exit 1; }

body='{"input":"Grüße"}'
answer=$(ask --fail -H 'content-type: application/json' --data "$body" "$url/json")
[ "$answer" = "$body" ] || fail "json: $answer"
echo "json"

n=0
while IFS= read -r line; do
    case $line in
    "data: $n") n=$((n + 1)); ask --fail --output /dev/null --data "" "$url/seen" ;;
    data:*) fail "sse: $line instead of $n" ;;
    esac
done < <(ask --fail --no-buffer --data '{"stream":true}' "$url/sse")
[ "$n" = 20 ] || fail "sse: $n events"
echo "sse"

head -c 8388608 /dev/urandom >"$folder/up"
ask --fail --data-binary "@$folder/up" --output "$folder/down" "$url/echo"
cmp "$folder/up" "$folder/down" || fail "echo: not the same bytes"
ask --fail --upload-file - --output "$folder/down" "$url/echo" <"$folder/up"
cmp "$folder/up" "$folder/down" || fail "echo without a length: not the same bytes"
echo "echo"

status=$(ask --output "$folder/problem" --dump-header "$folder/head" --write-out '%{http_code} %{content_type}' \
    --data '{}' "${url%/agents/*}/agents/nobody/invoke")
[ "$status" = "404 application/problem+json" ] || fail "problem: $status"
grep --quiet '"code": *"unknown-agent"' "$folder/problem" || fail "problem: $(cat "$folder/problem")"
grep --quiet --ignore-case '^x-switchyard-error: unknown-agent' "$folder/head" || fail "problem: no header"
echo "problem"

exec 3< <(exec curl --silent --max-time 60 "$version" --no-buffer --data '{}' "$url/endless")
leaving=$!
n=0
while [ "$n" -lt 2 ] && IFS= read -r line <&3; do
    case $line in data:*) n=$((n + 1)) ;; esac
done
[ "$n" = 2 ] || fail "endless: $n events"
kill "$leaving"
echo "left"
