// A vector of eight floats in plain C++: the baseline, and the shape that the other two follow.
struct Vec {
  static constexpr int kLanes = 8;
  static constexpr int kTileRows = 2;  // of the matmul tile: accumulators fit the registers
  float v[kLanes];

  static Vec zero() noexcept { return set1(0); }
  static Vec set1(float x) noexcept {
    Vec r;
    for (float& lane : r.v) lane = x;
    return r;
  }
  static Vec load(const float* p) noexcept {
    Vec r;
    for (int i = 0; i < kLanes; ++i) r.v[i] = p[i];
    return r;
  }
  // The first n lanes, the rest zero.
  static Vec load_n(const float* p, int64_t n) noexcept {
    Vec r = zero();
    for (int64_t i = 0; i < n; ++i) r.v[i] = p[i];
    return r;
  }
  static Vec load_bf16(const uint16_t* p) noexcept {
    Vec r;
    for (int i = 0; i < kLanes; ++i) r.v[i] = from_bf16(p[i]);
    return r;
  }
  static Vec load_bf16_n(const uint16_t* p, int64_t n) noexcept {
    Vec r = zero();
    for (int64_t i = 0; i < n; ++i) r.v[i] = from_bf16(p[i]);
    return r;
  }
  static Vec load_f16(const uint16_t* p) noexcept {
    Vec r;
    for (int i = 0; i < kLanes; ++i) r.v[i] = from_f16(p[i]);
    return r;
  }
  static Vec load_f16_n(const uint16_t* p, int64_t n) noexcept {
    Vec r = zero();
    for (int64_t i = 0; i < n; ++i) r.v[i] = from_f16(p[i]);
    return r;
  }
  // Of each four bytes the i-th, as 0 to 255, the bits of `flip` turned.
  static Vec load_byte(const uint8_t* p, int64_t i, uint8_t flip) noexcept {
    Vec r;
    for (int lane = 0; lane < kLanes; ++lane) r.v[lane] = p[4 * lane + i] ^ flip;
    return r;
  }
  void store(float* p) const noexcept {
    for (int i = 0; i < kLanes; ++i) p[i] = v[i];
  }
  void store_n(float* p, int64_t n) const noexcept {
    for (int64_t i = 0; i < n; ++i) p[i] = v[i];
  }
  Vec operator+(Vec b) const noexcept {
    Vec r = *this;
    for (int i = 0; i < kLanes; ++i) r.v[i] += b.v[i];
    return r;
  }
  Vec operator-(Vec b) const noexcept {
    Vec r = *this;
    for (int i = 0; i < kLanes; ++i) r.v[i] -= b.v[i];
    return r;
  }
  Vec operator*(Vec b) const noexcept {
    Vec r = *this;
    for (int i = 0; i < kLanes; ++i) r.v[i] *= b.v[i];
    return r;
  }
  Vec operator/(Vec b) const noexcept {
    Vec r = *this;
    for (int i = 0; i < kLanes; ++i) r.v[i] /= b.v[i];
    return r;
  }
  static Vec fma(Vec a, Vec b, Vec c) noexcept { return a * b + c; }  // a · b + c
  static Vec max(Vec a, Vec b) noexcept {
    for (int i = 0; i < kLanes; ++i) a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i];
    return a;
  }
  static Vec min(Vec a, Vec b) noexcept {
    for (int i = 0; i < kLanes; ++i) a.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i];
    return a;
  }
  static Vec round(Vec a) noexcept {  // to nearest
    for (float& lane : a.v) lane = std::nearbyint(lane);
    return a;
  }
  // What scale_by_power takes; it makes zero of the lower end.
  static Vec exponent_range(Vec x) noexcept { return min(max(x, set1(-127)), set1(127)); }
  // a · 2^n for whole n in [-126, 127]; 0 for -127.
  static Vec scale_by_power(Vec a, Vec n) noexcept {
    for (int i = 0; i < kLanes; ++i) {
      const auto bits = static_cast<uint32_t>(static_cast<int32_t>(n.v[i]) + 127) << 23;
      a.v[i] *= std::bit_cast<float>(bits);
    }
    return a;
  }
  // Turns eight rows of eight into columns.
  static void transpose(Vec (&rows)[kLanes]) noexcept {
    for (int i = 0; i < kLanes; ++i) {
      for (int j = 0; j < i; ++j) std::swap(rows[i].v[j], rows[j].v[i]);
    }
  }
  // Lane by lane: a >= b ? x : y.
  static Vec select_at_least(Vec a, Vec b, Vec x, Vec y) noexcept {
    for (int i = 0; i < kLanes; ++i) x.v[i] = a.v[i] >= b.v[i] ? x.v[i] : y.v[i];
    return x;
  }
  float sum() const noexcept {
    return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
  }
  float largest() const noexcept {
    float m = v[0];
    for (const float lane : v) m = lane > m ? lane : m;
    return m;
  }
  // The sums of four vectors, written or added to out.
  static void sum4(const Vec (&a)[4], float* out, bool add = false) noexcept {
    for (int i = 0; i < 4; ++i) out[i] = add ? out[i] + a[i].sum() : a[i].sum();
  }
};

// In each lane of a Vec a sum of products of four bytes with four.
struct ByteSums {
  static constexpr int kLowBits = 7;  // of a level's two bytes
  struct Bytes {
    uint8_t v[4 * Vec::kLanes];
  };
  int32_t v[Vec::kLanes];

  static Bytes load(const void* p) noexcept {
    Bytes bytes;
    std::memcpy(bytes.v, p, sizeof bytes.v);
    return bytes;
  }
  // The same four bytes in all lanes.
  static Bytes all(const void* p) noexcept {
    Bytes bytes;
    for (int i = 0; i < Vec::kLanes; ++i) std::memcpy(bytes.v + 4 * i, p, 4);
    return bytes;
  }
  // Products of unsigned a and signed b, two neighbours at most 32767 together, times a factor.
  void add(Bytes a, Bytes b, int16_t factor) noexcept {
    for (int i = 0; i < 4 * Vec::kLanes; ++i) {
      v[i / 4] += a.v[i] * static_cast<int8_t>(b.v[i]) * factor;
    }
  }
  Vec floats() const noexcept {
    Vec r;
    for (int i = 0; i < Vec::kLanes; ++i) r.v[i] = static_cast<float>(v[i]);
    return r;
  }
  // Whole levels in two bytes each: of four levels the high bytes, then the low ones, which begin
  // at -low_offset.
  static void store_levels(Vec levels, int32_t low_offset, std::byte* out) noexcept {
    for (int i = 0; i < Vec::kLanes; ++i) {
      const auto level = static_cast<int32_t>(levels.v[i]);
      const int32_t high = (level + low_offset) >> kLowBits;
      out[i / 4 * 8 + i % 4] = static_cast<std::byte>(high);
      out[i / 4 * 8 + 4 + i % 4] = static_cast<std::byte>(level - (high << kLowBits));
    }
  }
};
