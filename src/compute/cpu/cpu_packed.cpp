// CpuBackend's products of packed weights: rounds the input once for all weights that take it in
// one form, and shares strips of outputs among the threads.
#include <algorithm>
#include <array>

#include "compute/cpu/cpu_backend.h"
#include "compute/packed.h"

namespace quern {
namespace {

// Rows that are rounded at a time: their levels stay in the third cache while weights pass by.
constexpr int64_t kRowsAtOnce = 512;
// Levels that stay in the second cache while the strips of a piece pass by.
constexpr int64_t kBlockBytes = 192 << 10;
// Strips of a piece, in bytes: what a thread reads in one stretch.
constexpr int64_t kPieceBytes = 256 << 10;

bool same_input(const PackedMatrix& a, const PackedMatrix& b) noexcept {
  return &a == &b || (cpu::rounded_form(a) == cpu::rounded_form(b) && a.order == b.order);
}

int64_t first_strip(const Weight& w) noexcept { return w.first_row / kStripRows; }
int64_t end_strip(const Weight& w) noexcept {
  return (w.first_row + w.rows + kStripRows - 1) / kStripRows;
}

}  // namespace

void CpuBackend::matmul_packed(ConstRows x, std::span<const MatmulPart> parts) {
  constexpr size_t kMost = 8;
  for (; parts.size() > kMost; parts = parts.subspan(kMost)) matmul_packed(x, parts.first(kMost));
  std::array<bool, kMost> done = {};
  for (size_t i = 0; i < parts.size(); ++i) {
    if (done[i]) continue;
    if (parts[i].weight->packed == nullptr) {
      matmul(x, parts.subspan(i, 1));
      continue;
    }
    std::array<const MatmulPart*, kMost> together = {};
    size_t count = 0;
    for (size_t j = i; j < parts.size(); ++j) {
      const PackedMatrix* other = parts[j].weight->packed;
      if (done[j] || other == nullptr || !same_input(*parts[i].weight->packed, *other)) continue;
      together[count++] = &parts[j];
      done[j] = true;
    }
    multiply_packed(x, std::span(together).first(count));
  }
}

void CpuBackend::multiply_packed(ConstRows x, std::span<const MatmulPart* const> parts) {
  const PackedMatrix& form = *parts[0]->weight->packed;
  cpu::RoundedRows rounded = {.form = cpu::rounded_form(form), .cols = x.cols};
  rounded.rows = std::min(x.rows, kRowsAtOnce);
  if (quant_rows_.count() < rounded.bytes()) {
    quant_rows_ = allocate_host(DType::U8, {rounded.bytes()});
  }
  if (!form.order.empty()) {
    for (int t = 0; t < pool_.size(); ++t) scratch(t, x.cols);
  }
  // Strips of all parts, in pieces.
  int64_t strips = 0;
  for (const MatmulPart* part : parts)
    strips += end_strip(*part->weight) - first_strip(*part->weight);
  const int64_t threads = pool_.size();
  const int64_t by_size = std::max<int64_t>(1, kPieceBytes / form.strip_bytes());
  const int64_t step = std::clamp<int64_t>(strips / (8 * threads), 1, by_size);

  for (int64_t first = 0; first < x.rows; first += kRowsAtOnce) {
    const ConstRows rows = x.slice(first, std::min(first + kRowsAtOnce, x.rows));
    rounded.rows = rows.rows;
    rounded.levels = quant_rows_.data();
    rounded.scales = reinterpret_cast<float*>(quant_rows_.data() + rounded.level_bytes());
    const auto round_rows = [&](int64_t begin, int64_t end, int thread) {
      for (int64_t r = begin; r < end; ++r) {
        const float* from = rows.row(r);
        if (!form.order.empty()) {
          float* permuted = scratch_[static_cast<size_t>(thread)].floats().data();
          for (int64_t k = 0; k < x.cols; ++k) {
            permuted[k] = from[form.order[static_cast<size_t>(k)]];
          }
          from = permuted;
        }
        quant_.round_row(rounded, r, from);
      }
    };
    if (rows.rows < 4) {
      round_rows(0, rows.rows, 0);
    } else {
      pool_.parallel_for(rows.rows, (rows.rows + 4 * threads - 1) / (4 * threads), round_rows);
    }
    const int64_t row_bytes = rounded.level_bytes() / rows.rows;
    // A multiple of what tiles have, 4, 6 or 8.
    const int64_t block = std::max<int64_t>(24, kBlockBytes / row_bytes / 24 * 24);
    const auto run_strips = [&](int64_t begin, int64_t end, int) {
      for (const MatmulPart* part : parts) {
        const int64_t base = first_strip(*part->weight);
        const int64_t count = end_strip(*part->weight) - base;
        const int64_t to = std::min(end, count);
        if (begin < to) {
          MatmulPart slice = *part;
          slice.out = part->out.slice(first, first + rows.rows);
          for (int64_t row = 0; row < rows.rows; row += block) {
            const int64_t row_end = std::min(row + block, rows.rows);
            quant_.multiply(slice, rounded, row, row_end, base + begin, base + to);
          }
        }
        begin = std::max<int64_t>(0, begin - count);
        end -= count;
        if (end <= 0) break;
      }
    };
    if (rows.rows * x.cols * strips < (1 << 15)) {
      run_strips(0, strips, 0);
    } else {
      pool_.parallel_for(strips, step, run_strips);
    }
  }
}

}  // namespace quern
