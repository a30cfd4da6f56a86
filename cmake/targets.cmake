# The library: interface targets only. The headers are found by folder, so a new header needs no line here.
find_package(Threads REQUIRED)
find_package(nlohmann_json 3.11 QUIET)
if(DPSGD_MPI)
  set(MPI_CXX_SKIP_MPICXX ON)  # the C interface alone
  find_package(MPI COMPONENTS CXX)
endif()

# dpsgd_library(NAME AVAILABLE headers...): the target dpsgd_NAME, which is always there to be installed (the library
# is headers alone, so what this machine lacks does not matter to the next), and its alias dpsgd::NAME, which is there
# only where what it needs is: write if(TARGET dpsgd::mpi).
function(dpsgd_library name available)
  add_library(dpsgd_${name} INTERFACE)
  set_target_properties(dpsgd_${name} PROPERTIES EXPORT_NAME ${name})
  target_compile_features(dpsgd_${name} INTERFACE cxx_std_20)
  target_sources(dpsgd_${name} INTERFACE FILE_SET HEADERS BASE_DIRS ${PROJECT_SOURCE_DIR}/include FILES ${ARGN})
  if(available)
    add_library(dpsgd::${name} ALIAS dpsgd_${name})
    # Target all_verify_interface_header_sets: every header compiles alone.
    set_target_properties(dpsgd_${name} PROPERTIES VERIFY_INTERFACE_HEADER_SETS ${PROJECT_IS_TOP_LEVEL})
  endif()
endfunction()

# Which header belongs to which target, by its place under include/dpsgd/. What no line names is the core's.
set(mpi_place "/include/dpsgd/mpi(/|\\.hpp$)")
set(cuda_place "/include/dpsgd/cuda(/gpu)?\\.hpp$")  # what nvcc alone compiles; the core has the rest of cuda/
set(json_place "/include/dpsgd/(json|.*/.*_json)\\.hpp$")

file(GLOB_RECURSE headers CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/include/dpsgd/*.hpp)
foreach(component mpi cuda json)
  set(${component}_headers ${headers})
  list(FILTER ${component}_headers INCLUDE REGEX ${${component}_place})
  list(FILTER headers EXCLUDE REGEX ${${component}_place})
endforeach()

dpsgd_library(core ON ${headers})
target_link_libraries(dpsgd_core INTERFACE Threads::Threads)

dpsgd_library(mpi "${MPI_CXX_FOUND}" ${mpi_headers})
target_link_libraries(dpsgd_mpi INTERFACE dpsgd_core MPI::MPI_CXX)

dpsgd_library(json "${nlohmann_json_FOUND}" ${json_headers})
target_link_libraries(dpsgd_json INTERFACE dpsgd_core nlohmann_json::nlohmann_json)

# No CUDA::cudart: linking a program of the language CUDA brings the runtime already (CUDA_RUNTIME_LIBRARY says which).
dpsgd_library(cuda "${DPSGD_CUDA}" ${cuda_headers})
target_link_libraries(dpsgd_cuda INTERFACE dpsgd_core CUDA::cublas)
target_compile_options(dpsgd_cuda INTERFACE "$<$<COMPILE_LANGUAGE:CUDA>:-std=c++20;--expt-relaxed-constexpr>")
# Checked by the tests of the preset cuda instead: CMake would have each header compiled as C++.
set_target_properties(dpsgd_cuda PROPERTIES VERIFY_INTERFACE_HEADER_SETS OFF)
