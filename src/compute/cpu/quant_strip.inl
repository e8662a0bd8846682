// Strips of eight outputs with a tile of rounded rows, in registers of eight 32-bit lanes: a lane
// is an output from the first load to the last store. See quant_kernels.h, compute/packed.h. Over
// `Ints`, the integer products of an instruction set.

constexpr int64_t kQuantTile = 4;  // rows of levels that share the unpacked weights
constexpr int kQuantStrips = kStripsTogether;
constexpr int64_t kQuantAhead = 2048;  // bytes of a strip that are asked for ahead
// Blocks of inputs that tiles of rows take one after another: the strips' levels stay in the first
// cache meanwhile.
constexpr int64_t kQuantBlocks = 32;
constexpr int64_t kQuantRows = 64;  // rows of levels whose sums wait for the next inputs

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

// A tile's strips and rows: strips `strip_bytes` apart from `strip` on, their scales so many bytes
// further; rows of levels and of scales so far apart from `x` and `x_scales` on. Of the inputs the
// blocks [first_block, end_block).
struct Tile {
  const std::byte* strip;
  int64_t strip_bytes;
  int64_t halves, zeros, small;
  int64_t group_blocks;  // that share a scale
  const std::byte* x;
  int64_t x_step;
  const float* x_scales;
  int64_t scale_step;
  int64_t first_block, end_block;
};

// weight = scale · level + sum_factor(F) · offset of a strip's eight outputs, levels from 0 up
// where F is bytes. The scales begin at `strip`.
struct AffineLanes {
  __m256 scale, offset;
};
template <RoundedForm F, PackedScales S>
[[gnu::always_inline]] inline AffineLanes affine_lanes(const Tile& t, const std::byte* strip,
                                                       int64_t block, int64_t group,
                                                       int64_t sixteen) noexcept {
  const __m256 share = _mm256_set1_ps(-1.0f / sum_factor(F));
  const auto* halves = reinterpret_cast<const uint16_t*>(strip + t.halves);
  if constexpr (S == PackedScales::Symmetric) {
    const __m256 scale = load_halves(halves + group * kStripRows);
    return {scale, scale};  // of bytes, the middle; of words there is none
  } else if constexpr (S == PackedScales::Zeros) {
    const __m256 scale = load_halves(halves + group * kStripRows);
    const auto* zeros = reinterpret_cast<const __m128i*>(strip + t.zeros) + group;
    const __m256 zero = _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm_loadu_si128(zeros)));
    const __m256 offset = _mm256_mul_ps(_mm256_mul_ps(scale, zero), share);
    return {scale, F == RoundedForm::Pairs ? _mm256_add_ps(offset, scale) : offset};
  } else if constexpr (S == PackedScales::Minima) {
    const uint16_t* d = halves + block / (kSuperInputs / kBlockInputs) * 2 * kStripRows;
    const auto* small = reinterpret_cast<const uint8_t*>(strip + t.small) + block * 2 * kStripRows;
    const __m256 scale = _mm256_mul_ps(load_halves(d), unsigned_bytes(small));
    const __m256 min =
        _mm256_mul_ps(load_halves(d + kStripRows), unsigned_bytes(small + kStripRows));
    return {scale, _mm256_mul_ps(min, share)};
  } else {
    const __m256 d = load_halves(halves + block / (kSuperInputs / kBlockInputs) * kStripRows);
    const auto* small = reinterpret_cast<const uint8_t*>(strip + t.small);
    return {_mm256_mul_ps(d, signed_bytes(small + (2 * block + sixteen) * kStripRows)),
            _mm256_setzero_ps()};
  }
}

