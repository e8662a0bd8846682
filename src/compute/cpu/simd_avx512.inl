// Sixteen floats in an AVX-512 register.
struct Vec {
  static constexpr int kLanes = 16;
  static constexpr int kTileRows = 6;  // 6 x 4 accumulators, 4 columns, 1 row: 29 of 32 registers
  __m512 v;

  static __mmask16 mask(int64_t n) noexcept { return static_cast<__mmask16>((1u << n) - 1u); }
  static __m512 widen(__m256i words) noexcept {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words), 16));
  }

  static Vec zero() noexcept { return {_mm512_setzero_ps()}; }
  static Vec set1(float x) noexcept { return {_mm512_set1_ps(x)}; }
  static Vec load(const float* p) noexcept { return {_mm512_loadu_ps(p)}; }
  static Vec load_n(const float* p, int64_t n) noexcept {
    return {_mm512_maskz_loadu_ps(mask(n), p)};
  }
  static Vec load_bf16(const uint16_t* p) noexcept {
    return {widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
  }
  static Vec load_bf16_n(const uint16_t* p, int64_t n) noexcept {
    return {widen(_mm256_maskz_loadu_epi16(mask(n), p))};
  }
  static Vec load_f16(const uint16_t* p) noexcept {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
  }
  static Vec load_f16_n(const uint16_t* p, int64_t n) noexcept {
    return {_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask(n), p))};
  }
  static Vec load_byte(const uint8_t* p, int64_t i, uint8_t flip) noexcept {
    const __m512i word = _mm512_xor_si512(_mm512_loadu_si512(p), _mm512_set1_epi8(char(flip)));
    const __m512i byte = _mm512_srl_epi32(word, _mm_cvtsi64_si128(8 * i));
    return {_mm512_cvtepi32_ps(_mm512_and_si512(byte, _mm512_set1_epi32(255)))};
  }
  void store(float* p) const noexcept { _mm512_storeu_ps(p, v); }
  void store_n(float* p, int64_t n) const noexcept { _mm512_mask_storeu_ps(p, mask(n), v); }
  Vec operator+(Vec b) const noexcept { return {_mm512_add_ps(v, b.v)}; }
  Vec operator-(Vec b) const noexcept { return {_mm512_sub_ps(v, b.v)}; }
  Vec operator*(Vec b) const noexcept { return {_mm512_mul_ps(v, b.v)}; }
  Vec operator/(Vec b) const noexcept { return {_mm512_div_ps(v, b.v)}; }
  static Vec fma(Vec a, Vec b, Vec c) noexcept { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
  static Vec max(Vec a, Vec b) noexcept { return {_mm512_max_ps(a.v, b.v)}; }
  static Vec min(Vec a, Vec b) noexcept { return {_mm512_min_ps(a.v, b.v)}; }
  static Vec round(Vec a) noexcept {
    return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
  }
  static Vec exponent_range(Vec x) noexcept { return x; }
  static Vec scale_by_power(Vec a, Vec n) noexcept { return {_mm512_scalef_ps(a.v, n.v)}; }
  // Turns sixteen rows of sixteen into columns.
  [[gnu::always_inline]] static inline void transpose(Vec (&rows)[16]) noexcept {
    __m512 t[16];
    for (int i = 0; i < 16; i += 2) {
      t[i] = _mm512_unpacklo_ps(rows[i].v, rows[i + 1].v);
      t[i + 1] = _mm512_unpackhi_ps(rows[i].v, rows[i + 1].v);
    }
    __m512 u[16];  // u[4 g + c]: of rows 4 g to 4 g + 3, the columns c, c + 4, c + 8, c + 12
    for (int i = 0; i < 16; i += 4) {
      const auto pair = [&](int a, int b, bool high) {
        const __m512d x = _mm512_castps_pd(t[i + a]), y = _mm512_castps_pd(t[i + b]);
        return _mm512_castpd_ps(high ? _mm512_unpackhi_pd(x, y) : _mm512_unpacklo_pd(x, y));
      };
      u[i] = pair(0, 2, false);
      u[i + 1] = pair(0, 2, true);
      u[i + 2] = pair(1, 3, false);
      u[i + 3] = pair(1, 3, true);
    }
    for (int c = 0; c < 4; ++c) {
      const __m512 low_even = _mm512_shuffle_f32x4(u[c], u[c + 4], 0x88);
      const __m512 low_odd = _mm512_shuffle_f32x4(u[c], u[c + 4], 0xDD);
      const __m512 high_even = _mm512_shuffle_f32x4(u[c + 8], u[c + 12], 0x88);
      const __m512 high_odd = _mm512_shuffle_f32x4(u[c + 8], u[c + 12], 0xDD);
      rows[c].v = _mm512_shuffle_f32x4(low_even, high_even, 0x88);
      rows[c + 4].v = _mm512_shuffle_f32x4(low_odd, high_odd, 0x88);
      rows[c + 8].v = _mm512_shuffle_f32x4(low_even, high_even, 0xDD);
      rows[c + 12].v = _mm512_shuffle_f32x4(low_odd, high_odd, 0xDD);
    }
  }
  // Lane by lane: a >= b ? x : y.
  static Vec select_at_least(Vec a, Vec b, Vec x, Vec y) noexcept {
    return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ), y.v, x.v)};
  }
  float sum() const noexcept {
    const Vec four[4] = {*this, zero(), zero(), zero()};
    float out[4];
    sum4(four, out);
    return out[0];
  }
  float largest() const noexcept { return _mm512_reduce_max_ps(v); }
  // The sums of four vectors, written or added to out.
  [[gnu::always_inline]] static inline void sum4(const Vec (&a)[4], float* out,
                                                 bool add = false) noexcept {
    const auto pair = [](__m512 x, __m512 y) noexcept {
      return _mm512_castps_pd(_mm512_add_ps(_mm512_unpacklo_ps(x, y), _mm512_unpackhi_ps(x, y)));
    };
    const __m512d p = pair(a[0].v, a[1].v), q = pair(a[2].v, a[3].v);
    const __m512 quarters = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(p, q)),
                                          _mm512_castpd_ps(_mm512_unpackhi_pd(p, q)));
    const __m256 halves =
        _mm256_add_ps(_mm512_castps512_ps256(quarters), _mm512_extractf32x8_ps(quarters, 1));
    const __m128 sums =
        _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1));
    _mm_storeu_ps(out, add ? _mm_add_ps(_mm_loadu_ps(out), sums) : sums);
  }
};

