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
for step in "cmake --preset release" "cmake --build --preset release --target make_pums train_mlp"; do
  $step >build/release.log 2>&1 || { cat build/release.log >&2; stop "the build failed: $step"; }
done

records=build/pums-1200000.csv
if [ ! -e "$records" ]; then  # in two steps, so that an interrupted run leaves no half a file behind
  build/release/examples/make_pums --rows 1200000 --seed 1 --output "$records.part"
  mv "$records.part" "$records"
fi

# Open MPI: root in a container is fine, and so are more ranks than cores. It kills a job one second after telling it to
# stop; a checkpoint may take longer. (Other MPIs ignore these.)
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
export OMPI_MCA_odls_base_sigkill_timeout=30
exec mpirun -n 2 build/release/examples/train_mlp --csv "$records" --schema examples/pums.schema.json "$@"
