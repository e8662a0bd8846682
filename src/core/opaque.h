// Keeps the compiler from knowing what a value can be: an offset or a mask that is made from a
// condition would become a branch again, which costs more where nobody can predict it.
#pragma once

namespace quern {

template <class T>
[[gnu::always_inline]] inline T opaque(T value) noexcept {
  asm("" : "+r"(value));
  return value;
}

}  // namespace quern
