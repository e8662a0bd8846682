# The web pages of `quern serve`: built from web/ with npm while the program is built, and embedded
# in it. Without npm or the network the program is built all the same, and says so at /.
set(QUERN_WEB AUTO CACHE STRING "Build the web pages: ON, OFF, or AUTO: where npm and its registry can be reached")
set_property(CACHE QUERN_WEB PROPERTY STRINGS ON OFF AUTO)
find_program(QUERN_NPM npm)
find_program(QUERN_NODE NAMES node nodejs)

set(QUERN_WEB_FOLDER ${CMAKE_BINARY_DIR}/web)
file(GLOB_RECURSE web_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/web/src/* ${CMAKE_SOURCE_DIR}/web/tests/*)
file(GLOB web_roots CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/web/*.*)
if(EXISTS ${QUERN_WEB_FOLDER}/not-built)  # configuring anew is another try
  file(REMOVE ${QUERN_WEB_FOLDER}/not-built ${QUERN_WEB_FOLDER}/embedded.inc)
endif()
add_custom_command(
  OUTPUT ${QUERN_WEB_FOLDER}/embedded.inc ${QUERN_WEB_FOLDER}/embedded.bin
  COMMAND ${CMAKE_COMMAND} -D WANTED=${QUERN_WEB} -D SOURCE=${CMAKE_SOURCE_DIR}/web
          -D FOLDER=${QUERN_WEB_FOLDER} -D NPM=${QUERN_NPM} -D NODE=${QUERN_NODE}
          -P ${CMAKE_SOURCE_DIR}/cmake/build_web.cmake
  DEPENDS ${web_sources} ${web_roots} ${CMAKE_SOURCE_DIR}/cmake/build_web.cmake
  COMMENT "Building the web pages" VERBATIM)
set_source_files_properties(${CMAKE_SOURCE_DIR}/src/serve/web_page.cpp PROPERTIES
  OBJECT_DEPENDS "${QUERN_WEB_FOLDER}/embedded.inc;${QUERN_WEB_FOLDER}/embedded.bin"
  COMPILE_DEFINITIONS "QUERN_WEB_TABLE=\"${QUERN_WEB_FOLDER}/embedded.inc\";QUERN_WEB_BLOB=\"${QUERN_WEB_FOLDER}/embedded.bin\"")
