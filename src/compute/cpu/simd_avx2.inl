// Eight floats in an AVX2 register.
struct Vec {
  static constexpr int kLanes = 8;
  static constexpr int kTileRows = 3;  // 3 x 4 accumulators, 3 rows, 1 column: 16 registers
  __m256 v;

  static __m256i mask(int64_t n) noexcept {
    alignas(32) static constexpr int32_t kOnes[16] = {-1, -1, -1, -1, -1, -1, -1, -1,
                                                      0,  0,  0,  0,  0,  0,  0,  0};
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kOnes + 8 - n));
  }
  // The first n of eight 16-bit words, the rest zero.
  static __m128i load_words_n(const uint16_t* p, int64_t n) noexcept {
    alignas(16) uint16_t words[8] = {};
    for (int64_t i = 0; i < n; ++i) words[i] = p[i];
    return _mm_load_si128(reinterpret_cast<const __m128i*>(words));
  }
  static __m256 widen(__m128i words) noexcept {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(words), 16));
  }

  static Vec zero() noexcept { return {_mm256_setzero_ps()}; }
  static Vec set1(float x) noexcept { return {_mm256_set1_ps(x)}; }
  static Vec load(const float* p) noexcept { return {_mm256_loadu_ps(p)}; }
  static Vec load_n(const float* p, int64_t n) noexcept { return {_mm256_maskload_ps(p, mask(n))}; }
  static Vec load_bf16(const uint16_t* p) noexcept {
    return {widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
  }
  static Vec load_bf16_n(const uint16_t* p, int64_t n) noexcept {
    return {widen(load_words_n(p, n))};
  }
  static Vec load_f16(const uint16_t* p) noexcept {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
  }
  static Vec load_f16_n(const uint16_t* p, int64_t n) noexcept {
    return {_mm256_cvtph_ps(load_words_n(p, n))};
  }
  static Vec load_byte(const uint8_t* p, int64_t i, uint8_t flip) noexcept {
    const __m256i word = _mm256_xor_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
                                          _mm256_set1_epi8(char(flip)));
    const __m256i byte = _mm256_srl_epi32(word, _mm_cvtsi64_si128(8 * i));
    return {_mm256_cvtepi32_ps(_mm256_and_si256(byte, _mm256_set1_epi32(255)))};
  }
  void store(float* p) const noexcept { _mm256_storeu_ps(p, v); }
  void store_n(float* p, int64_t n) const noexcept { _mm256_maskstore_ps(p, mask(n), v); }
  Vec operator+(Vec b) const noexcept { return {_mm256_add_ps(v, b.v)}; }
  Vec operator-(Vec b) const noexcept { return {_mm256_sub_ps(v, b.v)}; }
  Vec operator*(Vec b) const noexcept { return {_mm256_mul_ps(v, b.v)}; }
  Vec operator/(Vec b) const noexcept { return {_mm256_div_ps(v, b.v)}; }
  static Vec fma(Vec a, Vec b, Vec c) noexcept { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
  static Vec max(Vec a, Vec b) noexcept { return {_mm256_max_ps(a.v, b.v)}; }
  static Vec min(Vec a, Vec b) noexcept { return {_mm256_min_ps(a.v, b.v)}; }
  static Vec round(Vec a) noexcept {
    return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
  }
  // What scale_by_power takes; it makes zero of the lower end.
  static Vec exponent_range(Vec x) noexcept { return min(max(x, set1(-127)), set1(127)); }
  static Vec scale_by_power(Vec a, Vec n) noexcept {
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n.v), _mm256_set1_epi32(127));
    return {_mm256_mul_ps(a.v, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)))};
  }
  // Turns eight rows of eight into columns.
  [[gnu::always_inline]] static inline void transpose(Vec (&rows)[8]) noexcept {
    __m256 t[8];
    for (int i = 0; i < 8; i += 2) {
      t[i] = _mm256_unpacklo_ps(rows[i].v, rows[i + 1].v);
      t[i + 1] = _mm256_unpackhi_ps(rows[i].v, rows[i + 1].v);
    }
    __m256 u[8];  // u[4 g + c]: of rows 4 g to 4 g + 3, the columns c and c + 4
    for (int i = 0; i < 8; i += 4) {
      u[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
      u[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xEE);
      u[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
      u[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xEE);
    }
    for (int c = 0; c < 4; ++c) {
      rows[c].v = _mm256_permute2f128_ps(u[c], u[c + 4], 0x20);
      rows[c + 4].v = _mm256_permute2f128_ps(u[c], u[c + 4], 0x31);
    }
  }
  // Lane by lane: a >= b ? x : y.
  static Vec select_at_least(Vec a, Vec b, Vec x, Vec y) noexcept {
    return {_mm256_blendv_ps(y.v, x.v, _mm256_cmp_ps(a.v, b.v, _CMP_GE_OQ))};
  }
  float sum() const noexcept {
    const Vec four[4] = {*this, zero(), zero(), zero()};
    float out[4];
    sum4(four, out);
    return out[0];
  }
  float largest() const noexcept {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    m = _mm_max_ss(m, _mm_movehdup_ps(m));
    return _mm_cvtss_f32(m);
  }
  // The sums of four vectors, written or added to out.
  [[gnu::always_inline]] static inline void sum4(const Vec (&a)[4], float* out,
                                                 bool add = false) noexcept {
    const __m256 t = _mm256_hadd_ps(_mm256_hadd_ps(a[0].v, a[1].v), _mm256_hadd_ps(a[2].v, a[3].v));
    const __m128 sums = _mm_add_ps(_mm256_castps256_ps128(t), _mm256_extractf128_ps(t, 1));
    _mm_storeu_ps(out, add ? _mm_add_ps(_mm_loadu_ps(out), sums) : sums);
  }
};

struct ByteSums {
  static constexpr int kLowBits = 7;
  using Bytes = __m256i;
  __m256i v;

  static Bytes load(const void* p) noexcept {
    return _mm256_loadu_si256(static_cast<const __m256i*>(p));
  }
  static Bytes all(const void* p) noexcept {
    int32_t four;
    std::memcpy(&four, p, 4);
    return _mm256_set1_epi32(four);
  }
  void add(Bytes a, Bytes b, int16_t factor) noexcept {
    const __m256i pairs = _mm256_maddubs_epi16(a, b);
    v = _mm256_add_epi32(v, _mm256_madd_epi16(pairs, _mm256_set1_epi16(factor)));
  }
  Vec floats() const noexcept { return {_mm256_cvtepi32_ps(v)}; }
  static void store_levels(Vec levels, int32_t low_offset, std::byte* out) noexcept {
    const __m256i level = _mm256_cvtps_epi32(levels.v);
    const __m256i high =
        _mm256_srai_epi32(_mm256_add_epi32(level, _mm256_set1_epi32(low_offset)), kLowBits);
    const __m256i low = _mm256_sub_epi32(level, _mm256_slli_epi32(high, kLowBits));
    // Each half of a register has one group of four, its high and its low words side by side.
    const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(high, low), _mm256_setzero_si256());
    auto* to = reinterpret_cast<__m128i*>(out);
    _mm_storel_epi64(to, _mm256_castsi256_si128(bytes));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(out + 8), _mm256_extracti128_si256(bytes, 1));
  }
};
