// Strips of eight outputs with a tile of rounded rows, in registers `V` of one strip or two: a lane
// of 32 bits is an output from the first load to the last store. See quant_kernels.h,
// compute/packed.h.

constexpr int64_t kQuantAhead = 2048;  // bytes of a strip that are asked for ahead
// Blocks of inputs that tiles of rows take one after another: the strips' levels stay in the first
// cache meanwhile.
constexpr int64_t kQuantBlocks = 32;
constexpr int64_t kQuantRows = 48;  // rows of levels whose sums wait for the next inputs

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
  int64_t blocks;  // of a row
};

// weight = scale · level + sum_factor(F) · offset of a register's outputs, levels from 0 up where F
// is bytes. The scales of its first strip begin at `strip`.
template <class V>
struct AffineLanes {
  typename V::Floats scale, offset;
};
template <class V, RoundedForm F, PackedScales S>
[[gnu::always_inline]] inline AffineLanes<V> affine_lanes(const Tile& t, const std::byte* strip,
                                                          int64_t block, int64_t group,
                                                          int64_t sixteen) noexcept {
  const auto share = V::all(-1.0f / sum_factor(F));
  const std::byte* halves = strip + t.halves;
  const std::byte* small = strip + t.small;
  const int64_t super = block / (kSuperInputs / kBlockInputs);
  if constexpr (S == PackedScales::Symmetric) {
    const auto scale = V::halves(halves + group * 2 * kStripRows, t.strip_bytes);
    return {scale, scale};  // of bytes, the middle; of words there is none
  } else if constexpr (S == PackedScales::Zeros) {
    const auto scale = V::halves(halves + group * 2 * kStripRows, t.strip_bytes);
    const auto zero = V::words(strip + t.zeros + group * 2 * kStripRows, t.strip_bytes);
    const auto offset = V::mul(V::mul(scale, zero), share);
    return {scale, F == RoundedForm::Pairs ? V::add(offset, scale) : offset};
  } else if constexpr (S == PackedScales::Minima) {
    const std::byte* d = halves + super * 4 * kStripRows;
    const std::byte* levels = small + block * 2 * kStripRows;
    const auto scale =
        V::mul(V::halves(d, t.strip_bytes), V::unsigned_bytes(levels, t.strip_bytes));
    const auto min = V::mul(V::halves(d + 2 * kStripRows, t.strip_bytes),
                            V::unsigned_bytes(levels + kStripRows, t.strip_bytes));
    return {scale, V::mul(min, share)};
  } else {
    const auto d = V::halves(halves + super * 2 * kStripRows, t.strip_bytes);
    const auto levels = V::signed_bytes(small + (2 * block + sixteen) * kStripRows, t.strip_bytes);
    return {V::mul(d, levels), V::all(0)};
  }
}

// Where register c begins in its first strip.
template <class V>
[[gnu::always_inline]] inline const std::byte* strips_from(const std::byte* p, const Tile& t,
                                                           int c) noexcept {
  return p + c * V::kStrips * t.strip_bytes;
}

// total[r][c] = the products of a block's levels of register c with row r of x, in four byte steps.
template <class V, int R, int C>
[[gnu::always_inline]] inline void block_of_nibbles(typename V::Ints (&total)[R][C], const Tile& t,
                                                    const std::byte* levels,
                                                    const std::byte* x) noexcept {
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {  // low nibbles of a register, then its high ones
    typename V::Ints w[C];
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
      const auto both = V::bytes(strips_from<V>(levels, t, c) + i / 2 * 32, t.strip_bytes);
      w[c] = i % 2 == 0 ? V::low_nibbles(both) : V::high_nibbles(both);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const auto four = V::word(x + r * t.x_step + i / 2 * 4 + i % 2 * 16);
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) {
        total[r][c] = i == 0 ? V::first_bytes(w[c], four) : V::add_bytes(total[r][c], w[c], four);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) total[r][c] = V::finish_bytes(total[r][c]);
  }
}