// total[r][c] = the products of a block's levels of strip c with row r of x, in four byte steps.
template <int R, int C>
[[gnu::always_inline]] inline void block_of_nibbles(__m256i (&total)[R][C], const Tile& t,
                                                    const std::byte* levels,
                                                    const std::byte* x) noexcept {
  const __m256i mask = _mm256_set1_epi8(15);
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {  // low nibbles of a register, then its high ones
    __m256i w[C];
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
      w[c] = load_bytes(levels + c * t.strip_bytes + i / 2 * 32);
      if (i % 2 == 1) w[c] = _mm256_srli_epi16(w[c], 4);
      w[c] = _mm256_and_si256(w[c], mask);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const __m256i four = broadcast_word(x + r * t.x_step + i / 2 * 4 + i % 2 * 16);
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) {
        total[r][c] =
            i == 0 ? Ints::first_bytes(w[c], four) : Ints::add_bytes(total[r][c], w[c], four);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) total[r][c] = Ints::finish_bytes(total[r][c]);
  }
}

// The same of bytes from -128 on, 128 added to them, with rows of the form Pairs.
template <int R, int C>
[[gnu::always_inline]] inline void block_of_pairs(__m256i (&total)[R][C], const Tile& t,
                                                  const std::byte* levels,
                                                  const std::byte* x) noexcept {
  const __m256i middle = _mm256_set1_epi8(-128);
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    __m256i w[C];
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
      w[c] = _mm256_xor_si256(load_bytes(levels + c * t.strip_bytes + i * 32), middle);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const __m256i four = broadcast_word(x + r * t.x_step + i * 4);
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) {
        total[r][c] =
            i == 0 ? Ints::first_pairs(w[c], four) : Ints::add_pairs(total[r][c], w[c], four);
      }
    }
  }
}

// The same of 16 inputs and bytes from 0 to 31, or `Signed` from -32 to 31: so few that sums of 16
// products with bytes fit in 16 bits.
template <int R, int C, bool Signed>
[[gnu::always_inline]] inline void sixteen_of_bytes(__m256i (&total)[R][C], const Tile& t,
                                                    const std::byte* levels,
                                                    const std::byte* x) noexcept {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    __m256i w[C], size[C];
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
      w[c] = load_bytes(levels + c * t.strip_bytes + i * 32);
      size[c] = Signed ? _mm256_abs_epi8(w[c]) : w[c];
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const __m256i four = broadcast_word(x + r * t.x_step + i * 4);
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) {
        const __m256i factor = Signed ? _mm256_sign_epi8(four, w[c]) : four;
        total[r][c] = i == 0 ? Ints::first_bytes(size[c], factor)
                             : Ints::add_bytes(total[r][c], size[c], factor);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) total[r][c] = Ints::finish_bytes(total[r][c]);
  }
}

// The same of signed bytes with words, of `Count` times four inputs.
template <int R, int C, int Count>
[[gnu::always_inline]] inline void block_of_words(__m256i (&total)[R][C], const Tile& t,
                                                  const std::byte* levels,
                                                  const std::byte* x) noexcept {
#pragma GCC unroll 16
  for (int i = 0; i < 2 * Count; ++i) {  // of four inputs 0 and 2, then 1 and 3
    __m256i w[C];
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
      w[c] = load_bytes(levels + c * t.strip_bytes + i / 2 * 32);
      if (i % 2 == 0) w[c] = _mm256_slli_epi16(w[c], 8);
      w[c] = _mm256_srai_epi16(w[c], 8);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const __m256i two = broadcast_word(x + r * t.x_step + i * 4);
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) {
        total[r][c] =
            i == 0 ? Ints::first_words(w[c], two) : Ints::add_words(total[r][c], w[c], two);
      }
    }
  }
}

