# The program, what completes it in a shell, and its manual page: both made by the program itself, with nothing configured.
set(help_folder ${CMAKE_CURRENT_BINARY_DIR}/help)
set(help_files)
function(kvgrid_help_file name)
    add_custom_command(OUTPUT ${help_folder}/${name}
        COMMAND ${CMAKE_COMMAND} -E make_directory ${help_folder}
        COMMAND $<TARGET_FILE:kvgrid-cli> ${ARGN} > ${help_folder}/${name}
        DEPENDS kvgrid-cli VERBATIM)
    set(help_files ${help_files} ${help_folder}/${name} PARENT_SCOPE)
endfunction()
kvgrid_help_file(kvgrid.bash completion bash)
kvgrid_help_file(_kvgrid completion zsh)
kvgrid_help_file(kvgrid.fish completion fish)
kvgrid_help_file(kvgrid.1 man)
kvgrid_help_file(kvgrid.toml config example)
add_custom_target(kvgrid-help ALL DEPENDS ${help_files})

install(TARGETS kvgrid-cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(FILES ${PROJECT_SOURCE_DIR}/tests/data/smollm2_135m_instruct.safetensors DESTINATION ${CMAKE_INSTALL_DATADIR}/kvgrid)
install(FILES ${help_folder}/kvgrid.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES ${help_folder}/kvgrid.toml DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples)
install(FILES ${help_folder}/kvgrid.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME kvgrid)
install(FILES ${help_folder}/_kvgrid DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
install(FILES ${help_folder}/kvgrid.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
