# Warnings, hardening and sanitizers, the same for every target.
add_library(quern_warnings INTERFACE)
target_compile_options(quern_warnings INTERFACE
  -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual -Werror
  -Wno-missing-field-initializers  # what a designated initializer leaves out has its default
  -Wno-ignored-attributes     # vector types as template arguments lose an attribute they do not need
  -Wno-psabi                  # a note about the ABI of 64-byte vectors, which never cross a library
  -Wno-restrict               # false alarms of GCC 12 in std::string (its bug 105651)
  -Wno-maybe-uninitialized)   # and in std::optional (its bug 105562)

if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # 600 MB before the compiler collects its garbage for the first time: an eighth of its time saved.
  add_compile_options(--param=ggc-min-heapsize=600000)
endif()
add_compile_options(-fstack-protector-strong -fno-math-errno -fno-trapping-math)
add_compile_definitions(_GLIBCXX_ASSERTIONS)
add_link_options(-Wl,-z,relro,-z,now)
if(CMAKE_BUILD_TYPE STREQUAL "Release")
  add_compile_definitions(_FORTIFY_SOURCE=2)
endif()

if(QUERN_SANITIZE)
  add_compile_options(-fsanitize=${QUERN_SANITIZE} -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${QUERN_SANITIZE})
  if(QUERN_SANITIZE STREQUAL "thread")  # it does not see fences, of which Asio has one
    target_compile_options(quern_warnings INTERFACE -Wno-tsan)
  endif()
endif()

find_program(QUERN_CCACHE ccache)
if(QUERN_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${QUERN_CCACHE})
endif()
