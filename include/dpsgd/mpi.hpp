/// Ranks over MPI: include this beside dpsgd/dpsgd.hpp and link dpsgd::mpi.
#pragma once

#include "dpsgd/mpi/world.hpp"
