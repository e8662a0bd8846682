# The sandbox and its first process: a small static program that is embedded, so that it runs where
# none of quern's libraries are. It has none of the options of the rest: no sanitizer can be static.
set(QUERN_SANDBOX_INIT ${CMAKE_BINARY_DIR}/sandbox/init)
add_executable(quern_sandbox_init src/sandbox/init/main.cpp)
set_target_properties(quern_sandbox_init PROPERTIES
  RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/sandbox OUTPUT_NAME init
  COMPILE_OPTIONS "-Os;-fno-exceptions;-fno-rtti" COMPILE_DEFINITIONS "" LINK_OPTIONS "-static;-s")
target_include_directories(quern_sandbox_init PRIVATE ${CMAKE_SOURCE_DIR}/src)

quern_module(sandbox  quern_core PkgConfig::SECCOMP OpenSSL::Crypto)
add_dependencies(quern_sandbox quern_sandbox_init)
set_source_files_properties(src/sandbox/sandbox.cpp PROPERTIES
  OBJECT_DEPENDS ${QUERN_SANDBOX_INIT}
  COMPILE_DEFINITIONS "QUERN_SANDBOX_INIT=\"${QUERN_SANDBOX_INIT}\"")
