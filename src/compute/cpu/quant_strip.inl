// Outputs of a strip with a tile of rounded rows, in registers of Lanes: a lane of 32 bits is an
// output from the first load to the last store. See quant_kernels.h, compute/packed.h.

using V = Lanes;

// Blocks of inputs that tiles take one after another: the strip's levels stay in the first cache
// meanwhile, and the sums of so many rows of levels wait.
constexpr int64_t kQuantBlocks = 32;
constexpr int64_t kQuantRows = 48;
// With at most so many rows, fewer blocks, while the next ones are asked for into the second cache.
// One row alone is faster with nothing but the machine's own prefetching.
constexpr int64_t kSeveralRows = 24;

// A tile's outputs and rows: those of a strip from its output `lane` on, its scales so many bytes
// behind its levels; rows of levels and of scales so far apart from `x` and `x_scales` on. Of the
// inputs the blocks [first_block, end_block).
struct Tile {
  const std::byte* strip;
  int64_t lane;
  int64_t halves, zeros, small;
  int64_t group_blocks;  // that share a scale
  const std::byte* x;
  int64_t x_step;
  const float* x_scales;
  int64_t scale_step;
  const float* x_halves;  // sums of the first 16 inputs of each block, as far apart as blocks
  int64_t first_block, end_block;
  int64_t blocks;  // of a row
  bool ahead;      // asks for the levels behind these blocks
};

// weight = scale · level + sum_factor(F) · offset of a register's outputs, the strip's from `lane`
// on, levels from 0 up where F is bytes.
struct AffineLanes {
  V::Floats scale, offset;
};
template <RoundedForm F, PackedScales S>
[[gnu::always_inline]] inline AffineLanes affine_lanes(const Tile& t, int64_t lane, int64_t block,
                                                       int64_t group, int64_t sixteen) noexcept {
  const auto share = V::all(-1.0f / sum_factor(F));
  const std::byte* halves = t.strip + t.halves + 2 * lane;
  const std::byte* small = t.strip + t.small + lane;
  const int64_t super = block / (kSuperInputs / kBlockInputs);
  if constexpr (S == PackedScales::Symmetric) {
    const auto scale = V::halves(halves + group * 2 * kStripRows);
    return {scale, scale};  // of bytes, the middle; of words there is none
  } else if constexpr (S == PackedScales::Zeros) {
    const auto scale = V::halves(halves + group * 2 * kStripRows);
    const auto zero = V::words(t.strip + t.zeros + (group * kStripRows + lane) * 2);
    const auto offset = V::mul(V::mul(scale, zero), share);
    return {scale, F == RoundedForm::Pairs ? V::add(offset, scale) : offset};
  } else if constexpr (S == PackedScales::Offsets) {
    const auto offset = V::halves(t.strip + t.zeros + (group * kStripRows + lane) * 2);
    return {V::halves(halves + group * 2 * kStripRows),
            V::mul(offset, V::all(1.0f / sum_factor(F)))};
  } else if constexpr (S == PackedScales::MinimaSixteens) {
    const std::byte* d = halves + super * 4 * kStripRows;
    const std::byte* levels = small + (2 * block + sixteen) * 2 * kStripRows;
    const auto scale = V::mul(V::halves(d), V::unsigned_bytes(levels));
    const auto min = V::mul(V::halves(d + 2 * kStripRows), V::unsigned_bytes(levels + kStripRows));
    return {scale, V::mul(min, share)};
  } else if constexpr (S == PackedScales::Minima) {
    const std::byte* d = halves + super * 4 * kStripRows;
    const std::byte* levels = small + block * 2 * kStripRows;
    const auto scale = V::mul(V::halves(d), V::unsigned_bytes(levels));
    const auto min = V::mul(V::halves(d + 2 * kStripRows), V::unsigned_bytes(levels + kStripRows));
    return {scale, V::mul(min, share)};
  } else {
    const auto d = V::halves(halves + super * 2 * kStripRows);
    const auto levels = V::signed_bytes(small + (2 * block + sixteen) * kStripRows);
    return {V::mul(d, levels), V::all(0)};
  }
}

