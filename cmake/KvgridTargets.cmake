# How a kvgrid target is made: one language level, one set of warnings, includes from the repository's root.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
include(GNUInstallDirs)

if(NOT CMAKE_BUILD_TYPE)
    set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
find_program(KVGRID_CCACHE ccache)
if(KVGRID_CCACHE)
    # Precompiled headers are cached only with this (ccache's manual, "Precompiled headers"), and with -fpch-preprocess below. Paths
    # relative to the tree: what one build folder has compiled, the Python package's build or another checkout finds.
    set(CMAKE_CXX_COMPILER_LAUNCHER env CCACHE_SLOPPINESS=pch_defines,time_macros CCACHE_BASEDIR=${PROJECT_SOURCE_DIR} ${KVGRID_CCACHE})
    set(CMAKE_CUDA_COMPILER_LAUNCHER ${KVGRID_CCACHE})
endif()

# The tree is kept free of the warnings of GCC 12 (Debian 12), so only there are they errors; newer compilers have other opinions.
# Left out: two that see faults in the standard library's own std::variant and std::string (GCC bugs 80635, 105651).
set(KVGRID_WARNINGS -Wall -Wextra -Wshadow -Wno-missing-field-initializers)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    list(APPEND KVGRID_WARNINGS -Wno-maybe-uninitialized -Wno-restrict)
    if(KVGRID_WERROR AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
        list(APPEND KVGRID_WARNINGS -Werror)
    endif()
endif()

if(KVGRID_FUZZ)
    set(KVGRID_WARNINGS -w)  # they are GCC's to give
endif()
function(kvgrid_common target)
    target_include_directories(${target} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>)
    target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:${KVGRID_WARNINGS}>")
    if(KVGRID_CCACHE AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
        target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-fpch-preprocess>)
    endif()
    if(KVGRID_SANITIZE)
        target_compile_options(${target} PUBLIC -fsanitize=${KVGRID_SANITIZE} -fno-sanitize-recover=all
                               -fno-omit-frame-pointer -g1)
        target_link_options(${target} PUBLIC -fsanitize=${KVGRID_SANITIZE})
    endif()
endfunction()

# kvgrid_library(NAME SOURCES a.cpp ... [PUBLIC lib ...] [PRIVATE lib ...])
function(kvgrid_library name)
    cmake_parse_arguments(ARG "" "" "SOURCES;PUBLIC;PRIVATE" ${ARGN})
    add_library(${name} STATIC ${ARG_SOURCES})
    kvgrid_common(${name})
    target_link_libraries(${name} PUBLIC ${ARG_PUBLIC} PRIVATE ${ARG_PRIVATE})
endfunction()

function(kvgrid_program name)
    cmake_parse_arguments(ARG "" "" "SOURCES;PRIVATE" ${ARGN})
    add_executable(${name} ${ARG_SOURCES})
    kvgrid_common(${name})
    target_link_libraries(${name} PRIVATE ${ARG_PRIVATE})
endfunction()

# kvgrid_label_test(NAME LABEL label ... [TIMEOUT 300]): what every CTest test needs, whoever made it.
#
#   unit, grid   run in each preset        threads   about threads: under TSan as well
#   mpi, e2e     start processes: one at a time, and not under a sanitizer
#   gpu          need a GPU: one at a time, and skipped where there is none; multi_gpu: two of them
#
# Target tests_LABEL builds the programs of a label, where the test's name is a program's.
function(kvgrid_label_test name)
    cmake_parse_arguments(ARG "" "TIMEOUT" "LABEL" ${ARGN})
    if(NOT ARG_TIMEOUT)
        set(ARG_TIMEOUT 300)
    endif()
    if(KVGRID_SANITIZE)
        math(EXPR ARG_TIMEOUT "${ARG_TIMEOUT} * 4")
    endif()
    set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABEL}" TIMEOUT ${ARG_TIMEOUT})
    foreach(label IN LISTS ARG_LABEL)
        if(label MATCHES "^(mpi|e2e|gpu|multi_gpu)$")
            set_tests_properties(${name} PROPERTIES RUN_SERIAL TRUE)
        endif()
        if(TARGET ${name})
            add_dependencies(tests_${label} ${name})
        endif()
    endforeach()
endfunction()
foreach(label unit grid threads mpi e2e gpu)
    add_custom_target(tests_${label})
endforeach()

# kvgrid_test(NAME SOURCES a_test.cpp ... PRIVATE lib ... [LABEL unit threads] [TIMEOUT 300]): one CTest test per program.
function(kvgrid_test name)
    cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;PRIVATE;LABEL" ${ARGN})
    if(NOT ARG_LABEL)
        set(ARG_LABEL unit)
    endif()
    kvgrid_program(${name} SOURCES ${ARG_SOURCES} PRIVATE ${ARG_PRIVATE} GTest::gtest GTest::gtest_main)
    add_test(NAME ${name} COMMAND ${name})
    kvgrid_label_test(${name} LABEL ${ARG_LABEL} TIMEOUT ${ARG_TIMEOUT})
endfunction()

# kvgrid_gpu_test(NAME SOURCES a_test.cpp ... PRIVATE lib ... [TIMEOUT 300]): a program whose main ends with 77 where there is no GPU, which
# CTest reports as skipped.
function(kvgrid_gpu_test name)
    cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;PRIVATE" ${ARGN})
    kvgrid_program(${name} SOURCES ${ARG_SOURCES} PRIVATE ${ARG_PRIVATE} GTest::gtest)
    add_test(NAME ${name} COMMAND ${name})
    set_tests_properties(${name} PROPERTIES SKIP_RETURN_CODE 77)
    kvgrid_label_test(${name} LABEL gpu TIMEOUT ${ARG_TIMEOUT})
endfunction()

# kvgrid_mpi_test(NAME RANKS n COMMAND program [argument ...]): a program under mpirun. With --enable-recovery a rank's death leaves the
# others running; its exit status then says nothing, so such a program is judged by what it prints (PASS_REGULAR_EXPRESSION).
function(kvgrid_mpi_test name)
    cmake_parse_arguments(ARG "" "RANKS;TIMEOUT" "COMMAND" ${ARGN})
    list(POP_FRONT ARG_COMMAND program)
    add_test(NAME ${name}
        COMMAND ${MPIEXEC_EXECUTABLE} --oversubscribe --bind-to none --enable-recovery --mca btl_vader_single_copy_mechanism none
                -np ${ARG_RANKS} $<TARGET_FILE:${program}> ${ARG_COMMAND})
    set_tests_properties(${name} PROPERTIES
        PROCESSORS ${ARG_RANKS} ENVIRONMENT "OMPI_ALLOW_RUN_AS_ROOT=1;OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1")
    kvgrid_label_test(${name} LABEL mpi TIMEOUT ${ARG_TIMEOUT})
    add_dependencies(tests_mpi ${program})
endfunction()
