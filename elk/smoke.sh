#!/bin/sh
# Smoke test of the stack: start it, run the worker of this checkout for a minute, check the result, stop it.
# It has its own compose project and volumes, so the data of your stack are kept; the ports must be free.
# Options are passed to the worker: elk/smoke.sh --jetstream ws://127.0.0.1:6008
set -eu

here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-$here/../.venv/bin/python}
seconds=${SMOKE_SECONDS:-60}
logs=${SMOKE_LOGS:-$here/../build/smoke}
index=${SKEETSLURPER_INDEX:-bluesky-events}
worker=

log() {
    printf 'smoke: %s\n' "$1"
}

fail() {
    printf 'smoke: %s; see %s\n' "$1" "$logs" >&2
    exit 1
}

compose() {
    docker compose --project-name skeetslurper-smoke --project-directory "$here" "$@"
}

# The value that compose uses: from the environment, then from .env.
setting() {
    eval "value=\${$1:-}"
    printf '%s' "${value:-$(sed -n "s/^$1=//p" "$here/.env" | sed "s/^'\(.*\)'\$/\1/")}"
}

# The password is passed on standard input: command lines are public.
request() {
    printf 'user = "elastic:%s"\n' "$(setting ELASTIC_PASSWORD | sed 's/[\\"]/\\&/g')" |
        curl -q --config - --noproxy '*' --silent --show-error --fail --max-time 30 "$@"
}

clean_up() {
    code=$?
    trap '' EXIT INT TERM
    if [ -n "$worker" ]; then
        kill "$worker" 2>/dev/null || :
        wait "$worker" || :
    fi
    compose ps --all >"$logs/ps.txt" 2>&1 || :
    compose logs --no-color >"$logs/stack.log" 2>&1 || :
    compose down --volumes --remove-orphans || code=1
    exit "$code"
}

mkdir -p "$logs"
trap clean_up EXIT
trap 'exit 1' INT TERM
es=http://localhost:$(setting ES_PORT)
kibana=http://localhost:$(setting KIBANA_PORT)

log "starting the stack"
compose up setup
compose logs --no-color setup | grep -q 'setup: done' || fail "setup did not complete"
compose up -d --wait --wait-timeout 600

log "running the worker for $seconds s"
password=$(setting ELASTIC_PASSWORD)
SKEETSLURPER_ES_PASS=$password "$python" "$here/../skeetslurper.py" --es "$es" --kibana "$kibana" \
    --dead-letter "$logs/dead-letters.jsonl" --stats-interval 10s "$@" 2>"$logs/worker.log" &
worker=$!
sleep "$seconds"
kill -TERM "$worker" 2>/dev/null || :
code=0
wait "$worker" || code=$?
worker=
[ "$code" = 0 ] || fail "the worker exited with code $code"

indexed=$(sed -n 's/.* received .* = indexed \([0-9,]*\) .*/\1/p' "$logs/worker.log" | tail -n 1 | tr -d ,)
[ "${indexed:-0}" -gt 0 ] || fail "the worker indexed no events"
request --output /dev/null --request POST "$es/$index-*/_refresh"
documents=$(request "$es/$index-*/_count" | sed -n 's/.*"count":\([0-9]*\).*/\1/p')
[ "${documents:-0}" -ge "$indexed" ] || fail "the worker indexed $indexed, Elasticsearch has ${documents:-none}"
log "$documents documents, $indexed of them in the last stats line"

expected=$(grep -c '"type":"dashboard"' "$here/../slurp/kibana/dashboards.ndjson")
found=$(request --header 'kbn-xsrf: true' --header 'Content-Type: application/json' \
    --data '{"type":["dashboard"],"excludeExportDetails":true}' \
    "$kibana/api/saved_objects/_export" | grep -c '"type":"dashboard"') || :
[ "$found" -ge "$expected" ] || fail "Kibana has $found dashboards, expected $expected"
log "$found dashboards"
log "done"
