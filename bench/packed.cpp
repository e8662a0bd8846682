// Products of packed weights of 4 and 8 bits at the shapes of a 7B model, beside what memory gives
// in the same run.
//   bench_packed [regular expression of what to run]
#include "compute/packed.h"

#include <fmt/format.h>

#include <regex>
#include <vector>

#include "compute/cpu/cpu_backend.h"
#include "compute/cpu/machine.h"
#include "core/rng.h"
#include "race.h"

namespace {

using namespace quern;

struct Kind {
  const char* name;
  int bits;
  PackedScales scales;
};
constexpr Kind kKinds[] = {{"Q4_0", 4, PackedScales::Symmetric},
                           {"Q8_0", 8, PackedScales::Symmetric},
                           {"Q4_K", 4, PackedScales::Minima},
                           {"Q6_K", 8, PackedScales::Sixteens}};

// Any bytes do, but scales must be finite, and Q6_K's levels small.
PackedMatrix random_packed(const Kind& kind, int64_t rows, int64_t cols) {
  PackedMatrix m;
  m.bits = kind.bits;
  m.scales = kind.scales;
  m.rows = rows;
  m.cols = cols;
  m.activation_bits = activation_bits(cols);
  m.memory = allocate_host(DType::U8, {m.bytes()});
  Rng rng(static_cast<uint64_t>(cols));
  for (int64_t s = 0; s < m.strips(); ++s) {
    auto* words = reinterpret_cast<uint32_t*>(m.strip(s));
    const int64_t level_words = m.level_bytes() / 4;
    for (int64_t i = 0; i < level_words; ++i) {
      words[i] = rng.next_u32() & (kind.scales == PackedScales::Sixteens ? 0x1F1F1F1F : ~0u);
    }
    for (int64_t i = level_words; i < m.strip_bytes() / 4; ++i) words[i] = 0x21032103;
  }
  return m;
}

}  // namespace

int main(int argc, char** argv) {
  const std::regex wanted(argc > 1 ? argv[1] : "");
  ThreadPool pool;
  CpuBackend run(pool);
  const double bandwidth = cpu::measured_read_bandwidth(pool, run.isa());
  fmt::print("{}, {}, {} threads: {:.1f} GB/s\n", cpu::cpu_model(), cpu::name(run.isa()),
             pool.size(), bandwidth / 1e9);
  fmt::print("{:<28} {:>8} {:>10} {:>8}\n", "product", "us", "GMAC/s", "GB/s");
  const std::pair<int64_t, int64_t> shapes[] = {{11008, 4096}, {4096, 11008}};
  for (const Kind& kind : kKinds) {
    for (const auto& [out, in] : shapes) {
      std::vector<PackedMatrix> matrices;  // so many that the third cache does not hold them
      for (const int64_t rows : {1, 4, 8, 16, 512}) {
        const std::string name = fmt::format("{} {} x {} x {}", kind.name, rows, out, in);
        if (!std::regex_search(name, wanted)) continue;
        while (matrices.size() < 8) matrices.push_back(random_packed(kind, out, in));
        const size_t count = rows == 512 ? 1 : matrices.size();
        Tensor x = run.allocate(DType::F32, {rows, in}), y = run.allocate(DType::F32, {rows, out});
        Rng rng(1);
        for (float& value : x.floats()) {
          value = static_cast<float>(rng.next_u32() >> 8) * 0x1p-23f - 1;
        }
        const auto multiply_all = [&] {
          for (size_t i = 0; i < count; ++i) {
            const Weight weight = {
                .format = WeightFormat::Packed, .rows = out, .cols = in, .packed = &matrices[i]};
            const MatmulPart part = {rows_of(y, rows), &weight, {}, false};
            run.matmul({x.floats().data(), rows, in, in}, {&part, 1});
          }
        };
        const double seconds = bench::race({multiply_all}, 5)[0] / static_cast<double>(count);
        fmt::print("{:<28} {:>8.0f} {:>10.1f} {:>8.1f}\n", name, 1e6 * seconds,
                   static_cast<double>(rows * out * in) / seconds / 1e9,
                   static_cast<double>(matrices[0].bytes()) / seconds / 1e9);
      }
    }
  }
  return 0;
}
