# Run while building: cmake -D WANTED= -D SOURCE= -D FOLDER= -D NPM= -D NODE= -P build_web.cmake
# leaves FOLDER/embedded.inc and embedded.bin, empty where the pages cannot be built.
set(table ${FOLDER}/embedded.inc)
set(blob ${FOLDER}/embedded.bin)

function(do_without why)
  if(WANTED STREQUAL "ON")
    message(FATAL_ERROR "The web pages cannot be built: ${why}")
  endif()
  if(NOT WANTED STREQUAL "OFF")
    message("quern: the program is built without its web pages: ${why}\n"
            "  hint: scripts/install-deps installs npm; configure again for another try, or say -D QUERN_WEB=OFF")
  endif()
  file(WRITE ${table} "")
  file(WRITE ${blob} "")
  file(WRITE ${FOLDER}/not-built "${why}\n")
endfunction()

if(WANTED STREQUAL "OFF")
  do_without("QUERN_WEB is OFF")
  return()
elseif(NOT NPM OR NOT NODE)
  do_without("npm is not installed")
  return()
endif()
execute_process(COMMAND ${NODE} --version OUTPUT_VARIABLE version OUTPUT_STRIP_TRAILING_WHITESPACE)
string(REGEX REPLACE "^v" "" version "${version}")
if(version VERSION_LESS 18)
  do_without("Node.js is ${version}, at least 18 is needed")
  return()
endif()

# Everything happens in the build folder, so that the sources stay as they are.
file(REMOVE_RECURSE ${FOLDER}/src ${FOLDER}/tests ${FOLDER}/dist)
file(GLOB roots ${SOURCE}/*.*)
list(FILTER roots EXCLUDE REGEX "/node_modules$")
file(COPY ${roots} ${SOURCE}/src ${SOURCE}/tests DESTINATION ${FOLDER})

# The lock names each package's hash; nothing that a package brings along is run.
file(SHA256 ${SOURCE}/package-lock.json lock)
set(installed "")
if(EXISTS ${FOLDER}/node_modules/.quern-lock)
  file(READ ${FOLDER}/node_modules/.quern-lock installed)
endif()
if(NOT installed STREQUAL lock)
  execute_process(
    COMMAND ${NPM} ci --ignore-scripts --no-audit --no-fund --loglevel=error --fetch-retries=1
    WORKING_DIRECTORY ${FOLDER} RESULT_VARIABLE failed OUTPUT_QUIET ERROR_VARIABLE says)
  if(failed)
    string(REGEX MATCH "^[^\n]*" says "${says}")
    do_without("its packages cannot be had (${says})")
    return()
  endif()
  file(WRITE ${FOLDER}/node_modules/.quern-lock ${lock})
endif()

function(must)
  execute_process(COMMAND ${ARGV} WORKING_DIRECTORY ${FOLDER} RESULT_VARIABLE failed
                  OUTPUT_VARIABLE says ERROR_VARIABLE says)
  if(failed)
    message(FATAL_ERROR "${says}")
  endif()
endfunction()
must(${NPM} run --silent build)
must(${NODE} pack.mjs dist ${table} ${blob})
file(REMOVE ${FOLDER}/not-built)