constexpr int64_t kInputBytes = 4 * kStripRows;  // of four inputs, or eight of four bits

// total[r][c] = the products of a block's levels of register c with row r of x, in four byte steps.
template <int R, int C>
[[gnu::always_inline]] inline void block_of_nibbles(V::Ints (&total)[R][C], const Tile& t,
                                                    const std::byte* levels,
                                                    const std::byte* x) noexcept {
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {  // low nibbles of a register, then its high ones
    V::Ints w[C];
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
      const auto both = V::bytes(levels + i / 2 * kInputBytes + c * sizeof(V::Ints));
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

// The same of the low nibbles alone, the block's first 16 inputs, or of the high ones.
template <int R, int C, int Half>
[[gnu::always_inline]] inline void half_of_nibbles(V::Ints (&total)[R][C], const Tile& t,
                                                   const std::byte* levels,
                                                   const std::byte* x) noexcept {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    V::Ints w[C];
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
      const auto both = V::bytes(levels + i * kInputBytes + c * sizeof(V::Ints));
      w[c] = Half == 0 ? V::low_nibbles(both) : V::high_nibbles(both);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const auto four = V::word(x + r * t.x_step + i * 4 + Half * 16);
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
template <int R, int C>
[[gnu::always_inline]] inline void block_of_pairs(V::Ints (&total)[R][C], const Tile& t,
                                                  const std::byte* levels,
                                                  const std::byte* x) noexcept {
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    V::Ints w[C];
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
      w[c] = V::flip_signs(V::bytes(levels + i * kInputBytes + c * sizeof(V::Ints)));
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
template <int R, int C, bool Signed>
[[gnu::always_inline]] inline void sixteen_of_bytes(V::Ints (&total)[R][C], const Tile& t,
                                                    const std::byte* levels,
                                                    const std::byte* x) noexcept {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    V::Ints w[C], size[C];
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
      w[c] = V::bytes(levels + i * kInputBytes + c * sizeof(V::Ints));
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
template <int R, int C, int Count>
[[gnu::always_inline]] inline void block_of_words(V::Ints (&total)[R][C], const Tile& t,
                                                  const std::byte* levels,
                                                  const std::byte* x) noexcept {
#pragma GCC unroll 16
  for (int i = 0; i < 2 * Count; ++i) {  // of four inputs 0 and 2, then 1 and 3
    V::Ints w[C];
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
      const auto both = V::bytes(levels + i / 2 * kInputBytes + c * sizeof(V::Ints));
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
template <int Bits, RoundedForm F, PackedScales S, int R, int C>
[[gnu::noinline]] void strip_tile(float* sums, const Tile& tile) noexcept {
  constexpr bool kHalves = S == PackedScales::Sixteens;
  constexpr bool kHalfSums = S == PackedScales::MinimaSixteens;
  constexpr bool kMiddle = F != RoundedForm::Words && S == PackedScales::Symmetric;
  constexpr bool kOffset =
      S == PackedScales::Zeros || S == PackedScales::Offsets || S == PackedScales::Minima;
  constexpr int64_t kXBytes = F == RoundedForm::Words ? 2 * kBlockInputs : kBlockInputs;
  constexpr int64_t kLevelBytes = Bits * kStripRows * 4;
  const Tile t = tile;
  const std::byte* levels = t.strip + t.first_block * kLevelBytes + 4 * t.lane;
  const std::byte* x = t.x + t.first_block * kXBytes;
  const float* scales = t.x_scales + t.first_block * 2;
  int64_t group = t.first_block / t.group_blocks;
  int64_t left = (group + 1) * t.group_blocks - t.first_block;
  V::Floats sum[R][C];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) sum[r][c] = V::load(sums + (r * C + c) * V::kLanes);
  }
  for (int64_t block = t.first_block; block < t.end_block; ++block) {
    if (t.ahead) {
#pragma GCC unroll 8
      for (int i = 0; i < Bits; ++i) {
        for (size_t line = 0; line < sizeof(V::Ints[C]); line += 64) {
          __builtin_prefetch(levels + V::kSeveralBlocks * kLevelBytes + i * kInputBytes + line, 0,
                             2);
        }
      }
    }
    const auto add = [&](const V::Ints(&total)[R][C], int64_t sixteen)
        __attribute__((always_inline)) {
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) {
        const AffineLanes w = affine_lanes<F, S>(t, t.lane + c * V::kLanes, block, group, sixteen);
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
            if constexpr (kHalfSums) {
              const float first = t.x_halves[r * t.blocks + block];
              const float own = sixteen == 0 ? first : scales[r * t.scale_step + 1] - first;
              sum[r][c] = V::fma(w.offset, V::all(own), sum[r][c]);
            }
          }
        }
      }
    };
    V::Ints total[R][C];
    if constexpr (kHalfSums) {
      half_of_nibbles<R, C, 0>(total, t, levels, x);
      add(total, 0);
      half_of_nibbles<R, C, 1>(total, t, levels, x);
      add(total, 1);
    } else if constexpr (Bits == 4) {
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
      V::Ints more[R][C];
      sixteen_of_bytes<R, C, false>(total, t, levels, x);
      sixteen_of_bytes<R, C, false>(more, t, levels + kLevelBytes / 2, x + kXBytes / 2);
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
    for (int c = 0; c < C; ++c) V::store(sums + (r * C + c) * V::kLanes, sum[r][c]);
  }
}

// Writes `Count` sums of a row of x, the outputs from `first` on, or those that the weight has.
template <int Count>
inline void write_outputs(const MatmulPart& part, int64_t row, int64_t first,
                          const float* sums) noexcept {
  float* out = part.out.row(row) + first;
  const float* bias = part.bias.empty() ? nullptr : part.bias.data() + first;
  const auto write = [&](int64_t begin, int64_t end) {
    for (int64_t lane = begin; lane < end; ++lane) {
      const float value = bias == nullptr ? sums[lane] : sums[lane] + bias[lane];
      out[lane] = part.accumulate ? out[lane] + value : value;
    }
  };
  if (first >= 0 && first + Count <= part.weight->rows) {
    write(0, Count);
  } else {
    write(std::max<int64_t>(0, -first), std::min<int64_t>(Count, part.weight->rows - first));
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
    t = {.halves = offset(parts.halves),
         .zeros = offset(parts.zeros),
         .small = offset(parts.small),
         .group_blocks = std::max<int64_t>(1, m.group / kBlockInputs),
         .x_step = x.level_row_bytes(),
         .scale_step = x.scale_row_floats(),
         .blocks = x.cols / kBlockInputs};
  }

  // By C registers at a time.
  template <int C>
  void take(int64_t strip_begin, int64_t strip_end) noexcept {
    for (int64_t strip = strip_begin; strip < strip_end; ++strip) {
      t.strip = part.weight->packed->strip(strip);
      for (int64_t first = begin; first < end; first += kQuantRows) {
        rows_with<C>(strip * kStripRows - part.weight->first_row, first,
                     std::min(kQuantRows, end - first));
      }
    }
  }

 private:
  template <int C>
  void rows_with(int64_t output, int64_t first, int64_t rows) noexcept {
    constexpr int kFloats = C * V::kLanes;  // of a tile's row
    static_assert(kStripRows % kFloats == 0);
    const bool one_tile = kFloats == kStripRows && rows <= V::tile_rows(C);
    const int64_t step = one_tile              ? t.blocks
                         : rows > kSeveralRows ? kQuantBlocks
                                               : V::kSeveralBlocks;
    alignas(64) float sums[kQuantRows * kStripRows];  // [kStripRows / kFloats, rows, kFloats]
    std::fill_n(sums, rows * kStripRows, 0.0f);
    for (t.first_block = 0; t.first_block < t.blocks; t.first_block += step) {
      t.end_block = std::min(t.first_block + step, t.blocks);
      float* to = sums;
      for (t.lane = 0; t.lane < kStripRows; t.lane += kFloats) {
        for (int64_t row = 0; row < rows;) {
          t.x = x.levels + (first + row) * t.x_step;
          t.x_scales = x.scales + (first + row) * t.scale_step;
          t.x_halves = x.first_halves() + (first + row) * t.blocks;
          t.ahead = row == 0 && rows > V::kFewRows && rows <= kSeveralRows;
          const int64_t taken = tile_of<C>(to, even_tile(rows - row, V::tile_rows(C)));
          to += taken * kFloats;
          row += taken;
        }
      }
    }
    const int64_t planes = x.form == RoundedForm::TwoBytes ? 2 : 1;
    for (int64_t row = 0; row < rows; row += planes) {
      for (int64_t lane = 0; lane < kStripRows; lane += kFloats) {
        float* from = sums + lane * rows + row * kFloats;
        if (planes == 2) {
          for (int64_t i = 0; i < kFloats; ++i) from[i] += from[kFloats + i];
        }
        write_outputs<kFloats>(part, (first + row) / planes, output + lane, from);
      }
    }
  }

  // Eight rows are two tiles of four, not one of six and one of two.
  static int64_t even_tile(int64_t rows, int64_t most) noexcept {
    return rows > most && rows <= 8 ? (rows + 1) / 2 : rows;
  }

  // A tile of R rows, or the largest of fewer; how many it has.
  template <int C, int R = V::tile_rows(C)>
  int64_t tile_of(float* sums, int64_t rows) noexcept {
    if (R == 1 || rows >= R) {
      strip_tile<Bits, F, S, R, C>(sums, t);
      return R;
    }
    return tile_of<C, std::clamp(R - 1, 1, 4)>(sums, rows);
  }
};

template <int Bits, RoundedForm F, PackedScales S>
void multiply_strips(const MatmulPart& part, const RoundedRows& x, int64_t row_begin,
                     int64_t row_end, int64_t strip_begin, int64_t strip_end) noexcept {
  // Where a block has two sums, a tile has fewer outputs and more rows.
  constexpr bool kTwoSums =
      S == PackedScales::Sixteens || S == PackedScales::MinimaSixteens ||
      ((S == PackedScales::Minima || S == PackedScales::Offsets) && Bits == 8);
  StripProduct<Bits, F, S> product(part, x, row_begin, row_end);
  const int64_t rows = product.end - product.begin;
  if (rows <= V::kFewRows) {
    product.template take<V::kRegistersOfFew>(strip_begin, strip_end);
  } else if (kTwoSums) {
    product.template take<V::kRegistersOfTwoSums>(strip_begin, strip_end);
  } else {
    product.template take<V::kRegisters>(strip_begin, strip_end);
  }
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
    using Four = std::integral_constant<int, 4>;
    using Bytes = std::integral_constant<RoundedForm, RoundedForm::Bytes>;
    if constexpr (S == PackedScales::MinimaSixteens) {
      run(Four{}, Bytes{});
      return;
    }
    if (m.bits == 4) {
      if constexpr (S != PackedScales::Sixteens) {
        run(Four{}, Bytes{});
      }
    } else if (x.form == RoundedForm::Words) {
      run(Eight{}, std::integral_constant<RoundedForm, RoundedForm::Words>{});
    } else if constexpr (S == PackedScales::Symmetric || S == PackedScales::Zeros) {
      run(Eight{}, std::integral_constant<RoundedForm, RoundedForm::Pairs>{});
    } else {
      run(Eight{}, Bytes{});
    }
  };
  switch (m.scales) {
    case PackedScales::Symmetric:
      return with(std::integral_constant<PackedScales, PackedScales::Symmetric>{});
    case PackedScales::Zeros:
      return with(std::integral_constant<PackedScales, PackedScales::Zeros>{});
    case PackedScales::Offsets:
      return with(std::integral_constant<PackedScales, PackedScales::Offsets>{});
    case PackedScales::Minima:
      return with(std::integral_constant<PackedScales, PackedScales::Minima>{});
    case PackedScales::Sixteens:
      return with(std::integral_constant<PackedScales, PackedScales::Sixteens>{});
    case PackedScales::MinimaSixteens:
      return with(std::integral_constant<PackedScales, PackedScales::MinimaSixteens>{});
  }
}
