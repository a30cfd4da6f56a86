#!/usr/bin/env bash
# Runs the tests; installs what they need when it is missing.
#
#   tests/run.sh              builds the preset dev and runs every test (about a minute)
#   tests/run.sh ARGS...      the same, with ARGS for ctest: tests/run.sh -R privacy
#   tests/run.sh --all        what CI runs: that, and the parts listed at the end of this file (minutes)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source cmake/setup.sh

cores=$(nproc)

# test_preset NAME [cmake's arguments]: configures, builds and tests it. What does not build does not stop the rest.
test_preset() {
  local preset=$1 status=0
  shift
  cmake --preset "$preset" "$@" >build/configure.log 2>&1 || { cat build/configure.log; return 1; }
  cmake --build --preset "$preset" --parallel "$cores" -- -k 0 || status=1
  ctest --preset "$preset" --parallel "$cores" "${ctest_arguments[@]}" || status=1
  return $status
}

mkdir -p build
ctest_arguments=()
if [ "${1-}" = --help ] || [ "${1-}" = -h ]; then
  sed -n '2,/^set/s/^# \{0,1\}//p' tests/run.sh
  exit 0
fi
if [ "${1-}" != --all ]; then
  install_missing build mpi tests examples
  ctest_arguments=("$@")
  test_preset dev
  exit 0
fi

[ $# -eq 1 ] || stop "--all takes nothing after it"
install_missing build mpi tests examples all
strict=-DDPSGD_WARNINGS_AS_ERRORS=ON

check_format() {
  find include tests examples benchmarks -name '*.[ch]pp' -print0 | xargs -0 clang-format --dry-run -Werror
}
check_headers() {  # each compiles alone; with clang all together (tests/CMakeLists.txt)
  cmake --build --preset dev --parallel "$cores" --target all_verify_interface_header_sets
}
check_clang() {  # asan builds with clang++ too; here is what it leaves out, and the bits, which must not differ
  cmake --preset clang "$strict" >build/configure.log 2>&1 || { cat build/configure.log; return 1; }
  cmake --build --preset clang --parallel "$cores" -- -k 0 \
    attack audit explain_step test_audit benchmarks/all all_headers readme tests/bits/all
  ctest --preset clang --parallel "$cores" -R '^bits'
}
check_cuda() {  # nothing runs without a device: CTest then says "Skipped". tests/cuda/ runs the kernels on the host
  command -v nvcc >/dev/null || { echo "no nvcc here: the CUDA backend was not compiled for devices"; return 0; }
  cmake --preset cuda >build/configure.log 2>&1 || { cat build/configure.log; return 1; }
  cmake --build --preset cuda --parallel "$cores" && ctest --preset cuda
}
check_top_level() {  # nothing lies about that has no place there; the tests before must not have left anything either
  local stray
  stray=$({ git ls-files; git ls-files --others --exclude-standard; } | cut -d/ -f1 | sort -u |
    grep -vxE 'CMakeLists.txt|CMakePresets.json|README.md|LICENSE|include|examples|tests|benchmarks|docs|cmake|\.(ci|clang-format|clang-tidy|gitignore)') || return 0
  echo "at the top level, where only the files and folders named in tests/run.sh belong:"
  echo "$stray"
  return 1
}
check_tidy() {
  clang-tidy --quiet -p build/clang build/clang/tests/all_headers.cpp
}

summary=()
failed=0
# part NAME COMMAND...: runs it, and goes on whatever comes of it.
part() {
  local name=$1 result=passed started=$SECONDS
  shift
  printf '\n===== %s\n' "$name"
  "$@" || { result=FAILED; failed=$((failed + 1)); }
  summary+=("$(printf '%-12s %s  %4d s' "$name" "$result" $((SECONDS - started)))")
}

part dev test_preset dev "$strict"
part clang check_clang
part headers check_headers
part format check_format
part tidy check_tidy
part asan test_preset asan "$strict"
part tsan test_preset tsan "$strict"
part cuda check_cuda
part packaging tests/packaging/run.sh
if [ -e .git ] && command -v git >/dev/null; then part top-level check_top_level; fi

printf '\n===== summary after %d s\n' "$SECONDS"
printf '%s\n' "${summary[@]}"
printf '%d passed, %d failed\n' $((${#summary[@]} - failed)) "$failed"
[ "$failed" -eq 0 ]
