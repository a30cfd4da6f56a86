/// The job that the test cases run in.
#pragma once

#include "dpsgd/mpi.hpp"

dpsgd::mpi::world& world();
