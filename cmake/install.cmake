# What `make install` puts where: program, libraries, the one public header, a
# pkg-config file, and man page and completions, which the program itself prints
# from its option table.
include(GNUInstallDirs)
install(TARGETS novaq novaq_static novaq_shared)
install(FILES ${CMAKE_SOURCE_DIR}/include/novaq.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

configure_file(${CMAKE_SOURCE_DIR}/cmake/novaq.pc.in ${CMAKE_BINARY_DIR}/novaq.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/novaq.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

set(NOVAQ_GENERATED ${CMAKE_BINARY_DIR}/generated)
install(CODE "
  function(generate file)
    execute_process(COMMAND \"$<TARGET_FILE:novaq>\" \${ARGN}
      OUTPUT_FILE \"${NOVAQ_GENERATED}/\${file}\" COMMAND_ERROR_IS_FATAL ANY)
  endfunction()
  file(MAKE_DIRECTORY \"${NOVAQ_GENERATED}\")
  generate(novaq.1 --man)
  generate(novaq.bash completion bash)
  generate(_novaq completion zsh)
  generate(novaq.fish completion fish)
")
install(FILES ${NOVAQ_GENERATED}/novaq.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES ${NOVAQ_GENERATED}/novaq.bash RENAME novaq
  DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
install(FILES ${NOVAQ_GENERATED}/_novaq
  DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
install(FILES ${NOVAQ_GENERATED}/novaq.fish
  DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
