# Ranks of a training run over MPI: a plugin for each MPI that is there, loaded when a launcher has
# started several processes. The program itself links none.
target_include_directories(quern_train PRIVATE ${CMAKE_SOURCE_DIR}/plugins/mpi)

function(quern_mpi_plugin name package)
  pkg_check_modules(QUERN_${name} IMPORTED_TARGET ${package})
  if(NOT QUERN_${name}_FOUND)
    return()
  endif()
  add_library(quern_${name} MODULE plugins/mpi/mpi_plugin.cpp)
  target_include_directories(quern_${name} PRIVATE plugins/mpi)
  target_link_libraries(quern_${name} PRIVATE PkgConfig::QUERN_${name})
  # The C interface alone: the C++ one is a library of its own.
  target_compile_definitions(quern_${name} PRIVATE OMPI_SKIP_MPICXX MPICH_SKIP_MPICXX)
  set_target_properties(quern_${name} PROPERTIES CXX_VISIBILITY_PRESET default)
  install(TARGETS quern_${name} LIBRARY DESTINATION lib/quern)
endfunction()
quern_mpi_plugin(openmpi ompi-c)
quern_mpi_plugin(mpich mpich)
