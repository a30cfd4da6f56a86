#!/usr/bin/env bash
# Simulates every allreduce on clusters of up to 1,024 ranks, and prices them on 100,000; needs no cluster.
#
#   benchmarks/simulate/run.sh            some ten minutes on two cores
#   benchmarks/simulate/run.sh --quick    16 and 64 ranks, 1 KiB and 1 MiB: half a minute
#
# Installs SimGrid by apt where it is missing, builds, runs and checks itself. What a training run costs by cluster,
# network and algorithm stands below the tables; its assumptions (prices, networks) are clusters.json, to be edited.
# Writes build/simulate/: study.json, study.md, winners.svg, curves.svg.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source cmake/setup.sh

case ${1-} in
  --help | -h) sed -n '2,/^set/s/^# \{0,1\}//p' benchmarks/simulate/run.sh; exit 0 ;;
  --quick | '') ;;
  *) stop "there is no $1; see --help" ;;
esac
[ $# -le 1 ] || stop "$1 takes nothing after it"
install_missing build simulate
out=build/simulate
mkdir -p $out
g++ -std=c++20 -O2 -Iinclude benchmarks/simulate/priced.cpp -o $out/priced
# -Bsymbolic: our operator new, and not that of the program that smpirun loads it into
smpicxx -std=c++20 -O2 -Iinclude -Wl,-Bsymbolic benchmarks/simulate/simulated.cpp -o $out/simulated
exec python3 -B benchmarks/simulate/study.py --simulated $out/simulated --priced $out/priced --output $out "$@"
