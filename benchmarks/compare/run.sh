#!/usr/bin/env bash
# Runs dpsgd and what a user would pick instead on the same work, proves that it is the same, and times them in turn.
#
#   benchmarks/compare/run.sh                       all parts: training, reading, accounting, whole, accuracy (hours)
#   benchmarks/compare/run.sh accounting reading    two of them
#   benchmarks/compare/run.sh --quick               few points, short times: to see that it works
#
# See them all with --help. What peers need comes from PyPI into build/compare/, once; it is said first what and how much.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source cmake/setup.sh

for word in "$@"; do
  case $word in -h | --help) exec python3 -B benchmarks/compare/compare.py --help ;; esac
done
install_missing build mpi examples compare
mkdir -p build/compare
[ -x build/release/benchmarks/compare/ours ] || echo "Building our side (some minutes; see build/compare/build.log)"
for step in "cmake --preset release" "cmake --build --preset release --target compare_ours make_pums train_mlp account predict"; do
  $step >build/compare/build.log 2>&1 || { cat build/compare/build.log >&2; stop "the build failed: $step"; }
done
exec python3 -B benchmarks/compare/compare.py "$@"
