# shellcheck shell=bash
# Sourced by tests/run.sh, examples/run.sh and others: installs by apt what is missing, and fetches nothing when all is there.
#
#   install_missing build mpi ...     the groups of the table below that the caller needs

# group    Debian package      what shows that it is there: a command, or a file below /usr or /usr/local
dpsgd_packages='
build      cmake               cmake
build      g++                 g++
build      ninja-build         ninja
tests      libeigen3-dev       include/eigen3/Eigen/Core
mpi        libopenmpi-dev      mpicxx
mpi        openmpi-bin         mpirun
tests      doctest-dev         include/doctest/doctest.h
examples   libcli11-dev        include/CLI/CLI.hpp
examples   nlohmann-json3-dev  include/nlohmann/json.hpp
compare    python3             python3
compare    python3-venv        share/doc/python3-venv
simulate   python3             python3
simulate   libsimgrid-dev      smpicxx
all        clang               clang++
all        clang-format        clang-format
all        clang-tidy          clang-tidy
all        libbenchmark-dev    include/benchmark/benchmark.h
'

# An error for people: one line, and out.
stop() {
  echo "$(basename "$0"): $*" >&2
  exit 1
}

is_there() {
  case $1 in
    */*) [ -e "/usr/$1" ] || [ -e "/usr/local/$1" ] ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

install_missing() {
  local group package sign missing=()
  while read -r group package sign; do
    case " $* " in
      *" $group "*) is_there "$sign" || missing+=("$package") ;;
    esac
  done < <(grep . <<<"$dpsgd_packages")
  [ ${#missing[@]} -eq 0 ] && return

  local as_root=() log
  command -v apt-get >/dev/null || stop "please install what Debian calls: ${missing[*]} (there is no apt here)"
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || stop "please have root run: apt install ${missing[*]} (there is no sudo here)"
    as_root=(sudo)
  fi
  echo "Installing by apt: ${missing[*]}"
  log=$(mktemp)
  if ! { "${as_root[@]}" apt-get update &&
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
  } >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    stop "apt could not install: ${missing[*]} (its whole output: $log)"
  fi
  rm -f "$log"
}
