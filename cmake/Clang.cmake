# Toolchain of the fuzz preset: the newest Clang that is here, from 15 on (14 fails on coroutines under its coverage instrumentation).
find_program(kvgrid_clangxx NAMES clang++-20 clang++-19 clang++-18 clang++-17 clang++-16 clang++-15 clang++ REQUIRED)
string(REPLACE "clang++" "clang" kvgrid_clang ${kvgrid_clangxx})
set(CMAKE_C_COMPILER ${kvgrid_clang})
set(CMAKE_CXX_COMPILER ${kvgrid_clangxx})
