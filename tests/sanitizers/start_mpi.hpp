/// MPI around a planted error, where MPI is installed: it is MPI that the suppressions are for.
#pragma once

#ifdef DPSGD_WITH_MPI
#include <mpi.h>
struct start_mpi {
  start_mpi() { MPI_Init(nullptr, nullptr); }
  ~start_mpi() { MPI_Finalize(); }
};
#else
struct start_mpi {
  start_mpi() {}
};
#endif
