#!/usr/bin/env bash
# Uses dpsgd as a stranger would: by find_package from an installed tree and from a build tree, by add_subdirectory and
# by FetchContent, with and without MPI. Every path has a space in it. tests/run.sh --all runs this.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source_dir=$PWD
work="$source_dir/build/packaging/a path with spaces"
rm -rf "$work"
mkdir -p "$work"
cd "$work"

no_mpi=-DCMAKE_DISABLE_FIND_PACKAGE_MPI=ON
no_json=-DCMAKE_DISABLE_FIND_PACKAGE_nlohmann_json=ON
passed=0
failed=0
verdict() {  # verdict NAME STATUS LOG
  if [ "$2" -eq 0 ]; then
    passed=$((passed + 1))
    echo "passed  $1"
  else
    failed=$((failed + 1))
    echo "FAILED  $1"
    tail -n 30 "$3"
  fi
}

configure() { cmake -G Ninja -S "$source_dir/tests/packaging/consumer" "$@"; }

# works NAME COMPONENT CMAKE-ARGUMENTS...: the consumer of these components configures, builds, and its program runs.
works() {
  local name=$1 component=$2 status=0
  shift 2
  { configure -B "$name" "-DCOMPONENTS=$component" "$@" && cmake --build "$name" && "$name/use_$component" | grep dpsgd
  } >"$name.log" 2>&1 || status=1
  verdict "$name" $status "$name.log"
}

# refused NAME COMPONENT SAYING CMAKE-ARGUMENTS...: configuring stops, and cmake says SAYING (its line breaks aside).
refused() {
  local name=$1 component=$2 saying=$3 status=0
  shift 3
  if configure -B "$name" "-DCOMPONENTS=$component" "$@" >"$name.log" 2>&1; then
    status=1
  else
    tr -s ' \n' ' ' <"$name.log" | grep -qF "$saying" || status=1
  fi
  verdict "$name" $status "$name.log"
}

# holds NAME COMMAND...: the command succeeds.
holds() {
  local name=$1 status=0
  shift
  "$@" >"$name.log" 2>&1 || status=1
  verdict "$name" $status "$name.log"
}

# Installed on a machine without MPI and JSON: headers are headers, so whoever has them may still ask for them.
own_build() {
  cmake -G Ninja -S "$source_dir" -B "$1" -DDPSGD_TESTS=OFF -DDPSGD_EXAMPLES=OFF -DDPSGD_BENCHMARKS=OFF "${@:2}"
}
install_it() { own_build "$1" "${@:3}" && cmake --install "$1" --prefix "$2"; }
holds install_without_mpi_and_json install_it "own build" "prefix" $no_mpi $no_json
all_headers_installed() { diff -r "$source_dir/include/dpsgd" prefix/include/dpsgd; }
holds installed_headers all_headers_installed
prefix="-DCMAKE_PREFIX_PATH=$work/prefix"

works find_core core "$prefix"
works find_mpi mpi "$prefix"
works find_json json "$prefix"
works find_core_without_mpi core "$prefix" $no_mpi $no_json
works find_core_mpi_welcome core "$prefix" $no_mpi -DWISHES=mpi
works find_in_build_tree core "-Ddpsgd_DIR=$work/own build"
refused find_mpi_without_mpi mpi "dpsgd::mpi needs MPI" "$prefix" $no_mpi
refused find_json_without_json json "dpsgd::json needs nlohmann_json" "$prefix" $no_json
refused find_cuda_without_language cuda "dpsgd::cuda needs the" "$prefix"
if command -v nvcc >/dev/null; then works find_cuda cuda "$prefix" -DLANGUAGE=CUDA -DCMAKE_CUDA_ARCHITECTURES=90; fi
refused find_unknown juice "dpsgd has no component juice; there are core, mpi, json and cuda" "$prefix"
version=$(sed -n 's/.*version = "\(.*\)".*/\1/p' "$source_dir/include/dpsgd/version.hpp")
works find_this_version core "$prefix" "-DWANTED_VERSION=$version"
refused find_other_version core 'compatible with requested version "99.0"' "$prefix" -DWANTED_VERSION=99.0

tar -C "$source_dir" -czf dpsgd.tar.gz CMakeLists.txt LICENSE cmake include
for how in add_subdirectory FetchContent; do
  from=$source_dir
  [ $how = FetchContent ] && from=$work/dpsgd.tar.gz
  works ${how}_core core -DHOW=$how "-DDPSGD_SOURCE=$from" -DCMAKE_EXPORT_COMPILE_COMMANDS=ON
  works ${how}_mpi mpi -DHOW=$how "-DDPSGD_SOURCE=$from"
  works ${how}_core_without_mpi core -DHOW=$how "-DDPSGD_SOURCE=$from" $no_mpi $no_json
  refused ${how}_mpi_without_mpi mpi "dpsgd::mpi" -DHOW=$how "-DDPSGD_SOURCE=$from" $no_mpi
  # Nothing of ours reaches a user's compiler, and only the user's own program is built.
  clean_commands() {
    local commands="${how}_core/compile_commands.json"
    ! grep -E 'march=|-Wall|-Werror' "$commands" && [ "$(grep -c '"file":' "$commands")" -eq 1 ]
  }
  holds ${how}_is_clean clean_commands
done

# How long a user's program takes to compile at -O2 (the goal: under 6 s). A figure, not a test.
if [ -f "$source_dir/include/dpsgd/dpsgd.hpp" ]; then
  sed -n '/^```cpp/,/^```$/p' "$source_dir/README.md" | sed '1d;/^```$/,$d' >readme.cpp
  mpi_flags=$(mpicxx --showme:compile 2>/dev/null || true)
  for compiler in c++ clang++; do
    command -v $compiler >/dev/null || continue
    started=$(date +%s%N)
    # shellcheck disable=SC2086
    $compiler -std=c++20 -O2 -I "$source_dir/include" $mpi_flags -c readme.cpp -o readme.o &&
      echo "figure  the README's program compiles in $((($(date +%s%N) - started) / 1000000)) ms with $compiler -O2"
  done
fi

echo "packaging: $passed passed, $failed failed"
[ $failed -eq 0 ]
