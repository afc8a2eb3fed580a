#!/usr/bin/env bash
# Shows the main job: an agent with its embedded containerd pulls a real image from
# a real registry, runs it as a step, and returns output, exit code and result. All
# of it lives in a temporary directory and on loopback, and is gone afterwards.
set -euo pipefail
cd "$(dirname "$0")/.."

[ "$(id -u)" -eq 0 ] || { echo "the demo needs root: containers need mounts and cgroups" >&2; exit 1; }
careen=$PWD/bin/careen
dir=$(mktemp -d /tmp/careen-demo.XXXXXX)
agent='' server=''
cleanup() {
	if [ -n "$agent" ]; then
		kill "$agent" 2>/dev/null || true
		wait "$agent" 2>/dev/null || true
	fi
	if [ -n "$server" ]; then
		exec 3>&- # the end of its input ends it, and it tidies up
		wait "$server" 2>/dev/null || true
	fi
	rm -rf "$dir"
}
trap cleanup EXIT

say() { printf '\n\033[1m$ %s\033[0m\n' "$*"; }
# waits for a condition, at most half a minute
await() {
	for _ in $(seq 300); do
		if "$@" >/dev/null 2>&1; then return 0; fi
		sleep 0.1
	done
	echo "gave up waiting for: $*" >&2
	return 1
}

go build -o "$dir/registry" ./integration/demo
mkfifo "$dir/stop"
"$dir/registry" <"$dir/stop" >"$dir/address" &
server=$!
exec 3>"$dir/stop"
await test -s "$dir/address"
registry=$(cat "$dir/address")

cat >"$dir/steps.yaml" <<YAML
steps:
  - name: check_disk
    image: docker://$registry/demo/disk-check:1.0
    priority: 10
    interface: deploy
    reboot_requested: false
    abortable: true
    pull_options: [--tls-verify=false]
    run_options: [--rm, --network=host, --read-only, --memory=256m]
YAML
cat >"$dir/ipa.conf" <<CONF
[container]
container_steps_file = $dir/steps.yaml
CONF
echo "ipa_config = [\"$dir/ipa.conf\"]" >"$dir/careen.toml"

export CAREEN_SOCKET=$dir/careen.sock
say careen agent
"$careen" agent --root "$dir/store" --run-dir "$dir/run" --socket "$CAREEN_SOCKET" --config "$dir/careen.toml" \
	--log-level error 3>&- &
agent=$!
await "$careen" ps
"$careen" version | sed -n 1,5p

say careen step list --phase clean
"$careen" step list --phase clean
say careen step run check_disk
"$careen" step run check_disk --id demo
say careen inspect demo
"$careen" inspect demo
say careen images
"$careen" images
say careen run --rm --read-only --tls-verify=false "$registry/demo/disk-check:1.0" sh -c "'exit 3'"
code=0
"$careen" run --rm --read-only --tls-verify=false "$registry/demo/disk-check:1.0" sh -c 'exit 3' || code=$?
echo "exit code $code"
[ "$code" -eq 3 ]
