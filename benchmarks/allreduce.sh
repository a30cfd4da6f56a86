#!/bin/sh
# Races dpsgd's allreduce against Open MPI's, MPICH's and Gloo's, two ranks in shared memory, 4 B to 64 MiB.
#
#   benchmarks/allreduce.sh [--gloo] [--seconds 10]      # of each library, twice; prints ratios, writes build/race/*.json
#
# Needs Debian's openmpi-bin libopenmpi-dev mpich libmpich-dev (side by side: mpicxx.openmpi, mpicxx.mpich); one that is
# missing is a row "not run". --gloo makes a Python environment in build/race/gloo and downloads PyTorch into it: from
# PyPI, which brings CUDA's libraries, some 2.5 GB. Without it, Gloo is run only where that environment already exists.
set -u
cd "$(dirname "$0")/.."
seconds=10 gloo=no
while [ $# -gt 0 ]; do
  case $1 in
    --gloo) gloo=yes ;;
    --seconds) shift; seconds=${1:?--seconds needs a number} ;;
    --help | -h) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "usage: benchmarks/allreduce.sh [--gloo] [--seconds S]; there is no $1" >&2; exit 2 ;;
  esac
  shift
done
case $seconds in '' | *[!0-9]* | 0) echo "--seconds must be a whole number of seconds; got $seconds" >&2; exit 2 ;; esac
out=build/race
mkdir -p $out
rm -f $out/*.json $out/*.why
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1

for mpi in openmpi mpich; do
  rm -f $out/$mpi
  if ! command -v mpicxx.$mpi >/dev/null; then echo "mpicxx.$mpi is not installed" >$out/$mpi.why
  elif ! mpicxx.$mpi -std=c++20 -O3 -march=native -DNDEBUG -Iinclude benchmarks/allreduce.cpp -o $out/$mpi; then
    echo "it did not compile" >$out/$mpi.why
  fi
done
python=$out/gloo/bin/python3
if [ $gloo = yes ] && [ ! -x $python ]; then
  echo "downloading PyTorch and NumPy into $out/gloo: some 2.5 GB" >&2
  python3 -m venv $out/gloo && $out/gloo/bin/pip install -q torch numpy ||
    { echo "PyTorch could not be installed" >$out/gloo.why; rm -rf $out/gloo; }
fi
[ -x $python ] || [ -e $out/gloo.why ] || echo "no PyTorch; --gloo downloads it" >$out/gloo.why

for turn in 1 2; do  # in alternation, so that a machine that is busy for a while is busy for all
  for mpi in openmpi mpich; do
    # Each rank keeps its core: on one core together they would wait for each other's time slices.
    [ -e $out/$mpi.why ] || mpirun.$mpi -bind-to core -n 2 $out/$mpi --json $out/$mpi.$turn.json --seconds "$seconds" >/dev/null 2>$out/$mpi.log ||
      { tail -n 1 $out/$mpi.log >$out/$mpi.why; }
  done
  # The same with Open MPI as it comes: mpi::world raises its limit for copied messages, which MPI_Allreduce feels, too.
  [ -e $out/openmpi.why ] || OMPI_MCA_btl_vader_eager_limit=4096 OMPI_MCA_btl_sm_eager_limit=4096 mpirun.openmpi -bind-to core -n 2 \
    $out/openmpi --json $out/openmpi_as_it_comes.$turn.json --seconds "$seconds" >/dev/null 2>$out/openmpi.log
  [ -e $out/gloo.why ] || $python benchmarks/allreduce_gloo.py --json $out/gloo.$turn.json --seconds "$((seconds / 5 + 1))" ||
    echo "its script failed" >$out/gloo.why
done
python3 benchmarks/allreduce_table.py $out
