#include <mpi.h>

#include <dpsgd/version.hpp>
#include <iostream>

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int size = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  std::cout << "dpsgd " << dpsgd::version << " on " << size << " ranks\n";
  MPI_Finalize();
}
