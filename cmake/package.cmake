# Install and export: find_package(dpsgd [COMPONENTS mpi]).
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
