// Kernels of a row at a time.

void rms_norm(float* out, const float* x, const float* weight, int64_t dim, float eps,
              float offset) noexcept {
  Vec squares = Vec::zero();
  for_lanes(dim, [&](int64_t i, int64_t n) {
    const Vec v = Vec::load_n(x + i, n);
    squares = Vec::fma(v, v, squares);
  });
  const float scale = 1.0f / std::sqrt(squares.sum() / static_cast<float>(dim) + eps);
  for_lanes(dim, [&](int64_t i, int64_t n) {
    const Vec scaled = Vec::load_n(x + i, n) * Vec::set1(scale);
    (scaled * (Vec::load_n(weight + i, n) + Vec::set1(offset))).store_n(out + i, n);
  });
}

// `bias` may be null.
void layer_norm(float* out, const float* x, const float* weight, const float* bias, int64_t dim,
                float eps) noexcept {
  const auto [mean, scale] = mean_and_scale(x, dim, eps);
  for_lanes(dim, [&, mean = mean, scale = scale](int64_t i, int64_t n) {
    const Vec scaled = (Vec::load_n(x + i, n) - Vec::set1(mean)) * Vec::set1(scale);
    const Vec shift = bias != nullptr ? Vec::load_n(bias + i, n) : Vec::zero();
    Vec::fma(scaled, Vec::load_n(weight + i, n), shift).store_n(out + i, n);
  });
}

void rope(float* head, const float* cos, const float* sin, int64_t half) noexcept {
  for_lanes(half, [&](int64_t i, int64_t n) {
    const Vec a = Vec::load_n(head + i, n), b = Vec::load_n(head + half + i, n);
    const Vec c = Vec::load_n(cos + i, n), s = Vec::load_n(sin + i, n);
    (a * c - b * s).store_n(head + i, n);
    (b * c + a * s).store_n(head + half + i, n);
  });
}

// out = act(x), times `factor` where it isn't null.
template <class Act>
inline void activate_as(float* out, const float* x, const float* factor, int64_t count) noexcept {
  for_lanes(count, [&](int64_t i, int64_t n) {
    const Vec value = Act::value(Vec::load_n(x + i, n));
    (factor != nullptr ? value * Vec::load_n(factor + i, n) : value).store_n(out + i, n);
  });
}
void activate(float* out, const float* x, const float* factor, int64_t count,
              Activation activation) noexcept {
  with_activation(activation, [&](auto act) { activate_as<decltype(act)>(out, x, factor, count); });
}

// Twelve independent chains hide the latency of a multiply-add on every machine met so far.
constexpr int kChains = 12;
float fma_loop(int64_t rounds) noexcept {
  Vec acc[kChains];
  for (int i = 0; i < kChains; ++i) acc[i] = Vec::set1(static_cast<float>(i));
  const Vec a = Vec::set1(0.999f), b = Vec::set1(1e-3f);
  for (int64_t round = 0; round < rounds; ++round) {
    for (Vec& chain : acc) chain = Vec::fma(chain, a, b);
  }
  Vec total = Vec::zero();
  for (const Vec& chain : acc) total = total + chain;
  return total.sum();
}

// Eight streams, as the hardware's prefetchers like it.
uint64_t read_all(const std::byte* data, int64_t bytes) noexcept {
  constexpr int64_t kStreams = 8;
  const int64_t stretch = bytes / kStreams / 64 * 64;
  Vec sums[kStreams] = {};
  for (int64_t i = 0; i < stretch; i += 64) {
    for (int64_t s = 0; s < kStreams; ++s) {
      const std::byte* line = data + s * stretch + i;
      __builtin_prefetch(line + 1024);
      for (int64_t part = 0; part < 64; part += 4 * Vec::kLanes) {
        sums[s] = sums[s] + Vec::load(reinterpret_cast<const float*>(line + part));
      }
    }
  }
  float total = 0;
  for (const Vec& sum : sums) total += sum.sum();
  return std::bit_cast<uint32_t>(total);
}
