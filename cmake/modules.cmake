# quern_module(<name> <libraries>...): the static library quern_<name> from src/<name>/**.cpp.
# The libraries named are public: what a module uses, its users may use.
function(quern_module name)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/${name}/*.cpp)
  list(FILTER sources EXCLUDE REGEX "/main\\.cpp$")
  if(NOT sources)
    return()
  endif()
  add_library(quern_${name} STATIC ${sources})
  target_include_directories(quern_${name} PUBLIC ${CMAKE_SOURCE_DIR}/src)
  target_link_libraries(quern_${name} PUBLIC ${ARGN} PRIVATE quern_warnings)
  target_compile_definitions(quern_${name} PUBLIC QUERN_VERSION="${PROJECT_VERSION}")
endfunction()
