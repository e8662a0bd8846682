// A strip of eight outputs with a tile of rounded rows, in registers of eight 32-bit lanes: a lane
// is an output from the first load to the last store. See quant_kernels.h, compute/packed.h. Over
// `Ints`, the integer products of an instruction set.

constexpr int kQuantTile = 4;           // rows of levels that share the unpacked weights
constexpr int64_t kQuantAhead = 2048;   // bytes of the strip that are asked for ahead

inline __m256i load_bytes(const void* p) noexcept {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}
inline __m256i broadcast_word(const std::byte* p) noexcept {
  int32_t word;
  std::memcpy(&word, p, 4);
  return _mm256_set1_epi32(word);
}
inline __m256 load_halves(const uint16_t* p) noexcept {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline __m256 unsigned_bytes(const uint8_t* p) noexcept {
  return _mm256_cvtepi32_ps(
      _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
inline __m256 signed_bytes(const uint8_t* p) noexcept {
  return _mm256_cvtepi32_ps(
      _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}

// weight = scale · level + offset of the eight outputs, from input k on.
struct AffineLanes {
  __m256 scale, offset;
};
template <int Bits, PackedScales S>
[[gnu::always_inline]] inline AffineLanes affine_lanes(const PackedMatrix& m,
                                                       const StripParts<const std::byte>& parts,
                                                       int64_t k) noexcept {
  if constexpr (S == PackedScales::Symmetric) {
    const __m256 scale = load_halves(parts.halves + k / m.group * kStripRows);
    return {scale, Bits == 4 ? _mm256_mul_ps(scale, _mm256_set1_ps(-8)) : _mm256_setzero_ps()};
  } else if constexpr (S == PackedScales::Zeros) {
    const int64_t at = k / m.group * kStripRows;
    const __m256 scale = load_halves(parts.halves + at);
    const __m256 zero = _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(parts.zeros + at))));
    return {scale, _mm256_sub_ps(_mm256_setzero_ps(), _mm256_mul_ps(scale, zero))};
  } else if constexpr (S == PackedScales::Minima) {
    const uint16_t* d = parts.halves + k / kSuperInputs * 2 * kStripRows;
    const uint8_t* small = parts.small + k / kBlockInputs * 2 * kStripRows;
    const __m256 scale = _mm256_mul_ps(load_halves(d), unsigned_bytes(small));
    const __m256 min = _mm256_mul_ps(load_halves(d + kStripRows), unsigned_bytes(small + kStripRows));
    return {scale, _mm256_sub_ps(_mm256_setzero_ps(), min)};
  } else {
    const __m256 d = load_halves(parts.halves + k / kSuperInputs * kStripRows);
    return {_mm256_mul_ps(d, signed_bytes(parts.small + k / 16 * kStripRows)),
            _mm256_setzero_ps()};
  }
}

// total[r] += the products of a block's levels with row r of x. `x`: the tile's first row at this
// block, rows `step` bytes apart.
template <int R>
[[gnu::always_inline]] inline void block_of_nibbles(__m256i (&total)[R], const uint32_t* levels,
                                                    const std::byte* x, int64_t step) noexcept {
  const __m256i mask = _mm256_set1_epi8(15);
  __m256i sum[R];
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const __m256i both = load_bytes(levels + j * kStripRows);
    const __m256i low = _mm256_and_si256(both, mask);
    const __m256i high = _mm256_and_si256(_mm256_srli_epi16(both, 4), mask);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const std::byte* row = x + r * step + 4 * j;
      sum[r] = j == 0 ? Ints::first_bytes(low, broadcast_word(row))
                      : Ints::add_bytes(sum[r], low, broadcast_word(row));
      sum[r] = Ints::add_bytes(sum[r], high, broadcast_word(row + 16));
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) total[r] = Ints::finish_bytes(sum[r]);
}

// The same of signed bytes with words, of `Count` times four inputs.
template <int R, int Count>
[[gnu::always_inline]] inline void block_of_bytes(__m256i (&total)[R], const uint32_t* levels,
                                                  const std::byte* x, int64_t step) noexcept {
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) total[r] = _mm256_setzero_si256();
#pragma GCC unroll 8
  for (int j = 0; j < Count; ++j) {
    const __m256i four = load_bytes(levels + j * kStripRows);
    const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(four, 8), 8);  // inputs 0 and 2
    const __m256i odd = _mm256_srai_epi16(four, 8);                         // 1 and 3
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const std::byte* row = x + r * step + 8 * j;
      total[r] = Ints::add_words(total[r], even, broadcast_word(row));
      total[r] = Ints::add_words(total[r], odd, broadcast_word(row + 4));
    }
  }
}

