#!/usr/bin/env bash
# Runs the commands of docs/RECIPES.md as they stand there, with the stock `nats` client, against servers of its own, and
# checks what comes of each.
#
# From the environment:
#   REJOIN        the program                    NATS_SERVER   nats-server
#   NATS_CLI      the `nats` client              DATABASE_URL  an empty database
#   PORTS         thirteen free ports of this machine, separated by spaces
#
# It ends everything that it started, also when a check fails.
set -euo pipefail
shopt -s lastpipe
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
read -ra ports <<<"$PORTS"
declare -A pids=()

finish() {
    local status=$?
    [ "$status" = 0 ] || for log in "$work"/*.log; do echo "--- $log"; tail -n 15 "$log"; done >&2
    for pid in "${pids[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$work"
    exit "$status"
}
trap finish EXIT

mkdir "$work/bin"
ln -s "$NATS_CLI" "$work/bin/nats"
export PATH=$work/bin:$PATH
# The client's own settings and contexts are somebody else's.
export XDG_CONFIG_HOME=$work/config HOME=$work
cd "$work"

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# The commands of the block that is marked with this name in the documentation.
recipe() {
    awk -v name="$1" '$0 == "```sh " name { on = 1; next } /^```/ { on = 0 } on' "$root/docs/RECIPES.md" >"$work/recipe"
    [ -s "$work/recipe" ] || fail "docs/RECIPES.md has no block $1"
    cat "$work/recipe"
}

run() {
    recipe "$1" >/dev/null
    bash -euo pipefail "$work/recipe" >"$work/$1.log" 2>&1 || fail "recipe $1 ended with an error"
}

# A value out of JSON, by a Python expression about `it`.
json() { python3 -c 'import json, sys; it = json.load(sys.stdin); print(eval(sys.argv[1]))' "$1"; }

# Waits until a command succeeds.
until_true() {
    local what=$1 end=$((SECONDS + 40))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || fail "not in time: $what"
        sleep 0.1
    done
}

start() {
    local name=$1
    shift
    "$@" >"$work/$name.log" 2>&1 &
    pids[$name]=$!
}

stop() {
    kill "${pids[$1]}"
    wait "${pids[$1]}" 2>/dev/null || true
    unset "pids[$1]"
}

KEY=rj_key_of_the_recipes
digest=$(printf %s "$KEY" | sha256sum | cut -d' ' -f1)
cat >rejoin.toml <<END
[[edge.auth.keys]]
alg = "HS256"
secret = "0123456789abcdef0123456789abcdef"
[[edge.auth.api_keys]]
name = "recipes"
sha256 = "$digest"
publish = ["*:*"]
read = ["*:*"]
admin = true
[edge.drain]
unready_ms = 100
spread_ms = 100
deadline_ms = 1000
[backplane]
stream_max_bytes = 67108864
[store.archive]
lease_ms = 1000
END
export KEY

# edge NAME PORT NATS_URL [DATABASE_URL]
edge() {
    start "$1" env REJOIN_EDGE__NAME="$1" REJOIN_EDGE__LISTEN__ADDRESS="127.0.0.1:$2" \
        REJOIN_BACKPLANE__URLS="[\"$3\"]" REJOIN_STORE__URL="${4:-}" "$REJOIN" serve --config rejoin.toml
    until_true "$1 is ready" curl -sf "http://127.0.0.1:$2/readyz"
}

api() { curl -sf -H "Authorization: Bearer $KEY" "$@"; }
publish() { api -X POST -d "$2" "$EDGE/v1/channels/$1/messages" | json 'it["cursor"]'; }
archived() { [ "$(nats consumer info REJOIN_0 archiver --json | json 'it["num_pending"] + it["num_ack_pending"]')" = 0 ]; }
has() { grep -qF -- "$2" "$1"; }

# The configuration that is shipped, on other ports and in another folder, which no flag of the server can change.
shipped() {
    mkdir "$work/$1-config"
    for file in nats.conf nats-cluster.conf; do
        sed "s|/var/lib/nats|$work/$1|" "$root/deploy/$file" >"$work/$1-config/$file"
    done
    echo "$work/$1-config/$2"
}
export NATS_URL=nats://127.0.0.1:${ports[0]} EDGE=http://127.0.0.1:${ports[2]}
start nats "$NATS_SERVER" --config "$(shipped nats nats.conf)" --addr 127.0.0.1 --port "${ports[0]}" \
    --http_port "${ports[1]}"
until_true "nats-server answers" nats account info
edge edge-1 "${ports[2]}" "$NATS_URL" "$DATABASE_URL"
edge edge-2 "${ports[3]}" "$NATS_URL" "$DATABASE_URL"
until_true "the schema is there" api "$EDGE/v1/users/nobody/rooms"

echo "watch one user's traffic, publish a notification"
recipe watch >/dev/null
start watching bash "$work/recipe"
until_true "it watches" has watching.log "Subscribing on"
run publish
until_true "the notification is seen" has watching.log 'Your invoice is ready'
has watching.log "Rejoin-Type: notification" || fail "its header is not seen"
stop watching
arrives() {
    [ "$(api "$EDGE/v1/channels/user:42/messages?from=last:1" |
        json 'it["messages"][0]["type"] + ": " + it["messages"][0]["data"]["text"]')" = "notification: Your invoice is ready" ]
}
until_true "clients get it" arrives

echo "see the archiver's lag"
until_true "everything is archived" archived
run lag
has lag.log "Unprocessed Messages: 0" || fail "$(cat lag.log)"

echo "find slow clients"
run slow
has slow.log "rejoin_slow_connections 0" || fail "$(cat slow.log)"
run slow-who
[ "$(json 'len(it["connections"]) + len(it["missing"])' <slow-who.log)" = 0 ] || fail "$(cat slow-who.log)"

echo "drain an edge"
token=$("$REJOIN" token --config rejoin.toml --user 42)
listen() { curl -s -N -o "$work/listen.log" -w '%{http_code}' -H "Authorization: Bearer $token" "$EDGE/v1/events?channels=user:42"; }
start listening listen
have() { run drained && [ "$(json 'sum(it["edges"][0]["connections"].values())' <drained.log)" = "$1" ]; }
until_true "somebody is there" have 1
run drain
[ "$(json 'it["edges"][0]["draining"]' <drain.log)" = True ] || fail "$(cat drain.log)"
until_true "it is not ready" eval '! curl -sf "$EDGE/readyz"'
until_true "everybody was sent away" have 0
wait "${pids[listening]}" && unset "pids[listening]"
[ "$(listen)" = 503 ] || fail "a draining edge takes connections: $(cat listen.log)"
run undrain
until_true "it is ready again" curl -sf "$EDGE/readyz"

echo "resize the retention"
run resize
limit() { nats stream info REJOIN_0 --json | json 'it["config"]["max_bytes"]'; }
[ "$(limit)" = $((512 << 20)) ] || fail "the limit is $(limit)"
stop edge-2
edge edge-2 "${ports[3]}" "$NATS_URL" "$DATABASE_URL"
[ "$(limit)" = $((512 << 20)) ] || fail "an edge has set it back to $(limit)"

# read_after CURSOR: the payloads of room:1 after it, page by page, since a page is of one epoch; with `reset` if there was
# one.
read_after() {
    python3 - "$1" <<'END'
import json, os, sys, urllib.request
cursor, seen, live = sys.argv[1], [], False
while not live:
    url = f"{os.environ['EDGE']}/v1/channels/room:1/messages?from={cursor}"
    request = urllib.request.Request(url, headers={"Authorization": "Bearer " + os.environ["KEY"]})
    page = json.load(urllib.request.urlopen(request))
    seen += ["reset"] * ("reset" in page) + [str(message["data"]) for message in page["messages"]]
    cursor, live = page["cursor"], page["live"]
print(" ".join(seen))
END
}
reads() { read_after "$1" >seen.log && [ "$(cat seen.log)" = "$2" ]; }

echo "recover from a deleted stream"
first=$(publish room:1 1)
publish room:1 2 >/dev/null
until_true "both are archived" archived
run deleted
publishes() { publish room:1 3 >second; }
until_true "publishing goes on" publishes
second=$(cat second)
[ "${first%-*}" != "${second%-*}" ] || fail "the epoch is the old one: $second"
until_true "the old epoch's rest, then the new one" reads "$first" "2 3"

echo "back up and restore"
until_true "everything is archived" archived
run backup
before=$(publish room:1 4)
publish room:1 5 >/dev/null
until_true "what the backup lacks is archived" archived
stop edge-1
stop edge-2
run restore
REJOIN_BACKPLANE__URLS="[\"$NATS_URL\"]" REJOIN_STORE__URL=$DATABASE_URL "$REJOIN" check --config rejoin.toml >check.log ||
    fail "rejoin check finds more than it should"
has check.log "weak  archive of REJOIN_0: it is in epoch ${before%-*}" || fail "rejoin check does not find another epoch"
recipe adopt >/dev/null
ln -s "$REJOIN" bin/rejoin
start archiver env REJOIN_CONFIG=rejoin.toml REJOIN_BACKPLANE__URLS="[\"$NATS_URL\"]" REJOIN_STORE__URL="$DATABASE_URL" \
    bash -c "exec $(cat recipe)"
until_true "a new epoch begins" has archiver.log "a new epoch begins"
stop archiver
edge edge-1 "${ports[2]}" "$NATS_URL" "$DATABASE_URL"
edge edge-2 "${ports[3]}" "$NATS_URL" "$DATABASE_URL"
restored=$(publish room:1 6)
[ "${restored%-*}" != "${before%-*}" ] || fail "the epoch is the old one: $restored"
until_true "old cursors are told" reads "$before" "reset"
publish room:1 7 >/dev/null
until_true "the new epoch goes on" reads "$restored" "7"
stop edge-1
stop edge-2
stop nats

echo "move to three replicas"
routes="[nats://127.0.0.1:${ports[4]}, nats://127.0.0.1:${ports[5]}, nats://127.0.0.1:${ports[6]}]"
for n in 0 1 2; do
    start "nats-$n" env NATS_NAME="nats-$n" NATS_ROUTES="$routes" "$NATS_SERVER" \
        --config "$(shipped "nats-$n" nats-cluster.conf)" --addr 127.0.0.1 --port "${ports[7 + n]}" \
        --cluster "nats://127.0.0.1:${ports[4 + n]}" --http_port "${ports[10 + n]}"
done
export NATS_URL=nats://127.0.0.1:${ports[7]}
until_true "the cluster has a leader" nats account info
edge edge-1 "${ports[2]}" "nats://127.0.0.1:${ports[7]}\",\"nats://127.0.0.1:${ports[8]}\",\"nats://127.0.0.1:${ports[9]}"
publish room:1 1 >/dev/null
run replicas
current() { [ "$(nats stream info REJOIN_0 --json | json 'sum(r["current"] for r in it["cluster"]["replicas"])')" = 2 ]; }
until_true "both copies are current" current
leader=$(nats stream info REJOIN_0 --json | json 'it["cluster"]["leader"]')
[ "$leader" = nats-0 ] && export NATS_URL=nats://127.0.0.1:${ports[8]}
kill -9 "${pids[$leader]}" # A server is lost, and the stream goes on.
until_true "publishing goes on without $leader" publish room:1 2
stop edge-1
echo "every recipe does what it says"