struct ByteSums {
  static constexpr int kLowBits = 7;
  using Bytes = __m512i;
  __m512i v;

  static Bytes load(const void* p) noexcept { return _mm512_loadu_si512(p); }
  static Bytes all(const void* p) noexcept {
    int32_t four;
    std::memcpy(&four, p, 4);
    return _mm512_set1_epi32(four);
  }
  void add(Bytes a, Bytes b, int16_t factor) noexcept {
    const __m512i pairs = _mm512_maddubs_epi16(a, b);
    v = _mm512_add_epi32(v, _mm512_madd_epi16(pairs, _mm512_set1_epi16(factor)));
  }
  Vec floats() const noexcept { return {_mm512_cvtepi32_ps(v)}; }
  static void store_levels(Vec levels, int32_t low_offset, std::byte* out) noexcept {
    const __m512i level = _mm512_cvtps_epi32(levels.v);
    const __m512i high =
        _mm512_srai_epi32(_mm512_add_epi32(level, _mm512_set1_epi32(low_offset)), kLowBits);
    const __m512i low = _mm512_sub_epi32(level, _mm512_slli_epi32(high, kLowBits));
    const __m128i above = _mm512_cvtepi32_epi8(high), below = _mm512_cvtepi32_epi8(low);
    auto* to = reinterpret_cast<__m128i*>(out);
    _mm_storeu_si128(to, _mm_unpacklo_epi32(above, below));
    _mm_storeu_si128(to + 1, _mm_unpackhi_epi32(above, below));
  }
};
