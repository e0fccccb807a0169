#!/usr/bin/env bash
# tq at work on real input, in about ten seconds: what the README's first command runs.
#
# It starts a server and a worker in a scratch directory, on a free loopback port; compresses every module of Python's
# standard library; lets a task fail; kills the server under a running task. Then it ends what it started, by its pid,
# and removes the directory. Exit code 0 means that everything was as it says.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PWD/.venv/bin:$PATH

scratch=$(mktemp -d)
export HOME=$scratch
for name in $(compgen -e); do [[ $name != TQ_* && $name != XDG_* ]] || unset "$name"; done

up=
finish() {
    if [ -n "$up" ]; then kill -TERM "$up" 2>/dev/null; wait "$up" 2>/dev/null; fi
    rm -rf "$scratch"
}
trap finish EXIT

title() { printf '\n== %s\n' "$*"; }
show() { printf '\n$ %s\n' "$*"; "$@"; }
expect() { # WHAT WANTED GOT
    [ "$2" = "$3" ] && return
    printf 'first.sh: %s: expected %s, got %s\n' "$1" "$2" "$3" >&2
    exit 1
}

title "A server and a worker, in a directory of their own"
mkfifo "$scratch/log"
tq up --listen 127.0.0.1:0 --slots 2 >"$scratch/log" 2>&1 &
up=$!
exec {log}<"$scratch/log"
while read -t 60 -r line <&$log; do
    echo "$line"
    [[ $line != *worker_connected* ]] || break
done
[[ ${line-} == *worker_connected* ]] || { echo "first.sh: tq up did not start" >&2; exit 1; }
cat <&$log >"$scratch/up.log" &
show tq workers

title "One job, a task for every module of the standard library: compress it"
library=$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
ls "$library"/*.py >"$scratch/modules"
count=$(wc -l <"$scratch/modules")
mkdir "$scratch/compressed"
submit=(tq submit --name compress --array "1-$count" --cwd "$scratch" -- "$PWD/examples/compress.sh" modules)
printf '\n$ %s\n' "${submit[*]}"
job=$("${submit[@]}")
echo "$job"
show tq wait "$job"
show tq ls
show tq logs "$job.$((count / 2))"
gzip -t "$scratch"/compressed/*.gz
files=("$scratch"/compressed/*.gz)
expect "compressed modules" "$count" "${#files[@]}"
echo "$count modules, $(cat "${files[@]}" | wc -c) bytes compressed; gzip -t finds them whole"

title "A task that fails: its exit code is the exit code here"
status=0
show tq run -- sh -c 'echo "the disk is full" >&2; exit 7' || status=$?
echo "exit code $status"
expect "exit code of the failed task" 7 "$status"

title "The server is killed under a running task, which is followed meanwhile"
job=$(tq submit --name steps -- "$PWD/examples/steps.sh")
printf '\n$ tq logs -f %s\n' "$job"
exec {output}< <(tq logs -f "$job")
read -r line <&$output
echo "$line"
server=$(python -c 'import json, sys; print(json.load(open(sys.argv[1]))["pid"])' "$HOME/.local/state/tq/connection.json")
kill -9 "$server"
echo "                       (kill -9 $server, the server)"
cat <&$output
show tq wait "$job"
show tq show "$job"
attempts=$(tq -o json show "$job" | python -c 'import json, sys; print(json.load(sys.stdin)["attempt"])')
expect "attempts of the task" 1 "$attempts"

title "Done: the same process ran through it, in one attempt. Next: \`tq up\`, and \`tq --help\`"
