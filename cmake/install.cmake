include(GNUInstallDirs)
install(TARGETS novaq novaq_static novaq_shared)
install(FILES ${CMAKE_SOURCE_DIR}/include/novaq.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
