# The library: interface targets only. Each lists its headers by folder, so a new header needs no line here.
find_package(Eigen3 3.4 REQUIRED NO_MODULE)
find_package(Threads REQUIRED)

function(dpsgd_library name)
  add_library(dpsgd_${name} INTERFACE)
  add_library(dpsgd::${name} ALIAS dpsgd_${name})
  set_target_properties(dpsgd_${name} PROPERTIES EXPORT_NAME ${name} VERIFY_INTERFACE_HEADER_SETS ${PROJECT_IS_TOP_LEVEL})
  target_compile_features(dpsgd_${name} INTERFACE cxx_std_20)
  target_sources(dpsgd_${name} INTERFACE FILE_SET HEADERS BASE_DIRS ${PROJECT_SOURCE_DIR}/include FILES ${ARGN})
endfunction()

file(GLOB_RECURSE headers CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/include/dpsgd/*.hpp)
set(mpi_headers ${headers})
list(FILTER mpi_headers INCLUDE REGEX "/dpsgd/mpi(/|\\.hpp)")
set(core_headers ${headers})
list(FILTER core_headers EXCLUDE REGEX "/dpsgd/(mpi|cuda)(/|\\.hpp)")
# Opt-in headers that need more than Eigen: checked where what they need is at hand, installed always.
find_package(nlohmann_json 3.11 QUIET)

dpsgd_library(core ${core_headers})
target_link_libraries(dpsgd_core INTERFACE Eigen3::Eigen Threads::Threads)

if(DPSGD_MPI)
  set(MPI_CXX_SKIP_MPICXX ON)  # the C interface alone
  find_package(MPI COMPONENTS CXX)
endif()
if(MPI_CXX_FOUND)
  dpsgd_library(mpi ${mpi_headers})
  target_link_libraries(dpsgd_mpi INTERFACE dpsgd_core MPI::MPI_CXX)
endif()
