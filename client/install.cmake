# What `cmake --install` gives a user of the C++ client: headers under include/kvgrid, the libraries that kvgrid::client is made of,
# the programs, and a CMake package. Run from client/, the last folder, since it installs targets of all others.
include(CMakePackageConfigHelpers)

set(libraries kvgrid_client kvgrid_core kvgrid_rpc kvgrid_wire)
foreach(library IN LISTS libraries)
    string(REPLACE "kvgrid_" "" short_name ${library})
    set_target_properties(${library} PROPERTIES EXPORT_NAME ${short_name})
    target_compile_features(${library} INTERFACE cxx_std_20)
endforeach()
install(TARGETS ${libraries} EXPORT kvgridTargets
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

foreach(program IN ITEMS kvgrid-coordinator kvgrid-worker)  # client/cli installs its own
    if(TARGET ${program})
        install(TARGETS ${program} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
    endif()
endforeach()

# In the tree headers include one another from its root ("core/ids.h"). Installed, that path would ask for a folder `core` on the
# user's include path, so there it becomes <kvgrid/core/ids.h>.
function(install_header source target_folder)
    file(READ ${PROJECT_SOURCE_DIR}/${source} text)
    string(REGEX REPLACE "#include \"(core/[a-z_]+\\.h)\"" "#include <kvgrid/\\1>" text "${text}")
    set(copy ${PROJECT_BINARY_DIR}/install/include/kvgrid/${source})
    file(WRITE ${copy} "${text}")
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${source})
    install(FILES ${copy} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/kvgrid/${target_folder})
endfunction()
foreach(header IN ITEMS dtype ids kv_dtype log model_spec page_tokens prefix_hash result sharding)
    install_header(core/${header}.h core)
endforeach()
install_header(client/kvgrid.h .)

set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/kvgrid)
install(EXPORT kvgridTargets NAMESPACE kvgrid:: DESTINATION ${package_folder})
configure_package_config_file(kvgridConfig.cmake.in ${PROJECT_BINARY_DIR}/install/kvgridConfig.cmake
                              INSTALL_DESTINATION ${package_folder})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/install/kvgridConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/install/kvgridConfig.cmake ${PROJECT_BINARY_DIR}/install/kvgridConfigVersion.cmake
        DESTINATION ${package_folder})