// The same of bytes from -128 on, 128 added to them, with rows of the form Pairs.
template <class V, int R, int C>
[[gnu::always_inline]] inline void block_of_pairs(typename V::Ints (&total)[R][C], const Tile& t,
                                                  const std::byte* levels,
                                                  const std::byte* x) noexcept {
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    typename V::Ints w[C];
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
      w[c] = V::flip_signs(V::bytes(strips_from<V>(levels, t, c) + i * 32, t.strip_bytes));
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const auto four = V::word(x + r * t.x_step + i * 4);
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) {
        total[r][c] = i == 0 ? V::first_pairs(w[c], four) : V::add_pairs(total[r][c], w[c], four);
      }
    }
  }
}

// The same of 16 inputs and bytes from 0 to 31, or `Signed` from -32 to 31: so few that sums of 16
// products with bytes fit in 16 bits.
template <class V, int R, int C, bool Signed>
[[gnu::always_inline]] inline void sixteen_of_bytes(typename V::Ints (&total)[R][C], const Tile& t,
                                                    const std::byte* levels,
                                                    const std::byte* x) noexcept {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    typename V::Ints w[C], size[C];
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
      w[c] = V::bytes(strips_from<V>(levels, t, c) + i * 32, t.strip_bytes);
      size[c] = Signed ? V::sizes(w[c]) : w[c];
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const auto four = V::word(x + r * t.x_step + i * 4);
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) {
        const auto factor = Signed ? V::with_signs(four, w[c]) : four;
        total[r][c] =
            i == 0 ? V::first_bytes(size[c], factor) : V::add_bytes(total[r][c], size[c], factor);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) total[r][c] = V::finish_bytes(total[r][c]);
  }
}

// The same of signed bytes with words, of `Count` times four inputs.
template <class V, int R, int C, int Count>
[[gnu::always_inline]] inline void block_of_words(typename V::Ints (&total)[R][C], const Tile& t,
                                                  const std::byte* levels,
                                                  const std::byte* x) noexcept {
#pragma GCC unroll 16
  for (int i = 0; i < 2 * Count; ++i) {  // of four inputs 0 and 2, then 1 and 3
    typename V::Ints w[C];
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
      const auto both = V::bytes(strips_from<V>(levels, t, c) + i / 2 * 32, t.strip_bytes);
      w[c] = i % 2 == 0 ? V::low_bytes(both) : V::high_bytes(both);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const auto two = V::word(x + r * t.x_step + i * 4);
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) {
        total[r][c] = i == 0 ? V::first_words(w[c], two) : V::add_words(total[r][c], w[c], two);
      }
    }
  }
}