// sums[r][c] += row r of the tile with the eight outputs of strip c. A function of its own, so that
// the registers are its own: inlined into its caller, GCC keeps the sums on the stack.
template <int Bits, RoundedForm F, PackedScales S, int R, int C>
[[gnu::noinline]] void strip_tile(__m256* sums, const Tile& tile) noexcept {
  constexpr bool kHalves = S == PackedScales::Sixteens;
  constexpr bool kMiddle = F != RoundedForm::Words && S == PackedScales::Symmetric;
  constexpr bool kOffset = S == PackedScales::Zeros || S == PackedScales::Minima;
  constexpr int64_t kXBytes = F == RoundedForm::Words ? 2 * kBlockInputs : kBlockInputs;
  constexpr int64_t kLevelBytes = Bits * kStripRows * 4;
  const Tile t = tile;
  const std::byte* levels = t.strip + t.first_block * kLevelBytes;
  const std::byte* x = t.x + t.first_block * kXBytes;
  const float* scales = t.x_scales + t.first_block * 2;
  int64_t group = t.first_block / t.group_blocks;
  int64_t left = (group + 1) * t.group_blocks - t.first_block;
  __m256 sum[R][C];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) sum[r][c] = sums[r * C + c];
  }
  for (int64_t block = t.first_block; block < t.end_block; ++block) {
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
#pragma GCC unroll 4
      for (int line = 0; line < Bits / 2; ++line) {
        __builtin_prefetch(levels + c * t.strip_bytes + kQuantAhead + 64 * line);
      }
    }
    const auto add = [&](const __m256i(&total)[R][C], int64_t sixteen)
        __attribute__((always_inline)) {
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) {
        const AffineLanes w =
            affine_lanes<F, S>(t, t.strip + c * t.strip_bytes, block, group, sixteen);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          const __m256 d = _mm256_broadcast_ss(scales + r * t.scale_step);
          const __m256 d_sum = _mm256_broadcast_ss(scales + r * t.scale_step + 1);
          const __m256 products = _mm256_cvtepi32_ps(total[r][c]);
          if constexpr (kMiddle) {
            sum[r][c] = _mm256_fmadd_ps(w.scale, _mm256_fmadd_ps(products, d, d_sum), sum[r][c]);
          } else {
            sum[r][c] = _mm256_fmadd_ps(_mm256_mul_ps(w.scale, d), products, sum[r][c]);
            if constexpr (kOffset) sum[r][c] = _mm256_fmadd_ps(w.offset, d_sum, sum[r][c]);
          }
        }
      }
    };
    __m256i total[R][C];
    if constexpr (Bits == 4) {
      block_of_nibbles<R, C>(total, t, levels, x);
      add(total, 0);
    } else if constexpr (F == RoundedForm::Pairs) {
      block_of_pairs<R, C>(total, t, levels, x);
      add(total, 0);
    } else if constexpr (F == RoundedForm::Words && !kHalves) {
      block_of_words<R, C, 8>(total, t, levels, x);
      add(total, 0);
    } else if constexpr (F == RoundedForm::Words) {
      block_of_words<R, C, 4>(total, t, levels, x);
      add(total, 0);
      block_of_words<R, C, 4>(total, t, levels + kLevelBytes / 2, x + kXBytes / 2);
      add(total, 1);
    } else if constexpr (kHalves) {
      sixteen_of_bytes<R, C, true>(total, t, levels, x);
      add(total, 0);
      sixteen_of_bytes<R, C, true>(total, t, levels + kLevelBytes / 2, x + kXBytes / 2);
      add(total, 1);
    } else {
      __m256i more[R][C];
      sixteen_of_bytes<R, C, false>(total, t, levels, x);
      sixteen_of_bytes<R, C, false>(more, t, levels + kLevelBytes / 2, x + kXBytes / 2);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
        for (int c = 0; c < C; ++c) total[r][c] = _mm256_add_epi32(total[r][c], more[r][c]);
      }
      add(total, 0);
    }
    levels += kLevelBytes;
    x += kXBytes;
    scales += 2;
    if (--left == 0) {
      left = t.group_blocks;
      ++group;
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) sums[r * C + c] = sum[r][c];
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

