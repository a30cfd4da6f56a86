#!/usr/bin/env bash
# Trains a private MLP on 1.2 million synthetic census records, on 2 MPI ranks; installs and builds what is missing.
#
#   examples/run.sh                        the defaults: epsilon 3
#   examples/run.sh --target-epsilon 1     arguments go to the trainer; see them all with --help
#
# Ctrl-C stops all ranks at one step. With --checkpoint DIR they leave a checkpoint there, which --resume takes up.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source cmake/setup.sh

install_missing build mpi examples
mkdir -p build
[ -x build/release/examples/train_mlp ] || echo "Building (some two minutes; see build/release.log)"
for step in "cmake --preset release" "cmake --build --preset release --target make_pums train_mlp"; do
  $step >build/release.log 2>&1 || { cat build/release.log >&2; stop "the build failed: $step"; }
done

records=build/pums-1200000.csv
if [ ! -e "$records" ]; then  # in two steps, so that an interrupted run leaves no half a file behind
  build/release/examples/make_pums --rows 1200000 --seed 1 --output "$records.part"
  mv "$records.part" "$records"
fi

# Open MPI: root in a container is fine, and so are more ranks than cores. When a rank dies or mpirun is told to stop, it
# waits this many seconds, sends SIGTERM, waits as many again, and kills: time for the others to say where they were.
# Quiet: the trainer says itself what happened. (Other MPIs ignore all these.)
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
export OMPI_MCA_odls_base_sigkill_timeout=2 OMPI_MCA_orte_execute_quiet=1

# Ctrl-C goes to the ranks themselves, which then stop at one step and leave a checkpoint at once; mpirun would first
# wait. Hence a process group of its own for mpirun (set -m), out of the terminal's reach.
set -m
mpirun -n 2 build/release/examples/train_mlp --csv "$records" --schema examples/pums.schema.json "$@" </dev/null &
mpirun=$!
stop_ranks() {
  local ranks
  ranks=$(cat /proc/$mpirun/task/*/children 2>/dev/null) || true
  # shellcheck disable=SC2086
  kill -TERM ${ranks:-$mpirun} 2>/dev/null || true
}
trap stop_ranks INT TERM
status=0
wait $mpirun || status=$?
while kill -0 $mpirun 2>/dev/null; do  # a signal had ended the wait
  status=0
  wait $mpirun || status=$?
done
exit $status
