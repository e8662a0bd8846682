// What quant_strip.inl does with registers of eight 32-bit lanes, one strip of outputs, but for the
// integer products, in which instruction sets differ. `step`: from a strip to the next, for
// registers of more than one.
struct LanesOf8 {
  using Floats = __m256;
  using Ints = __m256i;
  static constexpr int kStrips = 1;
  // Rows of levels that share the unpacked weights of so many registers.
  static constexpr int tile_rows(int) noexcept { return 4; }

  static Floats load(const float* p) noexcept { return _mm256_load_ps(p); }
  static void store(float* p, Floats v) noexcept { _mm256_store_ps(p, v); }
  static Floats all(float value) noexcept { return _mm256_set1_ps(value); }
  static Floats mul(Floats a, Floats b) noexcept { return _mm256_mul_ps(a, b); }
  static Floats add(Floats a, Floats b) noexcept { return _mm256_add_ps(a, b); }
  static Floats fma(Floats a, Floats b, Floats c) noexcept { return _mm256_fmadd_ps(a, b, c); }
  static Floats to_floats(Ints v) noexcept { return _mm256_cvtepi32_ps(v); }
  static Ints add_ints(Ints a, Ints b) noexcept { return _mm256_add_epi32(a, b); }

  // Scales of a strip's outputs.
  static Floats halves(const std::byte* p, int64_t) noexcept { return _mm256_cvtph_ps(load_16(p)); }
  static Floats words(const std::byte* p, int64_t) noexcept {
    return to_floats(_mm256_cvtepi16_epi32(load_16(p)));
  }
  static Floats unsigned_bytes(const std::byte* p, int64_t) noexcept {
    return to_floats(_mm256_cvtepu8_epi32(load_8(p)));
  }
  static Floats signed_bytes(const std::byte* p, int64_t) noexcept {
    return to_floats(_mm256_cvtepi8_epi32(load_8(p)));
  }

  // Levels: four bytes, or four times two nibbles, an output.
  static Ints bytes(const std::byte* p, int64_t) noexcept {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static Ints word(const std::byte* p) noexcept {
    int32_t four;
    std::memcpy(&four, p, 4);
    return _mm256_set1_epi32(four);
  }
  static Ints low_nibbles(Ints v) noexcept { return _mm256_and_si256(v, _mm256_set1_epi8(15)); }
  static Ints high_nibbles(Ints v) noexcept { return low_nibbles(_mm256_srli_epi16(v, 4)); }
  static Ints flip_signs(Ints v) noexcept { return _mm256_xor_si256(v, _mm256_set1_epi8(-128)); }
  static Ints sizes(Ints v) noexcept { return _mm256_abs_epi8(v); }
  static Ints with_signs(Ints v, Ints signs) noexcept { return _mm256_sign_epi8(v, signs); }
  static Ints low_bytes(Ints v) noexcept { return high_bytes(_mm256_slli_epi16(v, 8)); }
  static Ints high_bytes(Ints v) noexcept { return _mm256_srai_epi16(v, 8); }

 private:
  static __m128i load_16(const std::byte* p) noexcept {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  }
  static __m128i load_8(const std::byte* p) noexcept {
    return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  }
};
