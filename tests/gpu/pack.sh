#!/usr/bin/env bash
# Packs the program, its tests of a device, their kernels and the recipes, for a machine that has a GPU but no cargo. Run it in
# the project's root, where NVRTC is found (`gan doctor` says) in the version that the other machine has: kernels count for their
# compiler's version.
#
#     bash tests/gpu/pack.sh [ARCHITECTURE] [FILE]        sm_90a, target/gan-gpu.tar.xz
#
# There: tar xJf gan-gpu.tar.xz && bash gan-gpu/run.sh
set -euo pipefail
architecture=${1:-sm_90a}
[ -f tests/gpu/pack.sh ] || { echo "pack.sh: run this in the project's root" >&2; exit 1; }
target=${CARGO_TARGET_DIR:-target}
file=${2:-$target/gan-gpu.tar.xz}

cargo build --release --bin gan
tests=$(cargo test --release --no-run --test gpu 2>&1 | tee /dev/stderr | sed -n 's/.*Executable tests\/gpu\/main.rs (\(.*\))$/\1/p')
[ -x "$tests" ] || { echo "pack.sh: cargo does not say where it put the tests" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
folder=$work/gan-gpu
mkdir -p "$folder/bin"
cp "$target/release/gan" "$folder/bin/gan"
cp "$tests" "$folder/bin/gpu"
strip "$folder/bin/gan" "$folder/bin/gpu" 2>/dev/null || true # smaller, no more
cp -r recipes "$folder/recipes"
cp tests/gpu/run.sh "$folder/run.sh"
# Everything that the tests compile, in the cache that run.sh names.
GAN_BIN=$folder/bin/gan GAN_RECIPES=$folder/recipes GAN_CACHE_DIR=$folder/cache "$folder/bin/gpu" --compile "$architecture"
tar cJf "$file.part" -C "$work" gan-gpu
mv "$file.part" "$file"
echo "$file: $(du -h "$file" | cut -f1)"
