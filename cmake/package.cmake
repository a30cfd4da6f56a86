# find_package(dpsgd [COMPONENTS core mpi json cuda]): from an installed tree, and from a build tree by -Ddpsgd_DIR=build/dev.
# Each component is a file of its own, so that asking for the core never looks for MPI.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(place ${CMAKE_INSTALL_DATADIR}/cmake/dpsgd)  # share/, not lib/: headers fit every architecture
foreach(component core mpi json cuda)
  install(TARGETS dpsgd_${component} EXPORT dpsgd-${component} FILE_SET HEADERS DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
  install(EXPORT dpsgd-${component} NAMESPACE dpsgd:: DESTINATION ${place})
  export(EXPORT dpsgd-${component} NAMESPACE dpsgd:: FILE ${PROJECT_BINARY_DIR}/dpsgd-${component}.cmake)
endforeach()

configure_file(cmake/dpsgdConfig.cmake ${PROJECT_BINARY_DIR}/dpsgdConfig.cmake COPYONLY)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/dpsgdConfigVersion.cmake
  COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES ${PROJECT_BINARY_DIR}/dpsgdConfig.cmake ${PROJECT_BINARY_DIR}/dpsgdConfigVersion.cmake DESTINATION ${place})
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