// sums[r][c] += row r of the tile with the outputs of register c. A function of its own, so that
// the registers are its own: inlined into its caller, GCC keeps the sums on the stack.
template <class V, int Bits, RoundedForm F, PackedScales S, int R, int C>
[[gnu::noinline]] void strip_tile(float* sums, const Tile& tile) noexcept {
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
  typename V::Floats sum[R][C];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) sum[r][c] = V::load(sums + (r * C + c) * V::kStrips * kStripRows);
  }
  constexpr int64_t kBlocksAhead = kQuantAhead / kLevelBytes;
  for (int64_t block = t.first_block; block < t.end_block; ++block) {
    // Behind the last levels those of the next strips.
    const bool next = block + kBlocksAhead >= t.blocks;
    const std::byte* ahead =
        levels + kQuantAhead + (next ? C * V::kStrips * t.strip_bytes - t.blocks * kLevelBytes : 0);
#pragma GCC unroll 4
    for (int strip = 0; strip < C * V::kStrips; ++strip) {
#pragma GCC unroll 4
      for (int line = 0; line < Bits / 2; ++line) {
        __builtin_prefetch(ahead + strip * t.strip_bytes + 64 * line);
      }
    }
    const auto add = [&](const typename V::Ints(&total)[R][C], int64_t sixteen)
        __attribute__((always_inline)) {
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) {
        const AffineLanes<V> w =
            affine_lanes<V, F, S>(t, strips_from<V>(t.strip, t, c), block, group, sixteen);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          const auto d = V::all(scales[r * t.scale_step]);
          const auto d_sum = V::all(scales[r * t.scale_step + 1]);
          const auto products = V::to_floats(total[r][c]);
          if constexpr (kMiddle) {
            sum[r][c] = V::fma(w.scale, V::fma(products, d, d_sum), sum[r][c]);
          } else {
            sum[r][c] = V::fma(V::mul(w.scale, d), products, sum[r][c]);
            if constexpr (kOffset) sum[r][c] = V::fma(w.offset, d_sum, sum[r][c]);
          }
        }
      }
    };
    typename V::Ints total[R][C];
    if constexpr (Bits == 4) {
      block_of_nibbles<V, R, C>(total, t, levels, x);
      add(total, 0);
    } else if constexpr (F == RoundedForm::Pairs) {
      block_of_pairs<V, R, C>(total, t, levels, x);
      add(total, 0);
    } else if constexpr (F == RoundedForm::Words && !kHalves) {
      block_of_words<V, R, C, 8>(total, t, levels, x);
      add(total, 0);
    } else if constexpr (F == RoundedForm::Words) {
      block_of_words<V, R, C, 4>(total, t, levels, x);
      add(total, 0);
      block_of_words<V, R, C, 4>(total, t, levels + kLevelBytes / 2, x + kXBytes / 2);
      add(total, 1);
    } else if constexpr (kHalves) {
      sixteen_of_bytes<V, R, C, true>(total, t, levels, x);
      add(total, 0);
      sixteen_of_bytes<V, R, C, true>(total, t, levels + kLevelBytes / 2, x + kXBytes / 2);
      add(total, 1);
    } else {
      typename V::Ints more[R][C];
      sixteen_of_bytes<V, R, C, false>(total, t, levels, x);
      sixteen_of_bytes<V, R, C, false>(more, t, levels + kLevelBytes / 2, x + kXBytes / 2);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
        for (int c = 0; c < C; ++c) total[r][c] = V::add_ints(total[r][c], more[r][c]);
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
    for (int c = 0; c < C; ++c) V::store(sums + (r * C + c) * V::kStrips * kStripRows, sum[r][c]);
  }
}

// Writes the sums of a row of x with a strip, or those of them that the weight has.
inline void write_strip(const MatmulPart& part, int64_t row, int64_t first,
                        const float* sums) noexcept {
  float* out = part.out.row(row) + first;
  const float* bias = part.bias.empty() ? nullptr : part.bias.data() + first;
  const auto write = [&](int64_t begin, int64_t end) {
    for (int64_t lane = begin; lane < end; ++lane) {
      const float value = bias == nullptr ? sums[lane] : sums[lane] + bias[lane];
      out[lane] = part.accumulate ? out[lane] + value : value;
    }
  };
  if (first >= 0 && first + kStripRows <= part.weight->rows) {
    write(0, kStripRows);
  } else {
    write(std::max<int64_t>(0, -first), std::min(kStripRows, part.weight->rows - first));
  }
}

// A part's product over strips, a few registers at a time.
template <int Bits, RoundedForm F, PackedScales S>
struct StripProduct {
  const MatmulPart& part;
  const RoundedRows& x;
  int64_t begin, end;  // rows of levels
  Tile t;

  StripProduct(const MatmulPart& product, const RoundedRows& rows, int64_t row_begin,
               int64_t row_end) noexcept
      : part(product),
        x(rows),
        begin(row_begin * x.level_rows() / x.rows),
        end(row_end * x.level_rows() / x.rows) {
    const PackedMatrix& m = *part.weight->packed;
    const StripParts<const std::byte> parts(m, m.strip(0));
    const auto offset = [&](const auto* p) {
      return reinterpret_cast<const std::byte*>(p) - m.strip(0);
    };
    t = {.strip_bytes = m.strip_bytes(),
         .halves = offset(parts.halves),
         .zeros = offset(parts.zeros),
         .small = offset(parts.small),
         .group_blocks = std::max<int64_t>(1, m.group / kBlockInputs),
         .x_step = x.level_row_bytes(),
         .scale_step = x.scale_row_floats(),
         .blocks = x.cols / kBlockInputs};
  }

