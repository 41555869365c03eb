# One CTest test: a program outside the tree builds against what `cmake --install` gives it. Needs a build of everything.
add_test(NAME installed_package
         COMMAND ${CMAKE_COMMAND} -D BUILD=${PROJECT_BINARY_DIR} -D SOURCE=${CMAKE_CURRENT_LIST_DIR}
                 -D WORK=${PROJECT_BINARY_DIR}/installed_package -D GENERATOR=${CMAKE_GENERATOR}
                 -P ${CMAKE_CURRENT_LIST_DIR}/run.cmake)
set_tests_properties(installed_package PROPERTIES LABELS e2e TIMEOUT 300)
