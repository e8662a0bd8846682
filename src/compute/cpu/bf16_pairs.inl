// Two columns of bfloat16 in a lane: what matmul.inl needs to take them for a type of weights.

struct Bf16Pair {
  uint32_t bits;
};

inline Vec load_as(const Bf16Pair* p) noexcept { return {_mm512_loadu_ps(p)}; }
inline Vec load_as(const Bf16Pair* p, int64_t n) noexcept {
  return {_mm512_maskz_loadu_ps(Vec::mask(n), p)};
}

[[gnu::always_inline]] inline Vec multiply_add(const Bf16Pair*, Vec x, Vec w, Vec acc) noexcept {
  return {
      _mm512_dpbf16_ps(acc.v, reinterpret_cast<__m512bh>(x.v), reinterpret_cast<__m512bh>(w.v))};
}
