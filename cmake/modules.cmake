# What most files read in the end and what takes longest to read: compiled once for the modules and
# once for the tests. Every file still includes what it uses (CMAKE_DISABLE_PRECOMPILE_HEADERS=ON
# builds without).
set(QUERN_COMMON_HEADERS
    <algorithm> <chrono> <condition_variable> <filesystem> <functional> <map> <memory> <mutex>
    <optional> <span> <string> <thread> <unordered_map> <variant> <vector> <fmt/format.h>
    <nlohmann/json.hpp>)

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
  # core's precompiled headers serve all modules; compute's kernels read next to nothing of them.
  if(name STREQUAL "core")
    target_precompile_headers(quern_core PRIVATE ${QUERN_COMMON_HEADERS})
  elseif(NOT name STREQUAL "compute")
    target_precompile_headers(quern_${name} REUSE_FROM quern_core)
  endif()
endfunction()
