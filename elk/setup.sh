#!/bin/sh
# Creates the Elasticsearch users of the stack. It can be run repeatedly.
set -eu

url=${ES_URL:-http://elasticsearch:9200}
wait=${SETUP_WAIT:-300}
# Seconds: a starting cluster rejects the right password as well.
unauthorized_timeout=${SETUP_BELIEVE_DENIED:-20}
role_file=$(dirname "$0")/skeetslurper_writer.json

log() {
    printf 'setup: %s\n' "$1"
}

fail() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

# Escape a string for JSON and for a curl config file: both have the same rules.
escape() {
    printf '%s' "$1" | sed 's/[\\"]/\\&/g'
}

check_password() {
    case $2 in
        *[[:cntrl:]]*) fail "$1 in .env has a tab, a line end or another control character" ;;
    esac
    [ "${#2}" -ge 6 ] || fail "$1 in .env has fewer than 6 characters, the minimum of Elasticsearch"
}

# Use this user and password. Passwords are passed in private files: command lines are public.
authenticate_as() {
    {
        printf 'user = "%s:%s"\n' "$1" "$(escape "$2")"
        printf 'header = "Content-Type: application/json"\n'
        # A proxy that Docker sets in the environment cannot resolve the service names.
        printf 'noproxy = "*"\nconnect-timeout = 5\nmax-time = 30\nsilent\nshow-error\n'
    } >"$tmp/curl"
}

# request METHOD PATH [FILE]: set code and response. Code 000 means no response.
request() {
    : >"$tmp/response"
    code=$(curl -q --config "$tmp/curl" --request "$1" ${3:+--data-binary "@$3"} \
        --output "$tmp/response" --write-out '%{http_code}' "$url$2" 2>"$tmp/error") || code=000
    response=$(cat "$tmp/response")
}

error_text() {
    reason=$(printf '%s' "$response" | sed -n 's/.*"reason":"\([^"]*\)".*/\1/p')
    if [ "$code" = 000 ]; then
        printf 'no response (%s)' "$(head -n 1 "$tmp/error")"
    else
        printf 'HTTP %s, %s' "$code" "${reason:-$(printf '%.200s' "$response")}"
    fi
}

now() {
    date +%s
}

password_rejected() {
    fail "Elasticsearch at $url rejects the password of elastic in .env." \
        "The data volume is older than this .env and has the password that was last set in Kibana or over the API." \
        "Either" \
        " - write that password to .env, or" \
        " - set the password of elastic to the one in .env, then run setup again:" \
        "     docker compose exec elasticsearch bin/elasticsearch-reset-password -i -u elastic --url http://localhost:9200" \
        " - or delete all data: docker compose --profile '*' down --volumes"
}

wait_until_ready() {
    unauthorized_since=
    logged=
    while :; do
        request GET '/_cluster/health?wait_for_status=yellow&timeout=5s'
        if [ "$code" = 401 ]; then
            unauthorized_since=${unauthorized_since:-$(now)}
            [ $(($(now) - unauthorized_since)) -lt "$unauthorized_timeout" ] || password_rejected
        else
            unauthorized_since=
        fi
        case $code,$response in
            200,*'"status":"green"'* | 200,*'"status":"yellow"'*) return ;;
        esac
        [ "$(now)" -lt "$deadline" ] || fail "Elasticsearch at $url is not ready after $wait s: $(error_text)"
        if [ -z "$logged" ]; then
            log "waiting for Elasticsearch at $url: $(error_text)"
            logged=yes
        fi
        sleep 1
    done
}

# request_or_fail NAME METHOD PATH [FILE]: retry errors of a starting cluster, fail on others.
request_or_fail() {
    name=$1
    shift
    while :; do
        request "$@"
        case $code in
            200) return ;;
            000 | 408 | 429 | 5??) [ "$(now)" -lt "$deadline" ] || fail "$name: $(error_text), for $wait s" ;;
            *) fail "$name: $(error_text)" ;;
        esac
        sleep 1
    done
}

unexpected() {
    fail "$1: HTTP 200, but the response is not from Elasticsearch: $(printf '%.200s' "$response")"
}

check_login() {
    authenticate_as "$1" "$2"
    request_or_fail "$1 cannot log in" GET /_security/_authenticate
    case $response in
        *"\"username\":\"$1\""*) log "$1 can log in" ;;
        *) unexpected "$1" ;;
    esac
    authenticate_as elastic "$ELASTIC_PASSWORD"
}

set_kibana_password() {
    printf '{"password":"%s"}' "$(escape "$KIBANA_SYSTEM_PASSWORD")" >"$tmp/body"
    request_or_fail "the password of kibana_system" POST /_security/user/kibana_system/_password "$tmp/body"
    [ "$response" = '{}' ] || unexpected "the password of kibana_system"
    log "password of kibana_system set as in .env"
}

put_role() {
    request_or_fail "the role skeetslurper_writer" PUT /_security/role/skeetslurper_writer "$role_file"
    case $response in
        *'"created":true'*) log "role skeetslurper_writer created" ;;
        *'"created":false'*) log "role skeetslurper_writer is up to date" ;;
        *) unexpected "the role skeetslurper_writer" ;;
    esac
}

put_user() {
    roles='"skeetslurper_writer"'
    [ -z "${WRITER_KIBANA_ROLE:-}" ] || roles="$roles,\"$(escape "$WRITER_KIBANA_ROLE")\""
    printf '{"password":"%s","roles":[%s]}' "$(escape "$WRITER_PASSWORD")" "$roles" >"$tmp/body"
    request_or_fail "the user skeetslurper_writer" PUT /_security/user/skeetslurper_writer "$tmp/body"
    case $response in
        *'"created":true'*) log "user skeetslurper_writer created" ;;
        *'"created":false'*) log "user skeetslurper_writer is up to date" ;;
        *) unexpected "the user skeetslurper_writer" ;;
    esac
}

check_password ELASTIC_PASSWORD "${ELASTIC_PASSWORD:-}"
check_password KIBANA_SYSTEM_PASSWORD "${KIBANA_SYSTEM_PASSWORD:-}"
[ -z "${WRITER_PASSWORD:-}" ] || check_password WRITER_PASSWORD "$WRITER_PASSWORD"
[ -r "$role_file" ] || fail "cannot read $role_file"

umask 077
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM
deadline=$(($(now) + wait))

authenticate_as elastic "$ELASTIC_PASSWORD"
wait_until_ready
set_kibana_password
check_login kibana_system "$KIBANA_SYSTEM_PASSWORD"
put_role
if [ -n "${WRITER_PASSWORD:-}" ]; then
    put_user
    check_login skeetslurper_writer "$WRITER_PASSWORD"
else
    log "user skeetslurper_writer not created: no WRITER_PASSWORD in .env"
fi
log "done"