  // By C registers V at a time, as many as fit; returns the first strip that is left.
  template <class V, int C>
  int64_t take(int64_t strip, int64_t strip_end) noexcept {
    for (; strip + C * V::kStrips <= strip_end; strip += C * V::kStrips) {
      t.strip = part.weight->packed->strip(strip);
      for (int64_t first = begin; first < end; first += kQuantRows) {
        rows_with<V, C>(strip, first, std::min(kQuantRows, end - first));
      }
    }
    return strip;
  }

 private:
  template <class V, int C>
  void rows_with(int64_t strip, int64_t first, int64_t rows) noexcept {
    constexpr int64_t kFloats = C * V::kStrips * kStripRows;  // of a row
    const int64_t step = rows <= V::tile_rows(C) ? t.blocks : kQuantBlocks;
    alignas(64) float sums[kQuantRows * kFloats];
    std::fill_n(sums, rows * kFloats, 0.0f);
    for (t.first_block = 0; t.first_block < t.blocks; t.first_block += step) {
      t.end_block = std::min(t.first_block + step, t.blocks);
      for (int64_t row = 0; row < rows;) {
        t.x = x.levels + (first + row) * t.x_step;
        t.x_scales = x.scales + (first + row) * t.scale_step;
        row += tile_of<V, C>(sums + row * kFloats, rows - row);
      }
    }
    const int64_t planes = x.form == RoundedForm::TwoBytes ? 2 : 1;
    for (int64_t row = 0; row < rows; row += planes) {
      float* from = sums + row * kFloats;
      if (planes == 2) {
        for (int64_t i = 0; i < kFloats; ++i) from[i] += from[kFloats + i];
      }
      for (int64_t c = 0; c < C * V::kStrips; ++c) {
        const int64_t output = (strip + c) * kStripRows - part.weight->first_row;
        write_strip(part, (first + row) / planes, output, from + c * kStripRows);
      }
    }
  }

  // A tile of at most `rows` rows; how many it has.
  template <class V, int C>
  int64_t tile_of(float* sums, int64_t rows) noexcept {
    constexpr int kTile = V::tile_rows(C);
    if (rows >= kTile) {
      strip_tile<V, Bits, F, S, kTile, C>(sums, t);
      return kTile;
    }
    switch (rows) {
      case 1:
        strip_tile<V, Bits, F, S, 1, C>(sums, t);
        return 1;
      case 2:
        strip_tile<V, Bits, F, S, 2, C>(sums, t);
        return 2;
      case 3:
        strip_tile<V, Bits, F, S, 3, C>(sums, t);
        return 3;
      default:
        strip_tile<V, Bits, F, S, 4, C>(sums, t);
        return 4;
    }
  }
};

template <int Bits, RoundedForm F, PackedScales S>
void multiply_strips(const MatmulPart& part, const RoundedRows& x, int64_t row_begin,
                     int64_t row_end, int64_t strip_begin, int64_t strip_end) noexcept {
  // Most rows share as many strips as registers take; one or two rows leave registers for more to
  // wait for at once. Between them, and where a block has two sums, a tile has fewer strips and
  // more rows.
  constexpr bool kTwoSums = S == PackedScales::Sixteens || (S == PackedScales::Minima && Bits == 8);
  StripProduct<Bits, F, S> product(part, x, row_begin, row_end);
  const int64_t rows = product.end - product.begin;
  if (rows <= 2 || (rows > WideLanes::tile_rows(1) && !kTwoSums)) {
    strip_begin = product.template take<WideLanes, kMostTogether>(strip_begin, strip_end);
  }
  strip_begin = product.template take<WideLanes, kWideTogether>(strip_begin, strip_end);
  product.template take<Lanes, 1>(strip_begin, strip_end);
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
