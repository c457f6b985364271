#!/usr/bin/env bash
# Tests a GPU with what pack.sh packed; needs the driver, NVRTC (the version that packed) and nothing else.
#
#     bash gan-gpu/run.sh                  `gan doctor`, then whether everything is computed rightly, in as many processes as
#                                          there are cores
#     bash gan-gpu/run.sh parity bench     these stages of the tests, in one process
#
# Variables: those that tests/gpu/main.rs lists; SHARDS, the number of processes. The record of each process goes to
# gan-gpu/record, or where GAN_GPU_RECORD says. Exit code 0 if all is well.
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export GAN_BIN=$here/bin/gan GAN_RECIPES=$here/recipes GAN_REQUIRE_GPU=1
export GAN_CACHE_DIR=${GAN_CACHE_DIR:-$here/cache}
record=${GAN_GPU_RECORD:-$here/record}
mkdir -p "$record" || exit 1

if [ $# -gt 0 ]; then
    GAN_GPU_RECORD=$record exec "$here/bin/gpu" "$@"
fi

"$GAN_BIN" doctor
shards=${SHARDS:-$(nproc)}
began=$SECONDS
pids=()
for ((i = 0; i < shards; i++)); do
    # Each has a core of its own.
    GAN_SHARD=$i/$shards GAN_GPU_RECORD=$record/$i RAYON_NUM_THREADS=1 "$here/bin/gpu" primitives convolutions operations products \
        >"$record/$i.log" 2>&1 &
    pids+=($!)
done
failed=0
for ((i = 0; i < shards; i++)); do
    wait "${pids[$i]}" || { failed=$((failed + 1)); echo "process $i of $shards failed:"; grep -v ' \.\.\.$' "$record/$i.log" | head -n 20; }
done
echo "$((shards - failed)) of $shards processes passed in $((SECONDS - began)) s; logs and records in $record"
[ "$failed" = 0 ]