// sums[r] = row r of the tile with all eight outputs.
template <int Bits, PackedScales S, int R>
void strip_tile(__m256 (&sums)[R], const PackedMatrix& m, const StripParts<const std::byte>& parts,
                const std::byte* x, int64_t step, const float* x_scales,
                int64_t scale_step) noexcept {
  constexpr bool kHalves = S == PackedScales::Sixteens;
  constexpr bool kOffset = !kHalves && !(Bits == 8 && S == PackedScales::Symmetric);
  constexpr int64_t kXBytes = Bits == 8 ? 2 * kBlockInputs : kBlockInputs;
  constexpr bool kBlockScales = S == PackedScales::Minima;
  const int64_t group_blocks = kBlockScales || kHalves ? 1 : m.group / kBlockInputs;
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) sums[r] = _mm256_setzero_ps();
  const uint32_t* levels = parts.levels;
  for (int64_t begin = 0; begin < m.cols / kBlockInputs; begin += group_blocks) {
    AffineLanes w = affine_lanes<Bits, S>(m, parts, begin * kBlockInputs);
    for (int64_t block = begin; block < begin + group_blocks; ++block) {
      const char* ahead = reinterpret_cast<const char*>(levels) + kQuantAhead;
#pragma GCC unroll 4
      for (int line = 0; line < Bits / 2; ++line) __builtin_prefetch(ahead + 64 * line);
      const std::byte* row = x + block * kXBytes;
      const float* scale = x_scales + 2 * block;
      const auto add = [&](const __m256i(&total)[R]) __attribute__((always_inline)) {
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          const __m256 d = _mm256_broadcast_ss(scale + r * scale_step);
          sums[r] = _mm256_fmadd_ps(_mm256_mul_ps(w.scale, d), _mm256_cvtepi32_ps(total[r]),
                                    sums[r]);
          if constexpr (kOffset) {
            const __m256 d_sum = _mm256_broadcast_ss(scale + r * scale_step + 1);
            sums[r] = _mm256_fmadd_ps(w.offset, d_sum, sums[r]);
          }
        }
      };
      __m256i total[R];
      if constexpr (Bits == 4) {
        block_of_nibbles<R>(total, levels, row, step);
        add(total);
      } else if constexpr (!kHalves) {
        block_of_bytes<R, 8>(total, levels, row, step);
        add(total);
      } else {
        block_of_bytes<R, 4>(total, levels, row, step);
        add(total);
        w = affine_lanes<Bits, S>(m, parts, block * kBlockInputs + 16);
        block_of_bytes<R, 4>(total, levels + 4 * kStripRows, row + kXBytes / 2, step);
        add(total);
      }
      levels += Bits * kStripRows;
    }
  }
}

// Writes the eight sums of a row of x, or those of them that the weight has.
inline void write_strip(const MatmulPart& part, int64_t row, int64_t first, __m256 sum) noexcept {
  float* out = part.out.row(row) + first;
  if (first >= 0 && first + kStripRows <= part.weight->rows) {
    if (!part.bias.empty()) sum = _mm256_add_ps(sum, _mm256_loadu_ps(part.bias.data() + first));
    if (part.accumulate) sum = _mm256_add_ps(_mm256_loadu_ps(out), sum);
    _mm256_storeu_ps(out, sum);
    return;
  }
  float values[kStripRows];
  _mm256_storeu_ps(values, sum);
  for (int64_t lane = 0; lane < kStripRows; ++lane) {
    const int64_t i = first + lane;
    if (i < 0 || i >= part.weight->rows) continue;
    const float value =
        part.bias.empty() ? values[lane] : values[lane] + part.bias[static_cast<size_t>(i)];
    out[lane] = part.accumulate ? out[lane] + value : value;
  }
}

template <int Bits, PackedScales S>
void multiply_strip(const MatmulPart& part, const RoundedRows& x, int64_t row_begin,
                    int64_t row_end, int64_t strip) noexcept {
  const PackedMatrix& m = *part.weight->packed;
  const StripParts<const std::byte> parts(m, m.strip(strip));
  const int64_t planes = x.form == RoundedForm::TwoBytes ? 2 : 1;
  const int64_t first = strip * kStripRows - part.weight->first_row;
  const int64_t step = x.level_row_bytes(), scale_step = x.scale_row_floats();
  const auto tile = [&](auto n, int64_t level_row) {
    constexpr int R = n;
    __m256 sums[R];
    strip_tile<Bits, S, R>(sums, m, parts, x.levels + level_row * step, step,
                           x.scales + level_row * scale_step, scale_step);
    if (planes == 1) {
      for (int r = 0; r < R; ++r) write_strip(part, level_row + r, first, sums[r]);
    } else {
      for (int r = 0; r + 1 < R; r += 2) {
        write_strip(part, (level_row + r) / 2, first, _mm256_add_ps(sums[r], sums[r + 1]));
      }
    }
  };
  int64_t level_row = row_begin * planes;
  const int64_t end = row_end * planes;
  for (; level_row + kQuantTile <= end; level_row += kQuantTile) {
    tile(std::integral_constant<int, kQuantTile>{}, level_row);
  }
  switch (end - level_row) {
    case 3:
      return tile(std::integral_constant<int, 3>{}, level_row);
    case 2:
      return tile(std::integral_constant<int, 2>{}, level_row);
    case 1:
      return tile(std::integral_constant<int, 1>{}, level_row);
    default:
      return;
  }
}

void multiply(const MatmulPart& part, const RoundedRows& x, int64_t row_begin, int64_t row_end,
              int64_t strip) noexcept {
  const PackedMatrix& m = *part.weight->packed;
  switch (m.scales) {
    case PackedScales::Symmetric:
      return m.bits == 4
                 ? multiply_strip<4, PackedScales::Symmetric>(part, x, row_begin, row_end, strip)
                 : multiply_strip<8, PackedScales::Symmetric>(part, x, row_begin, row_end, strip);
    case PackedScales::Zeros:
      return m.bits == 4
                 ? multiply_strip<4, PackedScales::Zeros>(part, x, row_begin, row_end, strip)
                 : multiply_strip<8, PackedScales::Zeros>(part, x, row_begin, row_end, strip);
    case PackedScales::Minima:
      return m.bits == 4
                 ? multiply_strip<4, PackedScales::Minima>(part, x, row_begin, row_end, strip)
                 : multiply_strip<8, PackedScales::Minima>(part, x, row_begin, row_end, strip);
    case PackedScales::Sixteens:
      return multiply_strip<8, PackedScales::Sixteens>(part, x, row_begin, row_end, strip);
  }
}
