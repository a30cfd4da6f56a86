# How our own tests, examples and benchmarks are compiled and run. Nothing here reaches a user of the library.

# For everything compiled here, the header checks (all_verify_interface_header_sets) too. What nvcc hands on to the host's
# compiler is not as it was written, so it is asked for less there.
if(PROJECT_IS_TOP_LEVEL)
  add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wpedantic;-Wshadow;-Wno-psabi>"
                      "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall>")
  if(DPSGD_WARNINGS_AS_ERRORS)
    add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:-Werror>" "$<$<COMPILE_LANGUAGE:CUDA>:--Werror=all-warnings>")
  endif()
endif()
if(DPSGD_SANITIZE)
  # A null pointer ends the program under ASan as well, and a vector that is not aligned faults by itself; checked by
  # UBSan at every access they double the time to compile.
  add_compile_options(-fsanitize=${DPSGD_SANITIZE} -fno-sanitize=null,alignment -fno-sanitize-recover=all
                      -fno-omit-frame-pointer)
  if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")  # the widest vectors of g++, which read and write most at a time
    add_compile_definitions(DPSGD_LANES=16)
  endif()
  add_link_options(-fsanitize=${DPSGD_SANITIZE})
  if(DPSGD_SANITIZE STREQUAL "thread" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    add_compile_options(-Wno-tsan)  # TSan does not know fences; ours order memory between processes, which it cannot see
  endif()
endif()

# dpsgd_executable(NAME sources...)
function(dpsgd_executable name)
  add_executable(${name} ${ARGN})
  target_link_libraries(${name} PRIVATE dpsgd::core)
  if(DPSGD_NATIVE)
    target_compile_options(${name} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-march=native>)
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_SYSTEM_PROCESSOR STREQUAL "x86_64")
      target_compile_options(${name} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-mprefer-vector-width=512>)  # where it has them: 1.07 times as fast a step
    endif()
  endif()
endfunction()

# What a test finds in its environment. Open MPI: run as root in a container, more ranks than cores. Sanitizers: see
# tests/sanitizers/lsan.supp for the leaks that Open MPI leaves behind; TSan takes its lock order for a deadlock.
set(dpsgd_test_environment
  OMPI_ALLOW_RUN_AS_ROOT=1
  OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  OMPI_MCA_rmaps_base_oversubscribe=1
  OMPI_MCA_hwloc_base_binding_policy=none
  OMP_NUM_THREADS=1
  TSAN_OPTIONS=detect_deadlocks=0
  "LSAN_OPTIONS=suppressions='${PROJECT_SOURCE_DIR}/tests/sanitizers/lsan.supp':print_suppressions=0")
# Leaks beside Open MPI's own are told apart only by the slow way to unwind (13 times as long a test): one test of the
# library under MPI does that, mpi_leaks, and programs without MPI look for leaks anyhow.
set(dpsgd_mpi_test_environment ${dpsgd_test_environment} ASAN_OPTIONS=detect_leaks=0)
set(dpsgd_mpi_leak_environment ${dpsgd_test_environment} ASAN_OPTIONS=fast_unwind_on_malloc=0)

# dpsgd_test(NAME sources...): the doctest program test_NAME and the test NAME.
function(dpsgd_test name)
  dpsgd_test_program(${name} ${ARGN})
  add_test(NAME ${name} COMMAND test_${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT 300 ENVIRONMENT "${dpsgd_test_environment}")
endfunction()

# dpsgd_mpi_test(NAME SOURCES sources... [RANKS 1 2 3 4 5 7]): the doctest program test_NAME, and one test NAME.P for
# each number of ranks P. The program calls MPI_Init itself if it brings its own main: then say OWN_MAIN.
function(dpsgd_mpi_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "OWN_MAIN" "" "SOURCES;RANKS")
  if(NOT arg_RANKS)
    set(arg_RANKS 1 2 3 4 5 7)
    if(DPSGD_SANITIZE)  # slow under mpirun; ranks as threads (tests/comm) have the other sizes
      set(arg_RANKS 1 2 3)
    endif()
  endif()
  if(arg_OWN_MAIN)
    dpsgd_test_program(${name} OWN_MAIN ${arg_SOURCES})
  else()
    dpsgd_test_program(${name} ${arg_SOURCES})
  endif()
  target_link_libraries(test_${name} PRIVATE dpsgd::mpi)
  foreach(ranks IN LISTS arg_RANKS)
    add_test(NAME ${name}.${ranks}
      COMMAND ${MPIEXEC_EXECUTABLE} ${MPIEXEC_NUMPROC_FLAG} ${ranks} $<TARGET_FILE:test_${name}>)
    set_tests_properties(${name}.${ranks} PROPERTIES
      TIMEOUT 120 PROCESSORS ${ranks} ENVIRONMENT "${dpsgd_mpi_test_environment}")
  endforeach()
endfunction()

# dpsgd_test_program(NAME [OWN_MAIN] sources...): the program alone. A test can name these macros: where the sources
# and the examples are, and how to start MPI programs (empty where MPI is not installed).
function(dpsgd_test_program name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "OWN_MAIN" "" "")
  dpsgd_executable(test_${name} ${arg_UNPARSED_ARGUMENTS})
  target_link_libraries(test_${name} PRIVATE doctest::doctest Eigen3::Eigen)
  if(NOT arg_OWN_MAIN)
    target_link_libraries(test_${name} PRIVATE test_main)
  endif()
  if(TARGET dpsgd::json)
    target_link_libraries(test_${name} PRIVATE dpsgd::json)
  endif()
  target_include_directories(test_${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  target_compile_definitions(test_${name} PRIVATE
    DPSGD_SOURCE_DIR="${PROJECT_SOURCE_DIR}"
    DPSGD_EXAMPLES_DIR="${PROJECT_BINARY_DIR}/examples"
    DPSGD_MPIEXEC="${MPIEXEC_EXECUTABLE}")
endfunction()