template <int Bits, RoundedForm F, PackedScales S>
void multiply_strips(const MatmulPart& part, const RoundedRows& x, int64_t row_begin,
                     int64_t row_end, int64_t strip_begin, int64_t strip_end) noexcept {
  const PackedMatrix& m = *part.weight->packed;
  const int64_t planes = x.form == RoundedForm::TwoBytes ? 2 : 1;
  const StripParts<const std::byte> parts(m, m.strip(0));
  const auto offset = [&](const auto* p) {
    return reinterpret_cast<const std::byte*>(p) - m.strip(0);
  };
  Tile t = {.strip_bytes = m.strip_bytes(),
            .halves = offset(parts.halves),
            .zeros = offset(parts.zeros),
            .small = offset(parts.small),
            .group_blocks = std::max<int64_t>(1, m.group / kBlockInputs),
            .x_step = x.level_row_bytes(),
            .scale_step = x.scale_row_floats()};
  const int64_t blocks = m.cols / kBlockInputs, end = row_end * planes;
  const auto strips = [&](auto width, int64_t strip) {
    constexpr int C = width;
    t.strip = m.strip(strip);
    for (int64_t first = row_begin * planes; first < end; first += kQuantRows) {
      const int64_t rows = std::min(kQuantRows, end - first);
      const int64_t step = rows <= kQuantTile ? blocks : kQuantBlocks;
      __m256 sums[kQuantRows * C];
      for (int64_t i = 0; i < rows * C; ++i) sums[i] = _mm256_setzero_ps();
      for (t.first_block = 0; t.first_block < blocks; t.first_block += step) {
        t.end_block = std::min(t.first_block + step, blocks);
        for (int64_t row = 0; row < rows; row += kQuantTile) {
          t.x = x.levels + (first + row) * t.x_step;
          t.x_scales = x.scales + (first + row) * t.scale_step;
          switch (rows - row) {
            case 1:
              strip_tile<Bits, F, S, 1, C>(sums + row * C, t);
              break;
            case 2:
              strip_tile<Bits, F, S, 2, C>(sums + row * C, t);
              break;
            case 3:
              strip_tile<Bits, F, S, 3, C>(sums + row * C, t);
              break;
            default:
              strip_tile<Bits, F, S, kQuantTile, C>(sums + row * C, t);
          }
        }
      }
      for (int c = 0; c < C; ++c) {
        const int64_t output = (strip + c) * kStripRows - part.weight->first_row;
        for (int64_t row = 0; row < rows; row += planes) {
          __m256 sum = sums[row * C + c];
          if (planes == 2) sum = _mm256_add_ps(sum, sums[(row + 1) * C + c]);
          write_strip(part, (first + row) / planes, output, sum);
        }
      }
    }
  };
  int64_t strip = strip_begin;
  for (; strip + kQuantStrips <= strip_end; strip += kQuantStrips) {
    strips(std::integral_constant<int, kQuantStrips>{}, strip);
  }
  for (; strip < strip_end; ++strip) strips(std::integral_constant<int, 1>{}, strip);
}

void multiply(const MatmulPart& part, const RoundedRows& x, int64_t row_begin, int64_t row_end,
              int64_t strip_begin, int64_t strip_end) noexcept {
  const PackedMatrix& m = *part.weight->packed;
  const auto with = [&](auto scales) {
    constexpr PackedScales S = scales;
    const auto run = [&](auto bits, auto form) {
      multiply_strips<bits, form, S>(part, x, row_begin, row_end, strip_begin, strip_end);
    };
    using Eight = std::integral_constant<int, 8>;
    if (m.bits == 4) {
      if constexpr (S != PackedScales::Sixteens) {
        run(std::integral_constant<int, 4>{},
            std::integral_constant<RoundedForm, RoundedForm::Bytes>{});
      }
    } else if (x.form == RoundedForm::Words) {
      run(Eight{}, std::integral_constant<RoundedForm, RoundedForm::Words>{});
    } else if constexpr (S == PackedScales::Symmetric || S == PackedScales::Zeros) {
      run(Eight{}, std::integral_constant<RoundedForm, RoundedForm::Pairs>{});
    } else {
      run(Eight{}, std::integral_constant<RoundedForm, RoundedForm::Bytes>{});
    }
  };
  switch (m.scales) {
    case PackedScales::Symmetric:
      return with(std::integral_constant<PackedScales, PackedScales::Symmetric>{});
    case PackedScales::Zeros:
      return with(std::integral_constant<PackedScales, PackedScales::Zeros>{});
    case PackedScales::Minima:
      return with(std::integral_constant<PackedScales, PackedScales::Minima>{});
    case PackedScales::Sixteens:
      return with(std::integral_constant<PackedScales, PackedScales::Sixteens>{});
  }
}
