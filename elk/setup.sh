#!/bin/sh
# Gives Elasticsearch the users that the rest of the stack logs in with. Run it as often as you like.
set -eu

url=${ES_URL:-http://elasticsearch:9200}
wait=${SETUP_WAIT:-300}
# A cluster that is still starting refuses the right password as well.
believe_denied=${SETUP_BELIEVE_DENIED:-20}
role_file=$(dirname "$0")/skeetslurper_writer.json

say() {
    printf 'setup: %s\n' "$1"
}

fail() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

# For a string in JSON, and for one in a config file of curl: both want the same.
quoted() {
    printf '%s' "$1" | sed 's/[\\"]/\\&/g'
}

check_password() {
    case $2 in
        *[[:cntrl:]]*) fail "$1 in .env has a tab, a line end or another control character in it" ;;
    esac
    [ "${#2}" -ge 6 ] || fail "$1 in .env has fewer than the 6 characters that Elasticsearch asks for"
}

# Passwords go through files that only we can read: a command line is for everybody to see.
be() {
    {
        printf 'user = "%s:%s"\n' "$1" "$(quoted "$2")"
        printf 'header = "Content-Type: application/json"\n'
        # A proxy that Docker puts into the environment does not know our names.
        printf 'noproxy = "*"\nconnect-timeout = 5\nmax-time = 30\nsilent\nshow-error\n'
    } >"$tmp/curl"
}

# ask METHOD PATH [FILE]: sets code and answer. Code 000 is no answer at all.
ask() {
    : >"$tmp/answer"
    code=$(curl -q --config "$tmp/curl" --request "$1" ${3:+--data-binary "@$3"} \
        --output "$tmp/answer" --write-out '%{http_code}' "$url$2" 2>"$tmp/error") || code=000
    answer=$(cat "$tmp/answer")
}

why() {
    reason=$(printf '%s' "$answer" | sed -n 's/.*"reason":"\([^"]*\)".*/\1/p')
    if [ "$code" = 000 ]; then
        printf 'no answer (%s)' "$(head -n 1 "$tmp/error")"
    else
        printf 'HTTP %s, %s' "$code" "${reason:-$(printf '%.200s' "$answer")}"
    fi
}

now() {
    date +%s
}

refused() {
    fail "Elasticsearch at $url refuses the password that .env has for elastic." \
        "The data volume is older than this .env: it keeps the password that elastic was last given in Kibana or" \
        "over the API, and that one counts. Either" \
        " - put that password into .env, or" \
        " - give elastic the one in .env, then run setup again:" \
        "     docker compose exec elasticsearch bin/elasticsearch-reset-password -i -u elastic --url http://localhost:9200" \
        " - or throw all data away and begin anew: docker compose --profile '*' down --volumes"
}

wait_until_ready() {
    denied_since=
    said=
    while :; do
        ask GET '/_cluster/health?wait_for_status=yellow&timeout=5s'
        if [ "$code" = 401 ]; then
            denied_since=${denied_since:-$(now)}
            [ $(($(now) - denied_since)) -lt "$believe_denied" ] || refused
        else
            denied_since=
        fi
        case $code,$answer in
            200,*'"status":"green"'* | 200,*'"status":"yellow"'*) return ;;
        esac
        [ "$(now)" -lt "$deadline" ] || fail "Elasticsearch at $url is not ready after $wait s: $(why)"
        if [ -z "$said" ]; then
            say "waiting for Elasticsearch at $url: $(why)"
            said=yes
        fi
        sleep 1
    done
}

# insist WHAT METHOD PATH [FILE]: like ask; what a cluster says while it starts is no answer yet.
insist() {
    what=$1
    shift
    while :; do
        ask "$@"
        case $code in
            200) return ;;
            000 | 408 | 429 | 5??) [ "$(now)" -lt "$deadline" ] || fail "$what: $(why), for $wait s" ;;
            *) fail "$what: $(why)" ;;
        esac
        sleep 1
    done
}

unexpected() {
    fail "$1: HTTP 200, but this is no answer of Elasticsearch: $(printf '%.200s' "$answer")"
}

logs_in() {
    be "$1" "$2"
    insist "$1 can't log in" GET /_security/_authenticate
    case $answer in
        *"\"username\":\"$1\""*) say "$1 can log in" ;;
        *) unexpected "$1" ;;
    esac
    be elastic "$ELASTIC_PASSWORD"
}

set_kibana_password() {
    printf '{"password":"%s"}' "$(quoted "$KIBANA_SYSTEM_PASSWORD")" >"$tmp/body"
    insist "the password of kibana_system" POST /_security/user/kibana_system/_password "$tmp/body"
    [ "$answer" = '{}' ] || unexpected "the password of kibana_system"
    say "kibana_system has the password in .env"
}

put_role() {
    insist "the role skeetslurper_writer" PUT /_security/role/skeetslurper_writer "$role_file"
    case $answer in
        *'"created":true'*) say "role skeetslurper_writer created" ;;
        *'"created":false'*) say "role skeetslurper_writer is up to date" ;;
        *) unexpected "the role skeetslurper_writer" ;;
    esac
}

put_user() {
    roles='"skeetslurper_writer"'
    [ -z "${WRITER_KIBANA_ROLE:-}" ] || roles="$roles,\"$(quoted "$WRITER_KIBANA_ROLE")\""
    printf '{"password":"%s","roles":[%s]}' "$(quoted "$WRITER_PASSWORD")" "$roles" >"$tmp/body"
    insist "the user skeetslurper_writer" PUT /_security/user/skeetslurper_writer "$tmp/body"
    case $answer in
        *'"created":true'*) say "user skeetslurper_writer created" ;;
        *'"created":false'*) say "user skeetslurper_writer is up to date" ;;
        *) unexpected "the user skeetslurper_writer" ;;
    esac
}

check_password ELASTIC_PASSWORD "${ELASTIC_PASSWORD:-}"
check_password KIBANA_SYSTEM_PASSWORD "${KIBANA_SYSTEM_PASSWORD:-}"
[ -z "${WRITER_PASSWORD:-}" ] || check_password WRITER_PASSWORD "$WRITER_PASSWORD"
[ -r "$role_file" ] || fail "can't read $role_file"

umask 077
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM
deadline=$(($(now) + wait))

be elastic "$ELASTIC_PASSWORD"
wait_until_ready
set_kibana_password
logs_in kibana_system "$KIBANA_SYSTEM_PASSWORD"
put_role
if [ -n "${WRITER_PASSWORD:-}" ]; then
    put_user
    logs_in skeetslurper_writer "$WRITER_PASSWORD"
else
    say "no WRITER_PASSWORD in .env, so no user skeetslurper_writer"
fi
say "done"
