// The machine's limit for products of bytes, as fma_loop has it for float32: of each form of rows the
// instructions that its tiles are made of. AVX2 adds up in 16 bits what Pairs adds up in 32, by one
// instruction more.

constexpr int kByteChains = 12;
constexpr int64_t kDotOpsPerRound = int64_t{2} * kByteChains * sizeof(Lanes::Ints);

template <bool kPairs>
float product_loop(int64_t rounds) noexcept {
  using Ints = Lanes::Ints;
  Ints chains[kByteChains];
  for (int i = 0; i < kByteChains; ++i) chains[i] = Ints{} + i;  // chains that are alike become one
  Ints w = Ints{} + 1, x = Ints{} + 1;
  for (int64_t round = 0; round < rounds; ++round) {
    // The compiler must not take a product that never changes out of the loop.
    asm volatile("" : "+x"(w), "+x"(x));
    for (Ints& chain : chains) {
      chain = kPairs ? Lanes::add_pairs(chain, w, x) : Lanes::add_bytes(chain, w, x);
    }
  }
  Ints total = {};
  for (const Ints& chain : chains) total = Lanes::add_ints(total, chain);
  return static_cast<float>(total[0]);
}

float dot_loop(int64_t rounds) noexcept { return product_loop<false>(rounds); }
float pair_loop(int64_t rounds) noexcept { return product_loop<true>(rounds); }
