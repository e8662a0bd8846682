# cmake --install: the program, the model that ships, manual pages, completions, documentation.
include(GNUInstallDirs)
install(TARGETS quern RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY models/quern-mini DESTINATION ${CMAKE_INSTALL_DATADIR}/quern/models)
install(FILES README.md LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs/ DESTINATION ${CMAKE_INSTALL_DOCDIR}/docs)
# The installed program makes what describes it.
install(CODE [[
  set(root "$ENV{DESTDIR}${CMAKE_INSTALL_PREFIX}")
  function(made file)
    execute_process(COMMAND "${root}/bin/quern" ${ARGN} OUTPUT_VARIABLE text COMMAND_ERROR_IS_FATAL ANY)
    file(WRITE "${root}/share/${file}" "${text}")
    message(STATUS "Installing: ${root}/share/${file}")
  endfunction()
  made(bash-completion/completions/quern completion bash)
  made(zsh/site-functions/_quern completion zsh)
  made(fish/vendor_completions.d/quern.fish completion fish)
  file(MAKE_DIRECTORY "${root}/share/man/man1")
  execute_process(COMMAND "${root}/bin/quern" man --out "${root}/share/man/man1" --quiet
                  COMMAND_ERROR_IS_FATAL ANY)
]])
