#!/usr/bin/env bash
# tests/fuzz.sh [SECONDS]: each fuzz target for so many seconds (30), from its seeds on and from what earlier runs have found.
# Needs a nightly compiler and cargo-fuzz; where one is missing it says which, and how to get it. Ends with a line a target; a target
# that found something fails the run, and its input lies in the folder that is named: as a file of `seeds/` it is a test.
set -uo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-30}

missing=()
cargo +nightly --version >/dev/null 2>&1 || missing+=('a nightly compiler: rustup toolchain install nightly --profile minimal')
cargo fuzz --version >/dev/null 2>&1 || missing+=('cargo-fuzz: cargo install cargo-fuzz --locked')
command -v c++ >/dev/null 2>&1 || missing+=('a C++ compiler, for libFuzzer: apt-get install g++')
if [ ${#missing[@]} -gt 0 ]; then
  printf 'Missing for `make fuzz`: %s\n' "${missing[@]}" >&2
  echo 'The seeds run without it, as tests of `make check`: fuzz_seeds.' >&2
  exit 1
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed=0
table=()
for folder in edge/policy/fuzz edge/fuzz; do
  for program in "$folder"/fuzz_targets/*.rs; do
    target=$(basename "$program" .rs)
    mkdir -p "$folder/corpus/$target"
    echo "== $folder $target, $seconds s"
    verdict=held
    cargo +nightly fuzz run --fuzz-dir "$folder" "$target" "$folder/corpus/$target" "$folder/seeds/$target" -- \
      -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 >"$log" 2>&1 ||
      { verdict="FAILED: $folder/artifacts/$target"; failed=1; tail -n 40 "$log"; }
    inputs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -n 1)
    edges=$(grep -o 'cov: [0-9]*' "$log" | tail -n 1)
    table+=("$(printf '%-14s %12s inputs  %-10s %s' "$target" "${inputs:-none}" "${edges:-}" "$verdict")")
  done
done
printf '%s\n' "${table[@]}"
exit "$failed"
